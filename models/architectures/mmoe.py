"""Multi-gate mixture of experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import tensorflow as tf

from models.architectures.abstract import Architecture, Features, concatenated
from models.architectures.gates import Gates
from models.architectures.insight import Mixture
from models.architectures.towers import Towers
from models.seeding import derived_seed
from models.spec.architecture import Mmoe


@final
class MmoeArchitecture(Architecture):
    """Experts shared by all tasks, mixed for each task by a gate of its own.

    With experts `f_i` and the gate `g^k` of task k: `f^k(x) = sum_i g^k(x)_i f_i(x)` and
    `y_k = h^k(f^k(x))`, with `h^k` the task's tower.

    Reference: Ma et al., Modeling task relationships in multi-task learning with multi-gate
    mixture-of-experts, KDD 2018, section 4.2. Differs from the paper: gates have a bias; they may
    keep few experts and be balanced (see `Gates`), or be dropped out (weights set to 0 and the
    rest renormalised; Zhao et al., RecSys 2019, section 4.1).

    Args:
        config: Number of experts, layer widths, gates and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation, noise and dropout.
    """

    config_class = Mmoe

    def __init__(self, config: Mmoe, tasks: Sequence[str], seed: int = 0, **kwargs: Any) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, **kwargs)
        self.experts = Towers(
            expert_names(config.num_experts),
            config.expert_units,
            config.dropout,
            seed=derived_seed(seed, "experts"),
            name="experts",
        )
        self.gates = Gates(
            self.tasks,
            config.num_experts,
            kind=config.gate,
            top_k=config.top_k,
            dropout=config.gate_dropout,
            importance_weight=config.importance_weight,
            load_weight=config.load_weight,
            seed=derived_seed(seed, "gates"),
            name="gates",
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
        gates = self.gates(inputs, members=chosen, training=training)
        mixed = tf.einsum("tbe,ebu->tbu", gates, experts)
        towers = self.towers(mixed, members=chosen, training=training)
        return dict(zip(chosen, tf.unstack(towers, num=len(chosen)), strict=True))

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of the task's gate and tower."""
        return self.gates.variables_of(task) + self.towers.variables_of(task)

    def mixtures(self, features: Features) -> list[Mixture]:
        """Returns the gates of every task."""
        gates = tf.unstack(self.gates(concatenated(features)), num=len(self.tasks))
        weights = dict(zip(self.tasks, gates, strict=True))
        return [Mixture("gates", expert_names(self.config.num_experts), weights)]


def expert_names(num_experts: int) -> list[str]:
    """Names experts in variables and in the report."""
    return [f"expert_{i}" for i in range(num_experts)]
