"""The contract of balancers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from models.spec.strict import Strict


@dataclass(frozen=True)
class TaskTraits:
    """What a balancer knows of a task.

    Attributes:
        weight: The declared weight of its loss.
        squared_error: Whether the loss is a squared error (of a Gaussian without its variance)
            rather than a full negative log-likelihood or one like it.
    """

    weight: float = 1.0
    squared_error: bool = False


class Balancer(tf.keras.layers.Layer, ABC):
    """Weighs the losses of the tasks.

    Tasks are told apart by name; vectors run over them in the order of `tasks`. The losses handed
    in are means over rows alone: penalties on weights are added by the model afterwards, so that
    regularisation never looks like a task that learns slowly. State is kept in variables, which
    are part of every checkpoint.

    Args:
        config: The balancer's own settings, of class `config_class`.
        traits: The tasks by name.
        seed: Seed of random choices.
    """

    config_class: ClassVar[type[Strict]]

    def __init__(
        self, config: Any, traits: Mapping[str, TaskTraits], seed: int = 0, **kwargs: Any
    ) -> None:
        """Keeps the settings."""
        super().__init__(**{"dtype": "float32", "name": "balancer"} | kwargs)
        self.config: Any = config
        self.tasks = tuple(sorted(traits))
        self.traits = dict(traits)
        self.seed = seed
        self.declared = np.array([traits[task].weight for task in self.tasks], np.float32)

    @abstractmethod
    def objective(self, losses: tf.Tensor) -> tf.Tensor:
        """Returns what a step lowers.

        Args:
            losses: Mean loss by task, float32 [tasks].

        Returns:
            Scalar float32, differentiable in the losses and in the balancer's trainable variables.
        """

    @abstractmethod
    def end_epoch(self, losses: Mapping[str, float]) -> dict[str, float]:
        """Takes note that an epoch is over.

        Args:
            losses: Mean training loss of the epoch by task.

        Returns:
            The factor that each task's loss had, by task: the epoch's last, or its mean where
            it changes from step to step.
        """

    def _by_task(self, values: Any) -> dict[str, float]:
        return {task: float(v) for task, v in zip(self.tasks, values, strict=True)}

    def _state(self, name: str, value: Any) -> tf.Variable:
        """Makes a variable that training does not step."""
        value = np.asarray(value, np.float32)
        return self.add_weight(
            name=name,
            shape=value.shape,
            initializer=tf.keras.initializers.Constant(value),
            trainable=False,
        )


@dataclass(frozen=True)
class Coefficients:
    """Factors of the tasks' gradients.

    Attributes:
        shared: Those of the gradients of what tasks share, float32 [tasks].
        own: Those of the gradients of everything else, float32 [tasks].
    """

    shared: tf.Tensor
    own: tf.Tensor


class GradientBalancer(Balancer):
    """Weighs the tasks' gradients, seeing how they lie to each other.

    A step costs one backward pass per task. Gradients are taken of the shared variables of the
    architecture and of the shared representation, the embedded features of the batch: what flows
    into the tables then has their sparse form, whatever the number of tasks.

    Every method here combines gradients linearly, so it needs their inner products only.
    """

    def objective(self, losses: tf.Tensor) -> tf.Tensor:
        """Returns the sum with the declared weights."""
        return tf.tensordot(self.declared, losses, 1)

    @abstractmethod
    def coefficients(self, losses: tf.Tensor, products: tf.Tensor) -> Coefficients:
        """Chooses the coefficients of one step, and updates the balancer's state.

        Args:
            losses: Mean loss by task, without any weight, float32 [tasks].
            products: Inner products of the gradients of these losses with respect to all that is
                shared, float32 [tasks, tasks].
        """
