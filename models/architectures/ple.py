"""Progressive layered extraction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

import tensorflow as tf

from models.architectures.abstract import Architecture, Features, concatenated
from models.architectures.extraction import Extraction
from models.architectures.insight import Mixture
from models.architectures.towers import Towers
from models.seeding import derived_seed
from models.spec.architecture import Ple


@final
class PleArchitecture(Architecture):
    """Levels of task and shared experts; each level's experts read what the last one mixed.

    At level j, `g^{k,j}(x) = w^{k,j}(g^{k,j-1}(x)) S^{k,j}(x)` (eq. 5) for task k, and for the
    shared experts the same over the experts of all tasks; `y^k(x) = t^k(g^{k,N}(x))` (eq. 6).

    Reference: Tang et al., Progressive layered extraction (PLE): a novel multi-task learning model
    for personalized recommendations, RecSys 2020, section 4.2. Differs from the paper: gates have
    a bias; without shared experts there is no shared gate, and the tasks are apart.

    A served task reads the experts of every task below the last level: see `network_labels` for
    what an export keeps.

    Args:
        config: Levels, numbers of experts, layer widths and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation and dropout.
    """

    config_class = Ple

    def __init__(self, config: Ple, tasks: Sequence[str], seed: int = 0, **kwargs: Any) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, **kwargs)
        self.levels = [
            Extraction(
                self.tasks,
                config.task_experts,
                config.shared_experts,
                config.expert_units,
                config.dropout,
                is_last=level == config.num_levels - 1,
                seed=derived_seed(seed, "level", level),
                name=f"level_{level}",
            )
            for level in range(config.num_levels)
        ]
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
        mixed, _ = self._extracted(features, chosen, training)
        towers = self.towers(mixed, members=chosen, training=training)
        return dict(zip(chosen, tf.unstack(towers, num=len(chosen)), strict=True))

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
        hidden = concatenated(features)
        mixtures: list[Mixture] = []
        for i, level in enumerate(self.levels):
            following = self.levels[i + 1 : i + 2]
            wanted = following[0].sources(chosen) if following else chosen
            hidden, found = level(hidden, tasks=wanted, training=training)
            mixtures += [replace(m, name=f"{m.name} of level {i + 1}") for m in found]
        return hidden, mixtures
