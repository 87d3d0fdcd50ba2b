"""The contract of sharing architectures."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from models.spec.strict import Strict

Features = Mapping[str, tf.Tensor]
"""Feature group to [batch, d]."""


class Architecture(tf.keras.layers.Layer, ABC):
    """From features to one representation per task.

    Tasks are told apart by name: their order does not matter, and the variables of a task start
    from the same values whatever the other tasks are.

    Args:
        config: The architecture's own settings, of class `config_class`.
        tasks: Names of the tasks.
        seed: Seed of initialisation and dropout.
    """

    config_class: ClassVar[type[Strict]]

    def __init__(self, config: Any, tasks: Sequence[str], seed: int = 0, **kwargs: Any) -> None:
        """Keeps the settings; variables are made on the first call."""
        super().__init__(**kwargs)
        self.config: Any = config
        self.tasks = tuple(sorted(tasks))
        self.seed = seed

    @abstractmethod
    def call(
        self, features: Features, tasks: Sequence[str] | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """Computes task representations.

        Args:
            features: Feature groups, [batch, d] each; `concatenated` joins them.
            tasks: The tasks wanted; all of them if None. What only the others need is not
                computed, so that an export holds nothing of them.
            training: Whether dropout is on.

        Returns:
            Task to [batch, units].
        """

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """Trainable variables that belong to no single task."""
        own = {id(v) for task in self.tasks for v in self.task_variables(task)}
        return [v for v in self.trainable_variables if id(v) not in own]

    @abstractmethod
    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the trainable variables of one task."""

    def insights(self, batches: Callable[[], Iterable[Features]]) -> dict[str, Any]:
        """Returns what the trained weights say about sharing, as JSON values.

        Args:
            batches: Gives the features to measure on, from the start each time it is called.
        """
        del batches
        return {}

    def get_config(self) -> dict[str, Any]:
        """Returns constructor arguments as JSON values."""
        config: dict[str, Any] = super().get_config()
        return config | {
            "config": self.config.model_dump(mode="json"),
            "tasks": list(self.tasks),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Architecture:
        """Builds the layer that `get_config` described."""
        settings = cls.config_class.model_validate_json(json.dumps(config["config"]))
        return cls(**{**config, "config": settings})

    def _selected(self, tasks: Sequence[str] | None) -> tuple[str, ...]:
        return self.tasks if tasks is None else tuple(sorted(tasks))


def concatenated(features: Features) -> tf.Tensor:
    """Joins feature groups in order of their names: [batch, sum of widths]."""
    groups = [features[name] for name in sorted(features)]
    return groups[0] if len(groups) == 1 else tf.concat(groups, axis=-1)
