"""The last, linear layer of every task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from models.seeding import derived_seed


class Heads(tf.keras.layers.Layer):
    """`z_k = W_k h_k + b_k` for every task k, in float32.

    Args:
        biases: Task to initial bias, one number per unit of its loss.
        seed: Seed of initialisation.
    """

    def __init__(self, biases: Mapping[str, list[float]], seed: int = 0, **kwargs: Any) -> None:
        """Keeps the settings; variables are made on the first call."""
        super().__init__(**{"dtype": "float32"} | kwargs)
        self._initial_biases = {task: list(biases[task]) for task in sorted(biases)}
        self._seed = seed
        self._kernels: dict[str, tf.Variable] = {}
        self._biases: dict[str, tf.Variable] = {}

    def build(self, input_shape: Any) -> None:
        """Makes the variables ``<task>/kernel`` and ``<task>/bias``."""
        for task, bias in self._initial_biases.items():
            self._kernels[task] = self.add_weight(
                name=f"{task}/kernel",
                shape=(int(input_shape[task][-1]), len(bias)),
                initializer=tf.keras.initializers.GlorotUniform(
                    seed=derived_seed(self._seed, task)
                ),
            )
            self._biases[task] = self.add_weight(
                name=f"{task}/bias",
                shape=(len(bias),),
                initializer=tf.keras.initializers.Constant(bias),
            )
        super().build(input_shape)

    def call(self, representations: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Applies the heads of the tasks that are given: task to [batch, units of its loss]."""
        return {
            task: tf.matmul(tf.cast(representation, tf.float32), self._kernels[task])
            + self._biases[task]
            for task, representation in sorted(representations.items())
        }

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns kernel and bias of one task."""
        return [self._kernels[task], self._biases[task]]
