"""Hard parameter sharing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import tensorflow as tf

from models.architectures.abstract import Architecture, Features, by_member, concatenated
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
        self.bottom = self._networks("bottom", _TRUNK, config.bottom_units)
        self.towers = self._networks("towers", self.tasks, config.tower_units)

    def call(
        self, features: Features, tasks: Sequence[str] | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """See `Architecture.call`."""
        chosen = self._selected(tasks)
        bottom = self.bottom(concatenated(features), training=training)
        towers = self.towers(tf.squeeze(bottom, axis=0), members=chosen, training=training)
        return by_member(chosen, towers)

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of the task's tower."""
        return self.towers.variables_of(task)
