"""Learnt mixing of the activations of several networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from models.architectures.network_labels import network_labels


class Stitch(tf.keras.layers.Layer):
    """Mixes the activations of all tasks, part by part: `x~_Ap = sum_B alpha_ABp x_Bp`.

    Args:
        tasks: Names of the tasks, sorted.
        own_share: Initial `alpha_AA`; the other tasks share the rest equally.
        num_parts: Equal parts of the units with an alpha of their own; None: every unit.
    """

    def __init__(
        self, tasks: Sequence[str], own_share: float, num_parts: int | None, **kwargs: Any
    ) -> None:
        """Keeps the settings."""
        super().__init__(**kwargs)
        self.tasks = tuple(tasks)
        self.own_share = own_share
        self.num_parts = num_parts
        self._alphas: dict[str, tf.Variable] = {}

    def build(self, input_shape: Any) -> None:
        """Makes a row of alphas for every task."""
        num_tasks = len(self.tasks)
        num_parts = self.num_parts or int(input_shape[-1])
        for i, (task, label) in enumerate(zip(self.tasks, network_labels(self.tasks), strict=True)):
            row = np.full((num_tasks, num_parts), (1 - self.own_share) / max(num_tasks - 1, 1))
            row[i] = self.own_share if num_tasks > 1 else 1.0
            self._alphas[task] = self.add_weight(
                name=f"{label}/alpha",
                shape=(num_tasks, num_parts),
                initializer=tf.keras.initializers.Constant(row),
            )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, tasks: Sequence[str] | None = None) -> tf.Tensor:
        """Mixes.

        Args:
            inputs: Activations of all tasks, [tasks, batch, units].
            tasks: The tasks wanted; all if None.

        Returns:
            [tasks wanted, batch, units].
        """
        chosen = self.tasks if tasks is None else tuple(tasks)
        alphas = tf.stack([self._alphas[task] for task in chosen])
        units = inputs.shape[-1]
        alphas = tf.repeat(alphas, units // alphas.shape[-1], axis=-1)
        # A product and a sum: as a matrix product it would be one tiny product per unit.
        return tf.reduce_sum(alphas[:, :, tf.newaxis, :] * inputs, axis=1)

    def variables_of(self, task: str) -> list[tf.Variable]:
        """Returns the alphas that mix for one task, [tasks, parts]."""
        return [self._alphas[task]]

    def matrices(self) -> list[list[list[float]]]:
        """Returns [parts][tasks][tasks]: row A says how task A mixes.

        Where every unit has an alpha of its own, the one part is their mean.
        """
        alphas = np.stack([self._alphas[task].numpy() for task in self.tasks])
        if self.num_parts is None:
            alphas = alphas.mean(axis=-1, keepdims=True)
        parts: list[list[list[float]]] = np.moveaxis(alphas, -1, 0).tolist()
        return parts
