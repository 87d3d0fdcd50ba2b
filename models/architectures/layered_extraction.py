"""Levels of customized gate control: what cgc and ple have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from models.architectures.abstract import Architecture, Features, by_member, concatenated
from models.architectures.extraction import Extraction
from models.architectures.insight import Mixture
from models.seeding import derived_seed
from models.spec.architecture import ExtractionSettings


class LayeredExtraction(Architecture):
    """Levels of extraction, each reading what the one before mixed, then a tower for each task.

    Args:
        config: Numbers of experts, layer widths and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation and dropout.
        num_levels: Number of levels.
    """

    def __init__(
        self,
        config: ExtractionSettings,
        tasks: Sequence[str],
        seed: int = 0,
        *,
        num_levels: int,
        **kwargs: Any,
    ) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, **kwargs)
        self.levels = [
            Extraction(
                self.tasks,
                config.task_experts,
                config.shared_experts,
                config.expert_units,
                config.dropout,
                is_last=level == num_levels - 1,
                seed=derived_seed(seed, "level", level),
                name=f"level_{level}",
            )
            for level in range(num_levels)
        ]
        self.towers = self._networks("towers", self.tasks, config.tower_units)

    def call(
        self, features: Features, tasks: Sequence[str] | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """See `Architecture.call`."""
        chosen = self._selected(tasks)
        mixed, _ = self._extracted(features, chosen, training)
        return by_member(chosen, self.towers(mixed, members=chosen, training=training))

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of the task's experts, gates and tower."""
        levels = [v for level in self.levels for v in level.task_variables(task)]
        return levels + self.towers.variables_of(task)

    def mixtures(self, features: Features) -> list[Mixture]:
        """Returns the gates of every level."""
        return self._extracted(features, self.tasks, training=False)[1]

    def _extracted(
        self, features: Features, chosen: tuple[str, ...], training: bool
    ) -> tuple[tf.Tensor, list[Mixture]]:
        """Returns what the towers read, [tasks, batch, units], and the gates."""
        hidden = concatenated(features)
        mixtures: list[Mixture] = []
        for i, level in enumerate(self.levels):
            following = self.levels[i + 1 : i + 2]
            wanted = following[0].sources(chosen) if following else chosen
            hidden, found = level(hidden, tasks=wanted, training=training)
            if len(self.levels) > 1:
                found = [replace(m, name=f"{m.name} of level {i + 1}") for m in found]
            mixtures += found
        return hidden, mixtures
