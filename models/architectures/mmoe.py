"""Multi-gate mixture of experts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

import numpy as np
import tensorflow as tf

from models.architectures.abstract import Architecture, Features, concatenated
from models.architectures.batched_dense import BatchedDense
from models.architectures.seeded_dropout import SeededDropout
from models.architectures.towers import Towers
from models.seeding import derived_seed
from models.spec.architecture import Mmoe


@final
class MmoeArchitecture(Architecture):
    """Experts shared by all tasks, mixed for each task by a gate of its own.

    With experts `f_i` and the gate `g^k(x) = softmax(W_gk x)` of task k (eq. 7):
    `f^k(x) = sum_i g^k(x)_i f_i(x)` (eq. 6) and `y_k = h^k(f^k(x))` (eq. 5).

    Reference: Ma et al., Modeling task relationships in multi-task learning with multi-gate
    mixture-of-experts, KDD 2018. Differs from the paper: gates have a bias, and may be dropped
    out (weights set to 0 and the rest renormalised; Zhao et al., RecSys 2019, section 4.1).

    Args:
        config: Number of experts, layer widths and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation and dropout.
    """

    config_class = Mmoe

    def __init__(self, config: Mmoe, tasks: Sequence[str], seed: int = 0, **kwargs: Any) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, **kwargs)
        experts = [f"expert_{i}" for i in range(config.num_experts)]
        self.experts = Towers(
            experts,
            config.expert_units,
            config.dropout,
            seed=derived_seed(seed, "experts"),
            name="experts",
        )
        self.gates = BatchedDense(
            self.tasks,
            config.num_experts,
            activation=None,
            seed=derived_seed(seed, "gates"),
            name="gates",
        )
        self.gate_dropout = SeededDropout(
            config.gate_dropout, derived_seed(seed, "gate_dropout"), name="gate_dropout"
        )
        self.towers = Towers(
            self.tasks,
            config.tower_units,
            config.dropout,
            seed=derived_seed(seed, "towers"),
            name="towers",
        )

    def call(
        self, features: Features, tasks: Sequence[str] | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """See `Architecture.call`."""
        chosen = self._selected(tasks)
        inputs = concatenated(features)
        experts = self.experts(inputs, training=training)
        gates = self.gate_weights(inputs, chosen)
        if training and self.config.gate_dropout > 0:
            gates = self._dropped(gates)
        mixed = tf.einsum("tbe,ebu->tbu", gates, experts)
        towers = self.towers(mixed, members=chosen, training=training)
        return dict(zip(chosen, tf.unstack(towers, num=len(chosen)), strict=True))

    def gate_weights(self, inputs: tf.Tensor, tasks: Sequence[str]) -> tf.Tensor:
        """Computes how much each task takes from each expert.

        Args:
            inputs: [batch, d].
            tasks: Names of the tasks.

        Returns:
            [tasks, batch, experts], which sums to 1 over the experts.
        """
        return tf.nn.softmax(self.gates(inputs, members=tasks), axis=-1)

    def _dropped(self, gates: tf.Tensor) -> tf.Tensor:
        kept = self.gate_dropout(gates, training=True)
        total = tf.reduce_sum(kept, axis=-1, keepdims=True)
        # A row that lost all its experts keeps them all.
        return tf.where(total > 0, kept / tf.where(total > 0, total, 1.0), gates)

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of the task's gate and tower."""
        return self.gates.variables_of(task) + self.towers.variables_of(task)

    def insights(self, batches: Callable[[], Iterable[Features]]) -> dict[str, Any]:
        """Measures the gates.

        Returns:
            ``expert_utilization``: task to the mean weight of each expert; ``gate_entropy``: task
            to the mean entropy of a row's gate in nats, log(experts) when it does not choose.
        """
        weights = np.zeros((len(self.tasks), self.config.num_experts))
        entropy = np.zeros(len(self.tasks))
        num_rows = 0
        for features in batches():
            gates = self.gate_weights(concatenated(features), self.tasks).numpy().astype(np.float64)
            weights += gates.sum(axis=1)
            entropy -= (gates * np.log(np.maximum(gates, 1e-30))).sum(axis=(1, 2))
            num_rows += gates.shape[1]
        if not num_rows:
            return {}
        return {
            "expert_utilization": {
                task: [float(x) for x in row / num_rows]
                for task, row in zip(self.tasks, weights, strict=True)
            },
            "gate_entropy": {
                task: float(x) / num_rows for task, x in zip(self.tasks, entropy, strict=True)
            },
        }
