"""Customized gate control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import tensorflow as tf

from models.architectures.abstract import Architecture, Features, concatenated
from models.architectures.extraction import Extraction
from models.architectures.insight import Mixture
from models.architectures.towers import Towers
from models.seeding import derived_seed
from models.spec.architecture import Cgc


@final
class CgcArchitecture(Architecture):
    """Experts of each task beside shared ones, mixed by a gate per task, then a tower each.

    `y^k(x) = t^k(g^k(x))` (eq. 4) with `g^k` of `Extraction` (eq. 1 to 3): no task reads another
    task's experts.

    Reference: Tang et al., Progressive layered extraction (PLE): a novel multi-task learning model
    for personalized recommendations, RecSys 2020, section 4.1. Differs from the paper: gates have
    a bias.

    Args:
        config: Numbers of experts, layer widths and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation and dropout.
    """

    config_class = Cgc

    def __init__(self, config: Cgc, tasks: Sequence[str], seed: int = 0, **kwargs: Any) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, **kwargs)
        self.extraction = Extraction(
            self.tasks,
            config.task_experts,
            config.shared_experts,
            config.expert_units,
            config.dropout,
            is_last=True,
            seed=derived_seed(seed, "extraction"),
            name="extraction",
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
        mixed, _ = self.extraction(concatenated(features), tasks=chosen, training=training)
        towers = self.towers(mixed, members=chosen, training=training)
        return dict(zip(chosen, tf.unstack(towers, num=len(chosen)), strict=True))

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of the task's experts, gate and tower."""
        return self.extraction.task_variables(task) + self.towers.variables_of(task)

    def mixtures(self, features: Features) -> list[Mixture]:
        """Returns the gates of every task."""
        found: list[Mixture] = self.extraction(concatenated(features), tasks=self.tasks)[1]
        return found
