"""What Classify makes of a signature: labels and scores per example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.api.tensors import Array
from serving.server import errors
from serving.server.runtime import Signature

_INPUT, _CLASSES, _SCORES = "inputs", "classes", "scores"


class ClassificationHead:
    """One input `inputs`; outputs `classes` (strings) and `scores` (floats) ``[N, C]``, or one.

    Args:
        signature: The signature; whatever its method name, as in TF Serving by default.

    Raises:
        StatusError: INVALID_ARGUMENT if its inputs and outputs are others.
    """

    def __init__(self, signature: Signature) -> None:
        if len(signature.inputs) != 1:
            raise errors.unfit_signature("classification", "Expected one input Tensor.")
        if len(signature.outputs) not in (1, 2):
            raise errors.unfit_signature(
                "classification",
                f"Expected one or two output Tensors, found {len(signature.outputs)}",
            )
        if _INPUT not in signature.inputs:
            raise errors.unfit_signature(
                "classification", "No classification inputs found in SignatureDef"
            )
        self.signature = signature
        self.input = signature.inputs[_INPUT].tensor
        self._classes = signature.outputs.get(_CLASSES)
        self._scores = signature.outputs.get(_SCORES)
        self.fetches: Sequence[str] = [
            name for name in (self._classes, self._scores) if name is not None
        ]
        if not self.fetches:
            raise errors.unfit_signature(
                "classification",
                "Expected classification signature outputs to contain at least one of "
                f'"{_CLASSES}" or "{_SCORES}"',
            )

    def fill(self, result: Any, values: Mapping[str, Array], num_examples: int) -> None:
        """Writes a ClassificationResult; see `Head.fill`."""
        classes = self._checked(_CLASSES, self._classes, values, num_examples)
        scores = self._checked(_SCORES, self._scores, values, num_examples)
        if classes is not None and scores is not None and classes.shape != scores.shape:
            raise errors.unfit_result(
                "Tensors class and score should match in dim_size(1). "
                f"Got {classes.shape[1]} vs. {scores.shape[1]}"
            )
        present = classes if classes is not None else scores
        assert present is not None  # __init__ found one
        for row in range(num_examples):
            classifications = result.classifications.add()
            for column in range(present.shape[1]):
                found = classifications.classes.add()
                if classes is not None:
                    found.label = _text(classes[row, column])
                if scores is not None:
                    found.score = scores[row, column]

    def _checked(
        self, alias: str, tensor: str | None, values: Mapping[str, Array], num_examples: int
    ) -> Array | None:
        if tensor is None:
            return None
        value = values[tensor]
        if value.ndim != 2:
            raise errors.unfit_result(
                f"Expected Tensor shape: [batch_size num_classes] but got {list(value.shape)}"
            )
        expected = np.object_ if alias == _CLASSES else np.float32
        if value.dtype != expected:
            name = "DT_STRING" if alias == _CLASSES else "DT_FLOAT"
            raise errors.unfit_result(f"Expected {alias} Tensor of {name}. Got: {value.dtype}")
        if len(value) != num_examples:
            raise errors.unfit_result(
                f"Expected {alias} output batch size of {num_examples}. Got: {len(value)}"
            )
        return value


def _text(label: bytes) -> str:
    try:
        return label.decode()
    except UnicodeDecodeError:
        raise errors.unfit_result("a class label is not UTF-8") from None
