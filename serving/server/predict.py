"""Predict on a loaded model: from request message to response message."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from serving.api.messages import PredictResponse
from serving.api.tensors import DT_STRING, TensorError, decode, encode
from serving.contract import SERVING_DEFAULT
from serving.server import errors
from serving.server.call import Call
from serving.server.example_check import check_examples
from serving.server.limits import Limits
from serving.server.runtime import InputInfo, LoadedModel, Signature
from serving.server.sent_strings import SentStrings, Value, strings


def run_predict(model: LoadedModel, request: Any, call: Call, limits: Limits) -> Any:
    """Answers a PredictRequest.

    Args:
        model: The version that the request's model spec resolved to.
        request: A PredictRequest.
        call: Whose call it is; told the number of rows and the time that TensorFlow took.
        limits: How large the request may be.

    Returns:
        A PredictResponse that names the resolved signature, but not yet the version.

    Raises:
        StatusError: The request does not fit the signature, or running it failed.
    """
    name = request.model_spec.signature_name or SERVING_DEFAULT
    signature = model.signatures.get(name)
    if signature is None:
        raise errors.unknown_signature(name)
    if not signature.is_inference:
        raise errors.wrong_method_name(signature.method_name)
    inputs = _inputs(signature, request.inputs, limits)
    outputs = _outputs(signature, request.output_filter)
    call.num_examples = max((len(v) for v in inputs.values() if v.ndim), default=1)
    start = time.perf_counter()
    values = model.run(
        {signature.inputs[alias].tensor: value for alias, value in inputs.items()},
        [signature.outputs[alias] for alias in outputs],
        call.seconds_left,
        is_batchable=signature.is_batchable,
    )
    call.runtime_seconds = time.perf_counter() - start
    response = PredictResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.signature_name = name
    for alias, value in zip(outputs, values, strict=True):
        response.outputs[alias].CopyFrom(encode(value))
    return response


def _inputs(signature: Signature, sent: Any, limits: Limits) -> dict[str, Value]:
    if len(sent) > len(signature.inputs) or (
        len(sent) < len(signature.inputs) and not signature.defaults
    ):
        raise errors.input_size_mismatch(sent, signature.inputs)
    values: dict[str, Value] = {}
    bytes_left = limits.max_message_bytes
    for alias, info in signature.inputs.items():
        if alias in sent:
            value = _received(alias, info, sent[alias], bytes_left, limits)
            bytes_left -= value.nbytes
            values[alias] = value
        elif alias in signature.defaults:
            values[alias] = signature.defaults[alias]
        else:
            raise errors.input_not_sent(alias, sent, signature.defaults)
    if any(alias not in signature.inputs for alias in sent):
        raise errors.invalid_input_names(sent, values.keys() & set(sent))
    return values


def _received(alias: str, info: InputInfo, proto: Any, max_bytes: int, limits: Limits) -> Value:
    value: Value
    try:
        if proto.dtype == DT_STRING:
            value = SentStrings(proto, max_bytes)
        else:
            value = decode(proto, max_bytes=max_bytes)
    except TensorError as error:
        raise errors.tensor_parsing_error(alias, str(error)) from None
    info.check(alias, proto.dtype, value.shape)
    limits.check(alias, value, proto.ByteSize())
    if info.message is not None:
        check_examples(strings(value), info.message)
    return value


def _outputs(signature: Signature, output_filter: Sequence[str]) -> list[str]:
    chosen: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise errors.unknown_output(alias, signature.outputs)
        if alias in chosen:
            raise errors.duplicate_output(alias)
        chosen.append(alias)
    return chosen or list(signature.outputs)
