"""Dropout whose random state is saved with the model."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class SeededDropout(tf.keras.layers.Layer):
    """Drops units while training, and rescales the rest.

    The generator's state is part of checkpoints: training that was interrupted goes on with the
    same masks as training that was not.

    Args:
        rate: Share of units dropped.
        seed: Seed of the masks.
    """

    def __init__(self, rate: float, seed: int = 0, **kwargs: Any) -> None:
        """Makes the generator."""
        super().__init__(**kwargs)
        self.rate = rate
        self.generator = tf.random.Generator.from_seed(seed)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns inputs of any shape, some of them zero while training."""
        if not training or self.rate == 0:
            return inputs
        kept = self.generator.uniform(tf.shape(inputs)) >= self.rate
        return tf.where(kept, inputs / (1.0 - self.rate), tf.zeros_like(inputs))
