"""Adam for embedding tables."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class LazyAdam(tf.keras.optimizers.legacy.Adam):
    """Adam that leaves rows alone which a batch did not look up.

    Keras' Adam decays the moments of every row and moves every row at each step, so a step costs
    as much as the table is long. Here moments and values of the looked-up rows change as in Adam
    (Kingma and Ba 2015, algorithm 1), and the others keep theirs.
    """

    def _resource_apply_sparse(
        self, grad: tf.Tensor, var: tf.Variable, indices: tf.Tensor, apply_state: Any = None
    ) -> tf.Operation:
        """Updates rows `indices` (each once) of `var` with `grad` [rows, width]."""
        device, dtype = var.device, var.dtype.base_dtype
        state = (apply_state or {}).get((device, dtype)) or self._fallback_apply_state(
            device, dtype
        )
        first, second = self.get_slot(var, "m"), self.get_slot(var, "v")
        mean = state["beta_1_t"] * tf.gather(first, indices) + (1 - state["beta_1_t"]) * grad
        square = state["beta_2_t"] * tf.gather(second, indices) + (
            1 - state["beta_2_t"]
        ) * tf.square(grad)
        # `lr` carries the correction of both moments' bias.
        step = state["lr"] * mean / (tf.sqrt(square) + state["epsilon"])
        return tf.group(
            first.scatter_update(tf.IndexedSlices(mean, indices)),
            second.scatter_update(tf.IndexedSlices(square, indices)),
            var.scatter_sub(tf.IndexedSlices(step, indices)),
        )
