"""Predict on a loaded model: from request message to response message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serving.api.messages import PredictResponse
from serving.api.tensors import DEFAULT_MAX_BYTES, Array, TensorError, decode, encode
from serving.contract import SERVING_DEFAULT
from serving.server import errors
from serving.server.runtime import SavedModelRuntime, Signature


def run_predict(
    runtime: SavedModelRuntime,
    request: Any,
    *,
    version: int | None = None,
    timeout_seconds: float | None = None,
    max_tensor_bytes: int = DEFAULT_MAX_BYTES,
) -> Any:
    """Answers a PredictRequest.

    Args:
        runtime: The loaded version.
        request: A PredictRequest; its model spec has been resolved to this version.
        version: The version's number, for the response.
        timeout_seconds: Time limit of the computation.
        max_tensor_bytes: Most memory to build input tensors in.

    Returns:
        A PredictResponse that names the resolved signature and version.

    Raises:
        StatusError: The request does not fit the signature, or running it failed.
    """
    name = request.model_spec.signature_name or SERVING_DEFAULT
    signature = runtime.signatures.get(name)
    if signature is None:
        raise errors.unknown_signature(name)
    if not signature.is_inference:
        raise errors.wrong_method_name(signature.method_name)
    inputs = _inputs(signature, request.inputs, max_tensor_bytes)
    outputs = _outputs(signature, request.output_filter)
    values = runtime.run(signature, inputs, outputs, timeout_seconds)
    response = PredictResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.signature_name = name
    if version is not None:
        response.model_spec.version.value = version
    for alias, value in zip(outputs, values, strict=True):
        response.outputs[alias].CopyFrom(encode(value))
    return response


def _inputs(signature: Signature, sent: Any, max_tensor_bytes: int) -> dict[str, Array]:
    if len(sent) > len(signature.inputs) or (
        len(sent) < len(signature.inputs) and not signature.defaults
    ):
        raise errors.input_size_mismatch(sent, signature.inputs)
    arrays: dict[str, Array] = {}
    bytes_left = max_tensor_bytes
    for alias, info in signature.inputs.items():
        if alias in sent:
            try:
                arrays[alias] = decode(sent[alias], max_bytes=bytes_left)
            except TensorError as error:
                raise errors.tensor_parsing_error(alias, str(error)) from None
            bytes_left -= arrays[alias].nbytes
            info.check(alias, sent[alias].dtype, arrays[alias].shape)
        elif alias in signature.defaults:
            arrays[alias] = signature.defaults[alias]
        else:
            raise errors.input_not_sent(alias, sent, signature.defaults)
    if any(alias not in signature.inputs for alias in sent):
        raise errors.invalid_input_names(sent, arrays.keys() & set(sent))
    return arrays


def _outputs(signature: Signature, output_filter: Sequence[str]) -> list[str]:
    chosen: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise errors.unknown_output(alias, signature.outputs)
        if alias in chosen:
            raise errors.duplicate_output(alias)
        chosen.append(alias)
    return chosen or list(signature.outputs)
