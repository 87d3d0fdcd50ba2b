"""What Regress makes of a signature: one value per example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.api.tensors import Array
from serving.server import errors
from serving.server.runtime import Signature

_INPUT, _OUTPUT = "inputs", "outputs"


class RegressionHead:
    """One input `inputs`; one output `outputs`, floats ``[N]`` or ``[N, 1]``.

    Args:
        signature: The signature; whatever its method name, as in TF Serving by default.

    Raises:
        StatusError: INVALID_ARGUMENT if its inputs and outputs are others.
    """

    def __init__(self, signature: Signature) -> None:
        if len(signature.inputs) != 1:
            raise errors.unfit_signature("regression", "Expected one input Tensor.")
        if len(signature.outputs) != 1:
            raise errors.unfit_signature("regression", "Expected one output Tensor.")
        if _INPUT not in signature.inputs:
            raise errors.unfit_signature("regression", "No regression inputs found in SignatureDef")
        if _OUTPUT not in signature.outputs:
            raise errors.unfit_signature(
                "regression", "No regression outputs found in SignatureDef"
            )
        self.signature = signature
        self.input = signature.inputs[_INPUT].tensor
        self.fetches: Sequence[str] = [signature.outputs[_OUTPUT]]

    def fill(self, result: Any, values: Mapping[str, Array], num_examples: int) -> None:
        """Writes a RegressionResult; see `Head.fill`."""
        value = values[self.fetches[0]]
        if value.ndim != 1 and value.shape[1:] != (1,):
            raise errors.unfit_result(
                "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] "
                f"but got {list(value.shape)}"
            )
        if len(value) != num_examples:
            raise errors.unfit_result(
                f"Input batch size did not match output batch size: {num_examples} vs. {len(value)}"
            )
        if value.dtype != np.float32:
            raise errors.unfit_result(f"Expected output Tensor of DT_FLOAT.  Got: {value.dtype}")
        for each in value.ravel().tolist():
            result.regressions.add(value=each)
