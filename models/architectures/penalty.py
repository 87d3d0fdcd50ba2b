"""Terms of the objective that belong to no task."""

from __future__ import annotations

from typing import Any, final

import tensorflow as tf


@final
class Penalty(tf.keras.layers.Layer):
    """Adds `weight value` to the objective, in float32, through Keras' `add_loss`.

    What it added in the last training call stands in `losses`; `Architecture.penalties` collects
    these by name, so that they train without hiding in a task's loss.

    Args:
        weight: Weight in the objective; a value with weight 0 is not added.
        name: Name among the reported penalties.
    """

    def __init__(self, weight: float, name: str, **kwargs: Any) -> None:
        """Keeps the settings."""
        super().__init__(name=name, dtype="float32", **kwargs)
        self.weight = weight

    def call(self, value: tf.Tensor) -> tf.Tensor:
        """Adds a scalar, and returns it."""
        if self.weight > 0:
            self.add_loss(self.weight * value)
        return value
