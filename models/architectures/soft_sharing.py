"""Soft parameter sharing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import tensorflow as tf

from models.architectures.abstract import Architecture, Features, by_member, concatenated
from models.architectures.penalty import Penalty
from models.spec.architecture import SoftSharing

_EPSILON = 1e-6
"""Under a square root: a singular value of 0 has no gradient."""


@final
class SoftSharingArchitecture(Architecture):
    """One network per task; a penalty draws the weights of corresponding layers together.

    With `w_k` kernel and bias of one layer of task k in one vector, per layer and summed:
    - l2: `1/K sum_{j<k} |w_j - w_k|^2 = sum_k |w_k - mean(w)|^2`; for two tasks it is half their
      squared distance;
    - trace_norm: the sum of the singular values of `[w_1 ... w_K]`: low where the tasks' weights
      are combinations of few vectors.

    Reference: l2: Duong et al., Low resource dependency parsing: cross-lingual parameter sharing
    in a neural network parser, ACL 2015: its soft parameter sharing, for any number of tasks and
    with no task as the prior of the others. trace_norm: Yang & Hospedales, Trace norm regularised
    deep multi-task learning, ICLR workshop 2017, the variant called last axis flattening. Differs
    from the paper: singular values are smoothed, `sqrt(s^2 + 1e-6)`, instead of taking a
    subgradient.

    A served task reads its own network alone: an export holds nothing of the others.

    Args:
        config: Layer widths, penalty and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation and dropout.
    """

    config_class = SoftSharing

    def __init__(
        self, config: SoftSharing, tasks: Sequence[str], seed: int = 0, **kwargs: Any
    ) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, **kwargs)
        self.towers = self._networks("towers", self.tasks, config.hidden_units)
        self.penalty = Penalty(config.penalty_weight, name=config.penalty)

    def call(
        self, features: Features, tasks: Sequence[str] | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """See `Architecture.call`."""
        chosen = self._selected(tasks)
        towers = self.towers(concatenated(features), members=chosen, training=training)
        if training and self.towers.layers:
            self.penalty(self._distance())
        return by_member(chosen, towers)

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of the task's network."""
        return self.towers.variables_of(task)

    def _distance(self) -> tf.Tensor:
        measure = squared_distance if self.config.penalty == "l2" else trace_norm
        return tf.add_n([measure(layer.flattened()) for layer in self.towers.layers])


def squared_distance(weights: tf.Tensor) -> tf.Tensor:
    """Returns the summed squared distance of rows to their mean, of [tasks, n]: scalar float32."""
    weights = tf.cast(weights, tf.float32)
    return tf.reduce_sum(tf.square(weights - tf.reduce_mean(weights, axis=0, keepdims=True)))


def trace_norm(weights: tf.Tensor) -> tf.Tensor:
    """Returns the smoothed sum of the singular values of [tasks, n]: scalar float32.

    They are the roots of the eigenvalues of `W W^T`, [tasks, tasks], which are few.
    """
    weights = tf.cast(weights, tf.float32)
    eigenvalues = tf.linalg.eigvalsh(tf.matmul(weights, weights, transpose_b=True))
    return tf.reduce_sum(tf.sqrt(tf.maximum(eigenvalues, 0.0) + _EPSILON))
