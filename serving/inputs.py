"""From what callers hold (lists, rows, arrays, columns) to the tensors a signature takes.

Missing values: None, NaN and NA stand for ``''`` in a string input and for NaN in a float input; a
missing sequence is an empty one. Ragged sequences are padded at the end with ``''`` or NaN; where
the signature has ``<name>_length`` numbers are padded with 0 and the lengths filled in. Error
messages name features, types and positions, never values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.api.tensors import Array, TensorError, numpy_dtype
from serving.columns import is_missing, plain
from serving.contract import LENGTH_SUFFIX
from serving.errors import InvalidRequestError
from serving.signatures import SignatureSpec, TensorSpec


def encode_inputs(values: Mapping[str, Any], signature: SignatureSpec) -> dict[str, Array]:
    """Turns named values into the arrays of a signature.

    Args:
        values: Per input a scalar, a list (of lists for sequences) or an array.
        signature: The signature to fit.

    Returns:
        One array per supplied input, plus the lengths of ragged sequences.

    Raises:
        InvalidRequestError: Names, types or shapes do not fit; nothing was sent.
    """
    complete = {name: plain(value) for name, value in values.items()}
    complete |= {
        name + LENGTH_SUFFIX: [0 if row is None else len(row) for row in value]
        for name, value in complete.items()
        if name + LENGTH_SUFFIX in signature.inputs
        and name + LENGTH_SUFFIX not in complete
        and _are_sequences(value)
    }
    signature.check_input_names(complete)
    return {
        name: encode_input(
            value, signature.inputs[name], padded=name + LENGTH_SUFFIX in signature.inputs
        )
        for name, value in complete.items()
    }


def check_batch(arrays: Mapping[str, Array]) -> None:
    """Checks that all inputs have the same number of rows, as every signature but ``rank`` wants.

    Raises:
        InvalidRequestError: They have not.
    """
    sizes = {name: len(array) for name, array in arrays.items() if array.ndim}
    if len(set(sizes.values())) > 1:
        raise InvalidRequestError(
            "the inputs have different numbers of rows",
            constraint="the same first dimension in every input",
            received=", ".join(f"{name}: {size}" for name, size in sorted(sizes.items())),
            remedy="give every feature one value a row, None where it is missing",
        )


def encode_input(value: Any, spec: TensorSpec, *, padded: bool = False) -> Array:
    """Turns one value into the array of one input.

    Args:
        value: A scalar, list, list of lists, array, or a pandas or Arrow column.
        spec: The input.
        padded: Whether a ``<name>_length`` input says which values are real.

    Returns:
        An array of the input's type and a shape that fits it.

    Raises:
        InvalidRequestError: Type or shape does not fit.
    """
    try:
        dtype = numpy_dtype(spec.data_type)
    except TensorError as error:
        raise InvalidRequestError(
            f"input {spec.name!r} cannot be sent",
            constraint="numbers, booleans or strings",
            received=str(error),
            remedy="export the model with an input of another type",
        ) from None
    value = plain(value)
    if _are_sequences(value) and spec.shape is not None and len(spec.shape) == 2:
        value = _pad(value, spec, dtype, padded)
    array = _as_strings(value, spec) if dtype.kind == "O" else _as_numbers(value, spec, dtype)
    _check_shape(array, spec)
    return array


def _are_sequences(value: Any) -> bool:
    """Whether a value of an input that takes sequences is a list of them; each may be missing."""
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(row is None or isinstance(row, (list, tuple, np.ndarray)) for row in value)
    )


def _is_rows(value: Any) -> bool:
    """Whether a value of any input is a list of lists: single values may be missing as well."""
    return _are_sequences(value) and any(row is not None for row in value)


def _pad(
    values: Sequence[Sequence[Any] | None],
    spec: TensorSpec,
    dtype: np.dtype[Any],
    padded: bool,
) -> list[list[Any]]:
    assert spec.shape is not None
    rows = [() if row is None else row for row in values]
    longest = max(len(row) for row in rows)
    width = spec.shape[1] if spec.shape[1] is not None else longest
    if longest > width:
        raise InvalidRequestError(
            f"a sequence of input {spec.name!r} is too long",
            constraint=f"at most {width} values",
            received=f"{longest} values",
            remedy=f"send the first {width}",
        )
    filler: Any = "" if dtype.kind == "O" else 0 if padded else np.nan
    if dtype.kind in "iub" and not padded and any(len(row) < width for row in rows):
        raise InvalidRequestError(
            f"sequence {spec.name!r} has rows of different lengths, and {spec.dtype_name} "
            "has no value for padding",
            constraint=f"{width} values in every row",
            received=f"{min(len(row) for row in rows)} to {longest} values",
            remedy="pad the rows with a value that means missing to this model",
        )
    return [list(row) + [filler] * (width - len(row)) for row in rows]


def _as_strings(value: Any, spec: TensorSpec) -> Array:
    if isinstance(value, (str, bytes)) or value is None:
        source = np.empty((), object)
        source[()] = value
    elif isinstance(value, np.ndarray):
        source = value
    elif _is_rows(value):
        source = np.array([_object_row(row) for row in value])
    else:
        source = _object_row(value)
    encoded = np.empty(source.size, object)
    encoded[:] = [_as_bytes(each, spec) for each in source.ravel().tolist()]
    return encoded.reshape(source.shape)


def _object_row(values: Any) -> Array:
    listed = list(values)
    row = np.empty(len(listed), object)
    row[:] = listed
    return row


def _as_bytes(value: Any, spec: TensorSpec) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:  # its text would quote the value
            raise InvalidRequestError(
                f"a text of input {spec.name!r} cannot be sent",
                constraint="text that UTF-8 can express, or bytes",
                received="half of a surrogate pair",
                remedy="correct the text where it was decoded",
            ) from None
    if isinstance(value, bytes):
        return value
    if is_missing(value):
        return b""
    raise _wrong_type(spec, type(value).__name__)


def _as_numbers(value: Any, spec: TensorSpec, dtype: np.dtype[Any]) -> Array:
    try:
        source = np.asarray(value)
        if source.dtype.kind == "O" and dtype.kind == "f":
            values = [np.nan if is_missing(each) else each for each in source.ravel().tolist()]
            source = np.asarray(values).reshape(source.shape)
        elif source.size == 0:
            source = source.astype(dtype)
    except ValueError:  # NumPy's word for lists that are not rectangular
        raise InvalidRequestError(
            f"input {spec.name!r} has rows of different shapes",
            constraint=_shape_text(spec),
            received="lists of different lengths",
            remedy="give every row the same number of values",
        ) from None
    accepted = {"f": "biuf", "i": "biu", "u": "biu", "b": "b"}[dtype.kind]
    if source.dtype.kind not in accepted:
        raise _wrong_type(spec, "text" if source.dtype.kind == "U" else str(source.dtype))
    if dtype.kind in "iu" and source.size and source.dtype != dtype:
        limits = np.iinfo(dtype)
        if int(source.min()) < limits.min or int(source.max()) > limits.max:
            raise InvalidRequestError(
                f"a value of input {spec.name!r} is out of range",
                constraint=f"{limits.min} to {limits.max}",
                received=str(source.dtype),
                remedy=f"send values that fit {spec.dtype_name}",
            )
    try:
        with np.errstate(over="raise"):
            return source.astype(dtype, copy=False)
    except FloatingPointError:
        raise InvalidRequestError(
            f"a value of input {spec.name!r} is out of range",
            constraint=f"magnitudes up to {np.finfo(dtype).max:.3g}",
            received=str(source.dtype),
            remedy=f"send values that fit {spec.dtype_name}",
        ) from None


def _check_shape(array: Array, spec: TensorSpec) -> None:
    if spec.shape is None:
        return
    if array.ndim != len(spec.shape) or any(
        known is not None and known != size
        for known, size in zip(spec.shape, array.shape, strict=True)
    ):
        raise InvalidRequestError(
            f"input {spec.name!r} has the wrong shape",
            constraint=_shape_text(spec),
            received=f"shape {list(array.shape)}",
            remedy="give one value a row, or one list a row where the shape has two sizes",
        )


def _shape_text(spec: TensorSpec) -> str:
    sizes = ", ".join("any" if size is None else str(size) for size in spec.shape or ())
    return f"shape [{sizes}]"


def _wrong_type(spec: TensorSpec, received: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"input {spec.name!r} has the wrong type",
        constraint=spec.dtype_name,
        received=received,
        remedy=f"convert the values to {spec.dtype_name} before sending",
    )
