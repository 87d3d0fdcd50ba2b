"""Hard parameter sharing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import tensorflow as tf

from models.architectures.abstract import Architecture, Features, concatenated
from models.architectures.towers import Towers
from models.seeding import derived_seed
from models.spec.architecture import SharedBottom

_TRUNK = ("shared",)


@final
class SharedBottomArchitecture(Architecture):
    """A trunk that all tasks share, then a tower for each: `y_k = h_k(f(x))`.

    Reference: Caruana, Multitask learning: a knowledge-based source of inductive bias, 1993.

    Args:
        config: Layer widths of trunk and towers, and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation and dropout.
    """

    config_class = SharedBottom

    def __init__(
        self, config: SharedBottom, tasks: Sequence[str], seed: int = 0, **kwargs: Any
    ) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, **kwargs)
        self.bottom = Towers(
            _TRUNK,
            config.bottom_units,
            config.dropout,
            seed=derived_seed(seed, "bottom"),
            name="bottom",
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
        bottom = self.bottom(concatenated(features), training=training)[0]
        towers = self.towers(bottom, members=chosen, training=training)
        return dict(zip(chosen, tf.unstack(towers, num=len(chosen)), strict=True))

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of the task's tower."""
        return self.towers.variables_of(task)
