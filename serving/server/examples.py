"""Classify, Regress and MultiInference: tf.Examples in, classes and values out.

All three feed the same serialized examples to one input tensor per signature; what differs is
which tensors they fetch and what they make of them: a `Head`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from serving.api.messages import (
    ClassificationResponse,
    MultiInferenceResponse,
    RegressionResponse,
)
from serving.api.tensors import Array
from serving.contract import SERVING_DEFAULT
from serving.server import errors
from serving.server.call import Call
from serving.server.classification import ClassificationHead
from serving.server.limits import Limits
from serving.server.regression import RegressionHead
from serving.server.runtime import LoadedModel, Signature

_CLASSIFY = "tensorflow/serving/classify"
_REGRESS = "tensorflow/serving/regress"


class Head(Protocol):
    """What a signature answers about examples.

    Attributes:
        signature: The signature.
        input: Name of the tensor that takes the examples.
        fetches: Names of the tensors to compute.
    """

    signature: Signature
    input: str
    fetches: Sequence[str]

    def fill(self, result: Any, values: Mapping[str, Array], num_examples: int) -> None:
        """Writes the answer into a result message.

        Args:
            result: A ClassificationResult or RegressionResult.
            values: Per fetch its value.
            num_examples: How many examples were asked about.

        Raises:
            StatusError: The model computed something of another shape or type.
        """


def run_classify(model: LoadedModel, request: Any, call: Call, limits: Limits) -> Any:
    """Answers a ClassificationRequest; arguments and errors as for `run_predict`."""
    head = ClassificationHead(_signature(model, request.model_spec))
    return _run_one(head, model, request, ClassificationResponse(), call, limits)


def run_regress(model: LoadedModel, request: Any, call: Call, limits: Limits) -> Any:
    """Answers a RegressionRequest; arguments and errors as for `run_predict`."""
    head = RegressionHead(_signature(model, request.model_spec))
    return _run_one(head, model, request, RegressionResponse(), call, limits)


def run_multi_inference(model: LoadedModel, request: Any, call: Call, limits: Limits) -> Any:
    """Answers a MultiInferenceRequest in one run; arguments and errors as for `run_predict`."""
    heads: dict[str, Head] = {}
    model_name = request.tasks[0].model_spec.name
    for task in request.tasks:
        if not task.model_spec.name:
            raise errors.no_tasks()
        if task.model_spec.name != model_name:
            raise errors.mixed_models()
        name = task.model_spec.signature_name or SERVING_DEFAULT
        if name in heads:
            raise errors.repeated_signature(name)
        signature = model.signatures.get(name)
        if signature is None:
            raise errors.absent_signature(name)
        if task.method_name == _CLASSIFY:
            heads[name] = ClassificationHead(signature)
        elif task.method_name == _REGRESS:
            heads[name] = RegressionHead(signature)
        else:
            raise errors.unsupported_method(task.method_name)
    examples = serialized_examples(request.input, limits)
    values = _run(list(heads.values()), model, examples, call)
    response = MultiInferenceResponse()
    for name, head in heads.items():
        result = response.results.add()
        result.model_spec.name = model_name
        result.model_spec.signature_name = name
        filled = (
            result.classification_result
            if isinstance(head, ClassificationHead)
            else result.regression_result
        )
        filled.SetInParent()
        head.fill(filled, values, len(examples))
    return response


def _signature(model: LoadedModel, spec: Any) -> Signature:
    name = spec.signature_name or SERVING_DEFAULT
    signature = model.signatures.get(name)
    if signature is None:
        raise errors.signature_not_found(name)
    return signature


def _run_one(
    head: Head, model: LoadedModel, request: Any, response: Any, call: Call, limits: Limits
) -> Any:
    examples = serialized_examples(request.input, limits)
    head.fill(response.result, _run([head], model, examples, call), len(examples))
    response.model_spec.name = request.model_spec.name
    response.model_spec.signature_name = head.signature.name
    return response


def _run(
    heads: Sequence[Head], model: LoadedModel, examples: Array, call: Call
) -> Mapping[str, Array]:
    fetches = sorted({name for head in heads for name in head.fetches})
    call.num_examples = len(examples)
    start = time.perf_counter()
    values = model.run(
        {name: examples for name in sorted({head.input for head in heads})},
        fetches,
        call.seconds_left,
        is_batchable=all(head.signature.is_batchable for head in heads),
    )
    call.runtime_seconds = time.perf_counter() - start
    return dict(zip(fetches, values, strict=True))


def serialized_examples(sent: Any, limits: Limits) -> Array:
    """Serializes the examples of an Input, each with the context's features it does not have.

    Args:
        sent: An Input.
        limits: How large it may be.

    Returns:
        ``object[N]`` of bytes.

    Raises:
        StatusError: INVALID_ARGUMENT if there is no example, or more than allowed.
    """
    kind = sent.WhichOneof("kind")
    context = b""
    examples: Sequence[Any] = ()
    if kind == "example_list":
        examples = sent.example_list.examples
    elif kind == "example_list_with_context":
        examples = sent.example_list_with_context.examples
        context = sent.example_list_with_context.context.SerializeToString()
    if not examples:
        raise errors.empty_input()
    # The bytes of two messages, one after the other, are the two merged: of a feature that both
    # have, the example's counts.
    array = np.empty(len(examples), object)
    array[:] = [context + example.SerializeToString() for example in examples]
    limits.check("examples", array, sent.ByteSize() + len(context) + 16)
    return array
