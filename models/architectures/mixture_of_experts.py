"""Experts that gates mix: what mmoe and omoe have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from models.architectures.abstract import Architecture, Features, by_member, concatenated
from models.architectures.gates import Gates
from models.architectures.insight import Mixture
from models.seeding import derived_seed
from models.spec.architecture import MixtureSettings


class MixtureOfExperts(Architecture):
    """Experts, gates that mix them, and a tower for each task.

    Args:
        config: Number of experts, layer widths, gates and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation, noise and dropout.
        gates: Names of the gates.
    """

    def __init__(
        self,
        config: MixtureSettings,
        tasks: Sequence[str],
        seed: int = 0,
        *,
        gates: Sequence[str],
        **kwargs: Any,
    ) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, **kwargs)
        self._gate_names = tuple(gates)
        self._expert_names = [f"expert_{i}" for i in range(config.num_experts)]
        self.experts = self._networks("experts", self._expert_names, config.expert_units)
        self.gates = Gates(
            self._gate_names,
            config.num_experts,
            kind=config.gate,
            top_k=config.top_k,
            dropout=config.gate_dropout,
            importance_weight=config.importance_weight,
            load_weight=config.load_weight,
            seed=derived_seed(seed, "gates"),
            name="gates",
        )
        self.towers = self._networks("towers", self.tasks, config.tower_units)

    def mixtures(self, features: Features) -> list[Mixture]:
        """Returns every gate."""
        weights = by_member(self._gate_names, self.gates(concatenated(features)))
        return [Mixture("gates", self._expert_names, weights)]

    def _mixed(self, features: Features, gates: Sequence[str], training: bool) -> tf.Tensor:
        """Returns `sum_i g(x)_i f_i(x)` for each gate: [gates, batch, units]."""
        inputs = concatenated(features)
        weights = self.gates(inputs, members=gates, training=training)
        return tf.einsum("gbe,ebu->gbu", weights, self.experts(inputs, training=training))
