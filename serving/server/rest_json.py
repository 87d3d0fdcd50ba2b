"""The JSON of TF Serving's REST API: request bodies to messages, results to bodies.

Values never appear in error texts, so that what is sent cannot end up in a log.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.api.messages import DATA_TYPE_NAMES, DATA_TYPES
from serving.api.tensors import Array, TensorError, decode, encode, numpy_dtype
from serving.server import errors
from serving.server.runtime import InputInfo

_BASE64 = "b64"
_MAX_DEPTH = 16
_INT64 = np.iinfo(np.int64)


def parse_object(body: bytes) -> dict[str, Any]:
    """Parses a request body, which is one JSON object.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    if not body:
        raise errors.invalid_json("The document is empty")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        place = f" at offset {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise errors.invalid_json(f"invalid{place}") from None
    if not isinstance(document, dict):
        raise errors.unfit_json("JSON Value: Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """Returns the signature that a request names; empty if it names none.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise errors.unfit_json("'signature_name' key must be a string value.")
    _utf8("'signature_name' key", name)
    return name


def is_row_format(document: Mapping[str, Any]) -> bool:
    """Whether a predict request lists its rows (`instances`) or its columns (`inputs`).

    Raises:
        StatusError: INVALID_ARGUMENT if it has neither or both.
    """
    if ("instances" in document) == ("inputs" in document):
        raise errors.unfit_json(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
        )
    return "instances" in document


def predict_inputs(document: Mapping[str, Any], inputs: Mapping[str, InputInfo]) -> dict[str, Any]:
    """Reads the tensors of a predict request.

    Args:
        document: The body, with `instances` or `inputs`.
        inputs: What the signature takes.

    Returns:
        A TensorProto per input.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    columns = (
        _columns_of_rows(document["instances"], inputs)
        if is_row_format(document)
        else _columns(document["inputs"], inputs)
    )
    for name in columns:
        if name not in inputs:
            raise errors.unfit_json(f"JSON object: does not have named input: {name}")
    return {name: _tensor(name, value, inputs[name].data_type) for name, value in columns.items()}


def _columns_of_rows(rows: Any, inputs: Mapping[str, InputInfo]) -> dict[str, Any]:
    if not isinstance(rows, list):
        raise errors.unfit_json("Expecting 'instances' to be an list/array")
    if not rows:
        raise errors.unfit_json("No values in 'instances' array")
    if not isinstance(rows[0], dict) or _is_base64(rows[0]):
        return {_only_input(inputs): rows}
    names = rows[0].keys()
    for row in rows:
        if not isinstance(row, dict) or row.keys() != names:
            raise errors.unfit_json("Failed to process element of 'instances' list: names differ")
    return {name: [row[name] for row in rows] for name in names}


def _columns(inputs_value: Any, inputs: Mapping[str, InputInfo]) -> dict[str, Any]:
    if isinstance(inputs_value, dict) and not _is_base64(inputs_value):
        return dict(inputs_value)
    return {_only_input(inputs): inputs_value}


def _only_input(inputs: Mapping[str, InputInfo]) -> str:
    if len(inputs) != 1:
        raise errors.unfit_json(
            "Failed to process element. Missing named inputs; the signature has "
            f"{len(inputs)} of them"
        )
    (name,) = inputs
    return name


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {_BASE64} and isinstance(value[_BASE64], str)


def _tensor(name: str, value: Any, data_type: int) -> Any:
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        if len(shape) == _MAX_DEPTH:
            raise errors.unfit_json(f"input {name}: lists are nested too deeply")
        shape.append(len(first))
        first = first[0] if first else None
    flat: list[Any] = []
    _flatten(name, value, shape, 0, flat)
    try:
        dtype = numpy_dtype(data_type)
    except TensorError as error:
        raise errors.unfit_json(f"input {name}: {error}") from None
    array = np.empty(len(flat), dtype)
    if dtype.kind == "O":
        array[:] = [_bytes(name, each) for each in flat]
    else:
        _check_numbers(name, flat, dtype, data_type)
        with np.errstate(over="ignore"):  # too large for float32 is infinite, as in TF Serving
            array[:] = flat
    return encode(array.reshape(shape))


def _flatten(name: str, value: Any, shape: Sequence[int], level: int, flat: list[Any]) -> None:
    if level == len(shape):
        if isinstance(value, list):
            raise errors.unfit_json(
                f"input {name}: Encountered list at unexpected level: {level} "
                f"expected < {len(shape)}"
            )
        flat.append(value)
        return
    if not isinstance(value, list):
        raise errors.unfit_json(
            f"input {name}: JSON Value found at incorrect level: {level + 1} in the JSON DOM. "
            f"Expected at level: {len(shape)}"
        )
    if len(value) != shape[level]:
        raise errors.unfit_json(
            f"input {name}: Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for each in value:
        _flatten(name, each, shape, level + 1, flat)


def _wrong_type(name: str, value: Any, data_type: int) -> errors.StatusError:
    return errors.unfit_json(
        f"input {name}: JSON Value of type {type(value).__name__} is not of expected type: "
        f"{DATA_TYPE_NAMES[data_type].removeprefix('DT_').lower()}"
    )


def _check_numbers(name: str, flat: Sequence[Any], dtype: Any, data_type: int) -> None:
    allowed: tuple[type, ...] = (int,)
    low, high = -math.inf, math.inf
    if dtype.kind == "b":
        allowed = (bool,)
    elif dtype.kind == "f":
        allowed = (int, float)
        low, high = -1e308, 1e308
    else:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    for value in flat:
        # bool is an int to Python, but not to JSON.
        if not isinstance(value, allowed) or isinstance(value, bool) != (dtype.kind == "b"):
            raise _wrong_type(name, value, data_type)
        if isinstance(value, int) and not low <= value <= high:
            raise _wrong_type(name, value, data_type)


def _bytes(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return _utf8(name, value)
    if _is_base64(value):
        try:
            return base64.b64decode(value[_BASE64], validate=True)
        except (binascii.Error, ValueError):
            raise errors.unfit_json(f"input {name}: Unable to base64 decode") from None
    raise _wrong_type(name, value, DATA_TYPES["DT_STRING"])


def _utf8(name: str, value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise errors.unfit_json(f"{name}: a string holds half of a surrogate pair") from None


def fill_examples(document: Mapping[str, Any], sent: Any) -> None:
    """Reads the examples of a classify or regress request.

    Args:
        document: The body, with `examples` and perhaps `context`.
        sent: An Input to fill.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    rows = document.get("examples")
    if rows is None:
        raise errors.unfit_json("key 'examples' is expected and was not found")
    if not isinstance(rows, list):
        raise errors.unfit_json("Expecting 'examples' value to be an list/array")
    if not rows:
        raise errors.unfit_json("'examples' value is an empty array")
    if "context" in document:
        filled = sent.example_list_with_context
        _fill_example(document["context"], filled.context)
    else:
        filled = sent.example_list
    for row in rows:
        _fill_example(row, filled.examples.add())


def _fill_example(row: Any, example: Any) -> None:
    if not isinstance(row, dict):
        raise errors.unfit_json("an example is not an object")
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        try:
            _fill_feature(name, values, example.features.feature[name])
        except UnicodeEncodeError:
            raise errors.unfit_json("the name of a feature is not valid") from None


def _fill_feature(name: str, values: Sequence[Any], feature: Any) -> None:
    if all(isinstance(v, str) or _is_base64(v) for v in values):
        feature.bytes_list.value.extend(_bytes(name, v) for v in values)
    elif any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        raise errors.unfit_json(
            f"Feature: {name} holds neither numbers, nor strings, nor base64 objects"
        )
    elif any(isinstance(v, float) for v in values):
        try:
            feature.float_list.value.extend(map(float, values))
        except OverflowError:
            raise errors.unfit_json(f"Feature: {name} holds a number out of range") from None
    elif all(_INT64.min <= v <= _INT64.max for v in values):
        feature.int64_list.value.extend(values)
    else:
        raise errors.unfit_json(f"Feature: {name} holds a number out of range")


def predict_body(outputs: Mapping[str, Any], *, as_rows: bool) -> dict[str, Any]:
    """Makes the answer to a predict request.

    Args:
        outputs: A TensorProto per output.
        as_rows: Whether to answer `predictions` (rows) or `outputs` (columns).

    Raises:
        StatusError: INVALID_ARGUMENT if rows are asked for and the outputs have none.
    """
    columns = {name: _listed(name, decode(proto)) for name, proto in sorted(outputs.items())}
    if not as_rows:
        return {"outputs": columns if len(columns) != 1 else next(iter(columns.values()))}
    sizes = {len(column) if isinstance(column, list) else -1 for column in columns.values()}
    if len(sizes) != 1 or -1 in sizes:
        raise errors.unfit_result("the outputs have no common batch size; send 'inputs' instead")
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values()))}
    return {
        "predictions": [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    }


def _listed(name: str, array: Array) -> Any:
    if array.dtype.kind != "O":
        if array.dtype == np.float32:
            # The shortest decimals that read back as the same float32.
            return np.reshape([float(str(v)) for v in array.ravel()], array.shape).tolist()
        return array.tolist()
    is_binary = name.endswith("_bytes")
    flat = np.empty(array.size, object)
    flat[:] = [
        {_BASE64: base64.b64encode(v).decode()} if is_binary else v.decode(errors="replace")
        for v in array.ravel().tolist()
    ]
    return flat.reshape(array.shape).tolist()


def classification_body(result: Any) -> dict[str, Any]:
    """Makes the answer to a classify request: per example pairs of label and score."""
    return {
        "results": [
            [[each.label, _shortest(each.score)] for each in classifications.classes]
            for classifications in result.classifications
        ]
    }


def regression_body(result: Any) -> dict[str, Any]:
    """Makes the answer to a regress request: a value per example."""
    return {"results": [_shortest(regression.value) for regression in result.regressions]}


def _shortest(value: float) -> float:
    return float(str(np.float32(value)))
