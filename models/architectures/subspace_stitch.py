"""Learnt mixing between the subspaces of several networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from models.architectures.network_labels import network_labels


class SubspaceStitch(tf.keras.layers.Layer):
    """Mixes every subspace of every task: `h~_As = sum_{B, r} alpha_{As, Br} h_Br`.

    Args:
        tasks: Names of the tasks, sorted.
        num_subspaces: Equal parts of the units.
        own_share: Initial weight of a subspace's own activation; the others share the rest.
    """

    def __init__(
        self, tasks: Sequence[str], num_subspaces: int, own_share: float, **kwargs: Any
    ) -> None:
        """Keeps the settings."""
        super().__init__(**kwargs)
        self.tasks = tuple(tasks)
        self.num_subspaces = num_subspaces
        self.own_share = own_share
        self._alphas: dict[str, tf.Variable] = {}

    def build(self, input_shape: Any) -> None:
        """Makes the alphas that mix for every task, [subspaces, tasks, subspaces]."""
        num_tasks, parts = len(self.tasks), self.num_subspaces
        others = num_tasks * parts - 1
        for i, (task, label) in enumerate(zip(self.tasks, network_labels(self.tasks), strict=True)):
            alphas = np.full((parts, num_tasks, parts), (1 - self.own_share) / max(others, 1))
            alphas[:, i][np.diag_indices(parts)] = self.own_share if others else 1.0
            self._alphas[task] = self.add_weight(
                name=f"{label}/alpha",
                shape=alphas.shape,
                initializer=tf.keras.initializers.Constant(alphas),
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
        parts, batch, units = self.num_subspaces, tf.shape(inputs)[1], inputs.shape[-1]
        width = units // parts
        alphas = tf.stack([self._alphas[task] for task in chosen])
        # One matrix product: from all subspaces of all tasks to all those wanted.
        flat = tf.reshape(alphas, [len(chosen) * parts, len(self.tasks) * parts])
        split = tf.reshape(inputs, [len(self.tasks), batch, parts, width])
        split = tf.reshape(tf.transpose(split, [0, 2, 1, 3]), [len(self.tasks) * parts, -1])
        mixed = tf.reshape(tf.matmul(flat, split), [len(chosen), parts, batch, width])
        return tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [len(chosen), batch, units])

    def variables_of(self, task: str) -> list[tf.Variable]:
        """Returns the alphas that mix for one task."""
        return [self._alphas[task]]

    def matrix(self) -> list[list[float]]:
        """Returns [tasks x subspaces][tasks x subspaces]: a row says how that subspace mixes."""
        size = len(self.tasks) * self.num_subspaces
        alphas = np.stack([self._alphas[task].numpy() for task in self.tasks])
        values: list[list[float]] = alphas.reshape(size, size).tolist()
        return values
