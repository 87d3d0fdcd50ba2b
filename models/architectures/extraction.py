"""One level of customized gate control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from models.architectures.abstract import by_member
from models.architectures.gates import Gates
from models.architectures.insight import Mixture
from models.architectures.network_labels import network_labels
from models.architectures.towers import Towers
from models.seeding import derived_seed

_SHARED = "shared"


class Extraction(tf.keras.layers.Layer):
    """Experts of each task beside shared ones, mixed by a gate per task.

    Task k reads `g^k(x) = w^k(x) S^k(x)` with `w^k(x) = softmax(W_g^k x)` over its own experts and
    the shared ones, `S^k(x)` (PLE eq. 1 to 3). A level that is not the last also mixes the experts
    of all tasks and the shared ones by a gate of its own: the shared input of the next level.

    Args:
        tasks: Names of the tasks, sorted.
        task_experts: Experts of each task.
        shared_experts: Shared experts.
        units: Layer widths of each expert.
        dropout: Share of units dropped while training.
        is_last: Whether only the tasks read this level. Variables of other levels are called
            after networks, not tasks (see `network_labels`): served tasks read them all.
        seed: Seed of initialisation and dropout.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        task_experts: int,
        shared_experts: int,
        units: Sequence[int],
        dropout: float,
        is_last: bool,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        """Makes the layers."""
        super().__init__(**kwargs)
        self.tasks = tuple(tasks)
        self.task_experts = task_experts
        self.shared_experts = shared_experts
        self.has_shared_gate = shared_experts > 0 and not is_last
        labels = dict(zip(tasks, tasks if is_last else network_labels(tasks), strict=True))
        own = [(task, i) for task in tasks for i in range(task_experts)]
        shared = range(shared_experts)
        self.experts = Towers(
            [*(_own(task, i) for task, i in own), *(_shared(i) for i in shared)],
            units,
            dropout,
            seed=derived_seed(seed, "experts"),
            labels=[
                *(f"{labels[task]}/expert_{i}" for task, i in own),
                *(f"{_SHARED}/expert_{i}" for i in shared),
            ],
            name="experts",
        )
        self.gates = Gates(
            self.tasks,
            task_experts + shared_experts,
            seed=derived_seed(seed, "gates"),
            labels=list(labels.values()),
            name="gates",
        )
        if self.has_shared_gate:
            self.shared_gate = Gates(
                (_SHARED,),
                len(own) + shared_experts,
                seed=derived_seed(seed, "shared_gate"),
                name="shared_gate",
            )

    def sources(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """Returns the tasks whose experts must be computed for the given tasks' outputs."""
        return self.tasks if self.has_shared_gate else tuple(tasks)

    def call(
        self, inputs: tf.Tensor, tasks: Sequence[str], training: bool = False
    ) -> tuple[tf.Tensor, list[Mixture]]:
        """Extracts.

        Args:
            inputs: [batch, d], the same for everyone, or [sources and shared, batch, d] in the
                order of `sources(tasks)`, with the shared input last if there are shared experts.
            tasks: The tasks wanted, sorted.
            training: Whether dropout is on.

        Returns:
            [tasks wanted, batch, units], with the shared output appended if there is a shared
            gate; and the gates.
        """
        sources = self.sources(tasks)
        mine = [sources.index(task) for task in tasks]
        members = [_own(task, i) for task in sources for i in range(self.task_experts)]
        num_own = len(members)
        members += [_shared(i) for i in range(self.shared_experts)]
        everyone = inputs.shape.rank == 2
        experts = self.experts(
            inputs if everyone else self._for_experts(inputs, len(sources)),
            members=members,
            training=training,
        )
        gates = self.gates(inputs if everyone else _picked(inputs, mine), members=tasks)
        # Split, not sliced: the gradient of each slice would be as large as what it is cut from.
        own, shared = tf.split(experts, [num_own, self.shared_experts])
        own_gates, shared_gates = tf.split(gates, [self.task_experts, self.shared_experts], axis=-1)
        own = tf.reshape(
            own, [len(sources), self.task_experts, tf.shape(experts)[1], experts.shape[-1]]
        )
        mixed = _weighed(own_gates, _picked(own, mine))
        if self.shared_experts:
            mixed += _weighed(shared_gates, shared)
        mixtures = [self._mixture(tasks, gates)]
        if self.has_shared_gate:
            gate = self.shared_gate(inputs if everyone else _picked(inputs, [-1]))
            mixed = tf.concat([mixed, _weighed(gate, experts)], axis=0)
            mixtures.append(self._shared_mixture(gate[0]))
        return mixed, mixtures

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of a task's experts and gate."""
        experts = [
            v for i in range(self.task_experts) for v in self.experts.variables_of(_own(task, i))
        ]
        return experts + self.gates.variables_of(task)

    def _for_experts(self, inputs: tf.Tensor, num_sources: int) -> tf.Tensor:
        copies = [i for i in range(num_sources) for _ in range(self.task_experts)]
        return _picked(inputs, copies + [num_sources] * self.shared_experts)

    def _mixture(self, tasks: Sequence[str], gates: tf.Tensor) -> Mixture:
        sources = [f"own_{i}" for i in range(self.task_experts)]
        sources += [_shared_name(i) for i in range(self.shared_experts)]
        return Mixture("gates", sources, by_member(tasks, gates), num_private=self.task_experts)

    def _shared_mixture(self, gate: tf.Tensor) -> Mixture:
        sources = [f"{task}_{i}" for task in self.tasks for i in range(self.task_experts)]
        sources += [_shared_name(i) for i in range(self.shared_experts)]
        return Mixture("shared gate", sources, {"next level": gate})


def _weighed(gates: tf.Tensor, experts: tf.Tensor) -> tf.Tensor:
    """Sums experts, [gates or none, experts, batch, units], with [gates, batch, experts]."""
    # A product and a sum: as a matrix product it would be one tiny product per row.
    return tf.reduce_sum(tf.transpose(gates, [0, 2, 1])[..., tf.newaxis] * experts, axis=1)


def _picked(stacked: tf.Tensor, indices: Sequence[int]) -> tf.Tensor:
    """Returns some of what is stacked, as often as asked for."""
    if list(indices) == list(range(stacked.shape[0])):
        return stacked
    # Not tf.gather: its gradient adds up row by row.
    parts = tf.unstack(stacked)
    return tf.stack([parts[i] for i in indices])


def _own(task: str, index: int) -> str:
    return f"task/{task}/expert_{index}"


def _shared(index: int) -> str:
    return f"{_SHARED}/expert_{index}"


def _shared_name(index: int) -> str:
    return f"{_SHARED}_{index}"
