"""The ranking model: embedding, architecture, heads, links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from models.architectures.registry import build_architecture
from models.balancers.abstract import GradientBalancer, TaskTraits
from models.balancers.registry import build_balancer
from models.decision_tower import DecisionTower
from models.embedding import Embedding, Packed
from models.feature_layout import FeatureLayout
from models.heads import Heads
from models.links import HeadOutputs, Links
from models.losses.abstract import Loss
from models.optimizers import PartOptimizers
from models.precision import computing_in
from models.seeding import derived_seed
from models.spec.keys import DECISION_GROUP
from models.spec.ranking import RankingSpec
from models.spec.training import Candidate, Training
from models.task_loss import TaskLoss

Batch = Mapping[str, tf.Tensor]
"""Packed features, and label and weight of every output by their keys, [batch] each."""

TOTAL = "total"
"""Name of the weighted sum among the losses of a step."""

PENALTY = "penalty/"
"""Before the names of the architecture's penalties among the losses of a step."""


class RankingModel(tfrs.Model):
    """A multi-task ranker.

    A step lowers what the balancer makes of the tasks' losses, plus the penalties on weights and
    those of the architecture. Embedding tables, tasks' own variables and the rest may each have a
    step size of their own.

    Args:
        ranking: Features and tasks.
        training: Rates, optimizers, balancer, interaction, penalty and seed.
        candidate: Architecture, whether auxiliary tasks are trained, and what it overrides.
        table_rows: Number of rows by embedding table.
        losses: Loss by task.
        biases: Initial bias of the head by task.
    """

    def __init__(
        self,
        ranking: RankingSpec,
        training: Training,
        candidate: Candidate,
        table_rows: Mapping[str, int],
        losses: Mapping[str, Loss],
        biases: Mapping[str, list[float]],
    ) -> None:
        """Makes the parts; `prepare` makes their variables."""
        # Layers cast what they need to: numbers and positions in a code must come in whole.
        super().__init__(name="ranking_model", autocast=False)
        self.ranking = ranking
        self.tasks = trained_tasks(ranking, candidate)
        self.links = Links(ranking, losses)
        seed = training.seed
        self.embedding = Embedding(
            FeatureLayout.of(ranking),
            table_rows,
            training.interaction,
            training.embedding_l2,
            seed=derived_seed(seed, "embedding"),
            name="embedding",
        )
        self.architecture = build_architecture(
            candidate.model,
            self.tasks,
            derived_seed(seed, "architecture"),
            parents={
                task: parent
                for task in self.tasks
                if (parent := ranking.tasks[task].conditioned_on) is not None
            },
        )
        self.heads = Heads(
            {task: biases[task] for task in self.tasks},
            seed=derived_seed(seed, "heads"),
            name="heads",
        )
        binary = [task for task in self.tasks if ranking.tasks[task].kind == "binary"]
        self.tower = (
            DecisionTower(
                binary,
                training.decision_units,
                seed=derived_seed(seed, "decision_tower"),
                name="decision_tower",
            )
            if binary and FeatureLayout.of(ranking).has_decisions
            else None
        )
        with computing_in("float32"):  # or the objectives would round labels
            self.objectives = {
                task: tfrs.tasks.Ranking(loss=TaskLoss(self.links, task), name=f"objective_{task}")
                for task in self.tasks
            }
        self.balancer = build_balancer(
            candidate.balancer or training.balancer,
            {
                task: TaskTraits(ranking.tasks[task].weight, losses[task].squared_error)
                for task in self.tasks
            },
            derived_seed(seed, "balancer"),
        )
        rate = candidate.learning_rate or training.learning_rate
        self.optimizers = PartOptimizers(
            training.optimizers, rate, training.embedding_learning_rate or rate
        )

    def call(
        self, packed: Packed, tasks: Sequence[str] | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """Computes head outputs, without what decision columns add to them.

        Args:
            packed: Packed features of `models.preprocessing`.
            tasks: The tasks wanted; all of them if None.
            training: Whether dropout and penalties are on.

        Returns:
            Task to float32 [batch, units of its loss].
        """
        groups = self.embedding(packed, training=training)
        outputs: dict[str, tf.Tensor] = self.heads(
            self.architecture(groups, tasks=tasks, training=training)
        )
        return outputs

    def predictions(
        self, packed: Packed, tasks: Sequence[str] | None = None
    ) -> dict[str, tf.Tensor]:
        """Computes every output of the tasks, in natural units: output name to [batch].

        What is predicted is what is served: decision columns have no part in it.
        """
        heads = self(packed, tasks=tasks)
        return self.links.outputs(heads if self.tower is None else self.tower.served(heads))

    def decision_logits(self, packed: Packed) -> dict[str, tf.Tensor]:
        """Computes what decision columns add to the logits: binary task to [batch]."""
        added: dict[str, tf.Tensor] = {}
        if self.tower is not None:
            added = self.tower(self.embedding(packed, decisions=True)[DECISION_GROUP])
        return added

    def task_losses(self, batch: Batch, training: bool = False) -> dict[str, tf.Tensor]:
        """Computes each task's mean loss over a batch, without penalties: task to scalar."""
        return self._forward(batch, training)[0]

    def _forward(
        self, batch: Batch, training: bool
    ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """Returns the losses by task, and the embedded features that they come from."""
        # First: a call of the embedding forgets the penalties of the one before.
        decided = {} if self.tower is None else self.embedding(batch, decisions=True)
        groups = self.embedding(batch, training=training)
        heads = self.heads(self.architecture(groups, training=training))
        if self.tower is not None:
            heads = _with_decisions(heads, self.tower(decided[DECISION_GROUP]))
        if training:
            self._constrain(heads, batch)
        losses = {
            task: self.objectives[task](
                self.links.labels(task, batch),
                heads,
                sample_weight=batch[self.ranking.training_output(task).weight_key],
                training=training,
                compute_metrics=False,
            )
            for task in self.tasks
        }
        return losses, [*(groups[name] for name in sorted(groups)), *decided.values()]

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """Computes the tasks' losses summed with the declared weights, without penalties."""
        return self._weighted_sum(self.task_losses(inputs, training=training))

    def _constrain(self, heads: HeadOutputs, batch: Batch) -> None:
        """Lets the architecture judge what binary tasks predict over the entire space."""
        binary = [task for task in self.tasks if self.ranking.tasks[task].kind == "binary"]
        self.architecture.constrain(
            {task: tf.exp(self.links.log_probabilities(task, heads).happens) for task in binary},
            {task: batch[self.ranking.training_output(task).weight_key] for task in binary},
        )

    def _weighted_sum(self, losses: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.add_n([self.ranking.tasks[task].weight * loss for task, loss in losses.items()])

    def train_step(self, inputs: Batch) -> dict[str, tf.Tensor]:
        """Takes one step.

        Returns:
            The losses before the step: by task, and `TOTAL`, their sum with the declared weights,
            whatever the balancer makes of them; and by name after `PENALTY`, what the architecture
            added to the objective.
        """
        if isinstance(self.balancer, GradientBalancer):
            losses, gradients = self._balanced_gradients(inputs, self.balancer)
        else:
            with tf.GradientTape() as tape:
                losses = self.task_losses(inputs, training=True)
                objective = self.balancer.objective(tf.stack([losses[t] for t in self.tasks]))
                objective = tf.add_n([objective, *self.losses])
            gradients = tape.gradient(objective, self.trainable_variables)
        self.optimizers.apply(gradients, self.trainable_variables)
        penalties = {PENALTY + n: value for n, value in self.architecture.penalties.items()}
        return losses | {TOTAL: self._weighted_sum(losses)} | penalties

    def _balanced_gradients(
        self, batch: Batch, balancer: GradientBalancer
    ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """Combines the gradients of the tasks.

        Per task, one backward pass down to the embedded features; from there on, one for all.

        Returns:
            The losses by task, and the gradient of each trainable variable.
        """
        with tf.GradientTape(persistent=True) as tape:
            losses, representation = self._forward(batch, training=True)
            penalty = tf.add_n([tf.zeros([]), *self.losses])
        shared = self.architecture.shared_variables
        below = self.embedding.trainable_variables
        apart = {id(v) for v in (*shared, *below)}
        own = [v for v in self.trainable_variables if id(v) not in apart]
        parts = [
            tape.gradient(
                losses[task],
                [*representation, *shared, *own],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            for task in self.tasks
        ]
        num_shared = len(representation) + len(shared)
        flat = tf.stack(
            [
                tf.concat([tf.reshape(tf.cast(g, tf.float32), [-1]) for g in part[:num_shared]], 0)
                for part in parts
            ]
        )
        factors = balancer.coefficients(
            tf.stack([losses[task] for task in self.tasks]), tf.matmul(flat, flat, transpose_b=True)
        )
        combined = [
            tf.add_n([tf.cast(c, g.dtype) * g for c, g in zip(tf.unstack(k), gs, strict=True)])
            for i, gs in enumerate(zip(*parts, strict=True))
            for k in (factors.shared if i < num_shared else factors.own,)
        ]
        below_gradients = tape.gradient(
            representation, below, output_gradients=combined[: len(representation)]
        )
        found = {
            id(v): g
            for v, g in zip(
                [*below, *shared, *own],
                [*below_gradients, *combined[len(representation) :]],
                strict=True,
            )
        }
        penalties = tape.gradient(penalty, self.trainable_variables)
        return losses, [
            _added(found[id(v)], p)
            for v, p in zip(self.trainable_variables, penalties, strict=True)
        ]

    def prepare(self, batch: Batch) -> None:
        """Makes every variable, those of the optimizers included, from any batch.

        A step then traces once, and a checkpoint restores all at once.
        """
        self.decision_logits(batch)
        self(batch)
        self.optimizers.prepare(
            self.embedding.tables,
            self.dense_variables,
            {
                task: self.architecture.task_variables(task) + self.heads.task_variables(task)
                for task in self.tasks
            },
        )

    @property
    def dense_variables(self) -> list[tf.Variable]:
        """Trainable variables other than the embedding tables."""
        tables = {id(table) for table in self.embedding.tables}
        return [v for v in self.trainable_variables if id(v) not in tables]

    @property
    def num_parameters(self) -> int:
        """Number of trained numbers that predict: not those of balancer and decision tower."""
        parts = (self.balancer, *((self.tower,) if self.tower is not None else ()))
        apart = {id(v) for part in parts for v in part.trainable_variables}
        return int(sum(np.prod(v.shape) for v in self.trainable_variables if id(v) not in apart))


def _with_decisions(heads: HeadOutputs, added: Mapping[str, tf.Tensor]) -> HeadOutputs:
    """Adds to the logits of binary tasks what decision columns have to say about them."""
    return {**heads, **{task: heads[task] + more[:, tf.newaxis] for task, more in added.items()}}


def _added(a: tf.Tensor | tf.IndexedSlices | None, b: Any) -> Any:
    """Adds two gradients, of which either may be None; sparse ones stay sparse."""
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, tf.IndexedSlices) and isinstance(b, tf.IndexedSlices):
        return tf.IndexedSlices(
            tf.concat([a.values, b.values], 0), tf.concat([a.indices, b.indices], 0), a.dense_shape
        )
    return tf.convert_to_tensor(a) + tf.convert_to_tensor(b)


def trained_tasks(ranking: RankingSpec, candidate: Candidate) -> tuple[str, ...]:
    """Returns the tasks that a candidate trains, sorted."""
    auxiliary = ranking.auxiliary_tasks if candidate.auxiliary else ()
    return tuple(sorted((*ranking.served_tasks, *auxiliary)))
