"""The contract of sharing architectures."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from models.architectures.insight import Matrix, Mixture
from models.architectures.penalty import Penalty
from models.architectures.towers import Towers
from models.seeding import derived_seed
from models.spec.architecture import ArchitectureSettings

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
        parents: Task to the task that it is conditioned on.
    """

    config_class: ClassVar[type[ArchitectureSettings]]

    def __init__(
        self,
        config: Any,
        tasks: Sequence[str],
        seed: int = 0,
        parents: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keeps the settings; variables are made on the first call."""
        super().__init__(**kwargs)
        self.config: Any = config
        self.tasks = tuple(sorted(tasks))
        self.seed = seed
        self.parents = dict(parents or {})

    @abstractmethod
    def call(
        self, features: Features, tasks: Sequence[str] | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """Computes task representations.

        Args:
            features: Feature groups, [batch, d] each; `concatenated` joins them.
            tasks: The tasks wanted; all of them if None. What only the others need is not
                computed, so that an export holds nothing of them.
            training: Whether dropout, noise and penalties are on.

        Returns:
            Task to [batch, units].
        """

    def constrain(
        self, probabilities: Mapping[str, tf.Tensor], weights: Mapping[str, tf.Tensor]
    ) -> None:
        """Adds penalties on what the tasks predict, after a training call; none by default.

        Args:
            probabilities: Binary task to its entire-space probability, float32 [batch].
            weights: Task to the weight of its rows, float32 [batch]; 0 where it is masked.
        """
        del probabilities, weights

    @property
    def penalties(self) -> dict[str, tf.Tensor]:
        """What the last training call added to the objective, by name: float32 scalars."""
        penalties = [part for part in self.submodules if isinstance(part, Penalty)]
        return {part.name: tf.add_n(part.losses) for part in penalties if part.losses}

    @property
    def shared_variables(self) -> list[tf.Variable]:
        """Trainable variables that belong to no single task."""
        own = {id(v) for task in self.tasks for v in self.task_variables(task)}
        return [v for v in self.trainable_variables if id(v) not in own]

    @abstractmethod
    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the trainable variables of one task."""

    def mixtures(self, features: Features) -> list[Mixture]:
        """Returns how the rows of a batch mix what is shared, as when serving; none by default."""
        del features
        return []

    def matrices(self) -> list[Matrix]:
        """Returns learnt sharing weights that hold for all rows; none by default."""
        return []

    def get_config(self) -> dict[str, Any]:
        """Returns constructor arguments as JSON values."""
        config: dict[str, Any] = super().get_config()
        return config | {
            "config": self.config.model_dump(mode="json"),
            "tasks": list(self.tasks),
            "seed": self.seed,
            "parents": dict(self.parents),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Architecture:
        """Builds the layer that `get_config` described."""
        settings = cls.config_class.model_validate_json(json.dumps(config["config"]))
        return cls(**{**config, "config": settings})

    def _networks(self, name: str, members: Sequence[str], units: Sequence[int]) -> Towers:
        """Makes a network for each member, with the declared dropout and seeds of its own."""
        return Towers(
            members, units, self.config.dropout, seed=derived_seed(self.seed, name), name=name
        )

    def _selected(self, tasks: Sequence[str] | None) -> tuple[str, ...]:
        return self.tasks if tasks is None else tuple(sorted(tasks))


def concatenated(features: Features) -> tf.Tensor:
    """Joins feature groups in order of their names: [batch, sum of widths]."""
    groups = [features[name] for name in sorted(features)]
    return groups[0] if len(groups) == 1 else tf.concat(groups, axis=-1)


def by_member(members: Sequence[str], stacked: tf.Tensor) -> dict[str, tf.Tensor]:
    """Names what is stacked, [members, ...]."""
    return dict(zip(members, tf.unstack(stacked, num=len(members)), strict=True))
