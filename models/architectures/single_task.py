"""One network per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import tensorflow as tf

from models.architectures.abstract import Architecture, Features, by_member, concatenated
from models.spec.architecture import SingleTask


@final
class SingleTaskArchitecture(Architecture):
    """One multi-layer perceptron per task: the honest baseline.

    The networks share nothing but the embeddings they read: `y_k = h_k(x)`.

    Args:
        config: Layer widths and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation and dropout.
    """

    config_class = SingleTask

    def __init__(
        self, config: SingleTask, tasks: Sequence[str], seed: int = 0, **kwargs: Any
    ) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, **kwargs)
        self.towers = self._networks("towers", self.tasks, config.hidden_units)

    def call(
        self, features: Features, tasks: Sequence[str] | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """See `Architecture.call`."""
        chosen = self._selected(tasks)
        towers = self.towers(concatenated(features), members=chosen, training=training)
        return by_member(chosen, towers)

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of the task's network."""
        return self.towers.variables_of(task)
