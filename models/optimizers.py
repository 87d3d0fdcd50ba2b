"""One optimizer for each part of a model that has a step size of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import tensorflow as tf

from models.lazy_adam import LazyAdam
from models.spec.balancer import Optimizers

# The legacy classes apply each rule as one fused operation a variable.
_legacy = tf.keras.optimizers.legacy
RULES: MappingProxyType[str, Callable[[float], Any]] = MappingProxyType(
    {
        "adam": _legacy.Adam,
        "lazy_adam": LazyAdam,
        "adagrad": _legacy.Adagrad,
        "sgd": _legacy.SGD,
    }
)


class PartOptimizers(tf.Module):
    """Steps embedding tables, the tasks' own variables and the rest, each at its own rate.

    Args:
        settings: Which rule steps which part.
        learning_rate: Rate of the dense variables.
        embedding_learning_rate: Rate of the tables.
    """

    def __init__(
        self, settings: Optimizers, learning_rate: float, embedding_learning_rate: float
    ) -> None:
        """Makes the optimizers."""
        super().__init__(name="optimizers")
        self.embedding = RULES[settings.embedding](embedding_learning_rate)
        self.dense = RULES[settings.dense](learning_rate)
        self.tasks = {
            task: RULES[settings.dense](rate)
            for task, rate in sorted(settings.task_learning_rates.items())
        }

    def prepare(
        self,
        tables: Sequence[tf.Variable],
        dense: Sequence[tf.Variable],
        of_task: Mapping[str, Sequence[tf.Variable]],
    ) -> None:
        """Hands out the variables, and makes the state of the optimizers.

        Args:
            tables: The embedding tables.
            dense: Every other trainable variable.
            of_task: The variables of each task alone.
        """
        owner = {
            id(v): self.tasks[task]
            for task, variables in of_task.items()
            if task in self.tasks
            for v in variables
        }
        self._parts = [(self.embedding, list(tables))]
        for optimizer in (self.dense, *self.tasks.values()):
            own = [v for v in dense if owner.get(id(v), self.dense) is optimizer]
            self._parts.append((optimizer, own))
        self._parts = [(optimizer, variables) for optimizer, variables in self._parts if variables]
        for optimizer, variables in self._parts:
            # A step without gradient makes the state and moves nothing.
            optimizer.apply_gradients([(tf.zeros_like(v), v) for v in variables])
            optimizer.iterations.assign(0)

    def apply(self, gradients: Sequence[Any], variables: Sequence[tf.Variable]) -> None:
        """Takes one step.

        Args:
            gradients: Gradient by variable, tensors or `tf.IndexedSlices`; None leaves it alone.
            variables: The variables.
        """
        found = {id(v): g for g, v in zip(gradients, variables, strict=True) if g is not None}
        for optimizer, part in self._parts:
            pairs = [(found[id(v)], v) for v in part if id(v) in found]
            if pairs:
                optimizer.apply_gradients(pairs)
