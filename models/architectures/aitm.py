"""Adaptive information transfer multi-task learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import tensorflow as tf

from models.architectures.abstract import Architecture, Features, by_member, concatenated
from models.architectures.batched_dense import BatchedDense
from models.architectures.insight import Mixture
from models.architectures.penalty import Penalty
from models.seeding import derived_seed
from models.spec.architecture import Aitm


@final
class AitmArchitecture(Architecture):
    """One network per task; a later task attends to what an earlier one passes on.

    Task t has `q_t` from its own network. If it receives from task s, `p = g(z_s)` and
    `z_t = sum_{u in (q_t, p)} w_u h_1(u)` with `w = softmax_u(<h_2(u), h_3(u)> / sqrt(d))`;
    otherwise `z_t = q_t`. The calibrator adds the mean of `max(P(t) - P(s), 0)`: who buys has
    clicked.

    Reference: Xi et al., Modeling the sequential dependence among audience multi-step conversions
    with multi-task learning in targeted display advertising, KDD 2021: the adaptive information
    transfer (AIT) module and the behavioral expectation calibrator. Differs from the paper:
    several tasks may receive from one (a tree, not only a chain); the head on `z_t` is linear;
    rows that are masked for either task do not count in the calibrator. For a task that is
    `conditioned_on` the one it receives from, the product of probabilities keeps their order, and
    the calibrator is 0.

    Args:
        config: Layer widths, transfers, calibrator and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation and dropout.
    """

    config_class = Aitm

    def __init__(self, config: Aitm, tasks: Sequence[str], seed: int = 0, **kwargs: Any) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, **kwargs)
        self.transfers: Mapping[str, str] = config.transfers or self.parents
        self.receivers = tuple(sorted(self.transfers))
        self.towers = self._networks("towers", self.tasks, config.hidden_units)
        self.passing = self._projection("passing", activation="relu")
        self.values = self._projection("values")
        self.queries = self._projection("queries")
        self.keys = self._projection("keys")
        self.calibrator = Penalty(config.calibrator_weight, name="calibrator")

    def call(
        self, features: Features, tasks: Sequence[str] | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """See `Architecture.call`."""
        chosen = self._selected(tasks)
        read, _ = self._transferred(features, chosen, training)
        return {task: read[task] for task in chosen}

    def constrain(
        self, probabilities: Mapping[str, tf.Tensor], weights: Mapping[str, tf.Tensor]
    ) -> None:
        """See `Architecture.constrain`."""
        pairs = [
            (to, source)
            for to, source in self.transfers.items()
            if to in probabilities and source in probabilities
        ]
        if not pairs or self.calibrator.weight == 0:
            return
        excess = tf.stack([tf.nn.relu(probabilities[t] - probabilities[s]) for t, s in pairs])
        counts = tf.stack([tf.minimum(weights[t], weights[s]) > 0 for t, s in pairs])
        counts = tf.cast(counts, tf.float32)
        means = tf.math.divide_no_nan(
            tf.reduce_sum(counts * excess, axis=1), tf.reduce_sum(counts, axis=1)
        )
        self.calibrator(tf.reduce_sum(means))

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of the task's network and of its transfer."""
        found = self.towers.variables_of(task)
        if task in self.transfers:
            for layer in (self.passing, self.values, self.queries, self.keys):
                found = found + layer.variables_of(task)
        return found

    def mixtures(self, features: Features) -> list[Mixture]:
        """Returns the attention of every task that receives."""
        if not self.receivers:
            return []
        _, attention = self._transferred(features, self.tasks, training=False)
        return [Mixture("attention", ("own", "received"), attention, num_private=2)]

    def _projection(self, name: str, activation: str | None = None) -> BatchedDense:
        return BatchedDense(
            self.receivers,
            self.config.hidden_units[-1],
            activation=activation,
            seed=derived_seed(self.seed, name),
            name=name,
        )

    def _transferred(
        self, features: Features, chosen: tuple[str, ...], training: bool
    ) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """Returns what every task reads, [batch, d], and receivers' attention, [batch, 2]."""
        steps = self._steps(chosen)
        needed = tuple(sorted(task for step in steps for task in step))
        own = self.towers(concatenated(features), members=needed, training=training)
        read = by_member(needed, own)
        attention: dict[str, tf.Tensor] = {}
        # A step needs what the one before it passes on; the tasks of one step go together.
        for receivers in steps[1:]:
            mine = tf.stack([read[task] for task in receivers])
            sources = tf.stack([read[self.transfers[task]] for task in receivers])
            mixed, weights = self._attended(mine, self.passing(sources, receivers), receivers)
            read |= by_member(receivers, mixed)
            attention |= by_member(receivers, weights)
        return read, attention

    def _attended(
        self, own: tf.Tensor, received: tf.Tensor, receivers: Sequence[str]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns z, [receivers, batch, d], and the attention, [receivers, batch, 2]."""
        both = tf.concat([own, received], axis=1)
        values, queries, keys = (
            tf.stack(tf.split(layer(both, receivers), 2, axis=1), axis=2)
            for layer in (self.values, self.queries, self.keys)
        )
        scale = self.config.hidden_units[-1] ** 0.5
        weights = tf.nn.softmax(tf.reduce_sum(queries * keys, axis=-1) / scale, axis=-1)
        return tf.einsum("rbo,rbod->rbd", weights, values), weights

    def _steps(self, chosen: Sequence[str]) -> list[list[str]]:
        """Groups tasks and those they receive from by how many transfers lie before them."""
        depths: dict[str, int] = {}
        for task in chosen:
            chain = [task]
            while chain[-1] in self.transfers:
                chain.append(self.transfers[chain[-1]])
            for depth, name in enumerate(reversed(chain)):
                depths[name] = depth
        return [
            sorted(task for task, d in depths.items() if d == depth)
            for depth in range(max(depths.values()) + 1)
        ]
