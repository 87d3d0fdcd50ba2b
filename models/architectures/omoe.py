"""One-gate mixture of experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import tensorflow as tf

from models.architectures.abstract import Architecture, Features, concatenated
from models.architectures.gates import Gates
from models.architectures.insight import Mixture
from models.architectures.mmoe import expert_names
from models.architectures.towers import Towers
from models.seeding import derived_seed
from models.spec.architecture import Omoe

_GATE = "all tasks"
_GATES = (_GATE,)


@final
class OmoeArchitecture(Architecture):
    """Experts mixed by one gate for all tasks: `y_k = h^k(sum_i g(x)_i f_i(x))`.

    Reference: Ma et al., Modeling task relationships in multi-task learning with multi-gate
    mixture-of-experts, KDD 2018, section 4.1, where it is the baseline without task gates. Differs
    from the paper as `MmoeArchitecture` does.

    Args:
        config: Number of experts, layer widths, gate and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation, noise and dropout.
    """

    config_class = Omoe

    def __init__(self, config: Omoe, tasks: Sequence[str], seed: int = 0, **kwargs: Any) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, **kwargs)
        self.experts = Towers(
            expert_names(config.num_experts),
            config.expert_units,
            config.dropout,
            seed=derived_seed(seed, "experts"),
            name="experts",
        )
        self.gate = Gates(
            _GATES,
            config.num_experts,
            kind=config.gate,
            top_k=config.top_k,
            dropout=config.gate_dropout,
            importance_weight=config.importance_weight,
            load_weight=config.load_weight,
            seed=derived_seed(seed, "gate"),
            labels=("shared",),
            name="gate",
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
        gate = self.gate(inputs, training=training)[0]
        mixed = tf.einsum("be,ebu->bu", gate, experts)
        towers = self.towers(mixed, members=chosen, training=training)
        return dict(zip(chosen, tf.unstack(towers, num=len(chosen)), strict=True))

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of the task's tower."""
        return self.towers.variables_of(task)

    def mixtures(self, features: Features) -> list[Mixture]:
        """Returns the one gate."""
        weights = {_GATE: self.gate(concatenated(features))[0]}
        return [Mixture("gate", expert_names(self.config.num_experts), weights)]
