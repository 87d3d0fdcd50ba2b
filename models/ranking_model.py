"""The ranking model: embedding, architecture, heads, links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from models.architectures.registry import build_architecture
from models.embedding import Embedding, Packed
from models.feature_layout import FeatureLayout
from models.heads import Heads
from models.lazy_adam import LazyAdam
from models.links import Links
from models.losses.abstract import Loss
from models.seeding import derived_seed
from models.spec.ranking import RankingSpec
from models.spec.training import Candidate, Training
from models.task_loss import TaskLoss

Batch = Mapping[str, tf.Tensor]
"""Packed features, and label and weight of every output by their keys, [batch] each."""

TOTAL = "total"
"""Name of the weighted sum among the losses of a step."""


class RankingModel(tfrs.Model):
    """A multi-task ranker.

    The total loss is `sum_k weight_k loss_k`, plus the embedding penalty. Two Adam optimizers
    step the embedding tables and the rest, each at its own rate.

    Args:
        ranking: Features and tasks.
        training: Rates, interaction, penalty and seed.
        candidate: Architecture, and whether auxiliary tasks are trained.
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
        super().__init__(name="ranking_model")
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
            candidate.model, self.tasks, derived_seed(seed, "architecture")
        )
        self.heads = Heads(
            {task: biases[task] for task in self.tasks},
            seed=derived_seed(seed, "heads"),
            name="heads",
        )
        self.objectives = {
            task: tfrs.tasks.Ranking(loss=TaskLoss(self.links, task), name=f"objective_{task}")
            for task in self.tasks
        }
        rate = candidate.learning_rate or training.learning_rate
        # The legacy class applies Adam as one fused operation a variable.
        self.dense_optimizer = tf.keras.optimizers.legacy.Adam(rate)
        self.embedding_optimizer = LazyAdam(training.embedding_learning_rate or rate)

    def call(
        self, packed: Packed, tasks: Sequence[str] | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """Computes head outputs.

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
        """Computes every output of the tasks, in natural units: output name to [batch]."""
        return self.links.outputs(self(packed, tasks=tasks))

    def task_losses(self, batch: Batch, training: bool = False) -> dict[str, tf.Tensor]:
        """Computes each task's mean loss over a batch: task to scalar."""
        heads = self(batch, training=training)
        losses = {}
        for task in self.tasks:
            output = self.ranking.training_output(task)
            losses[task] = self.objectives[task](
                batch[output.label_key],
                heads,
                sample_weight=batch[output.weight_key],
                training=training,
                compute_metrics=False,
            )
        return losses

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """Computes the weighted sum of the tasks' losses, without the embedding penalty."""
        return self._weighted_sum(self.task_losses(inputs, training=training))

    def _weighted_sum(self, losses: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.add_n([self.ranking.tasks[task].weight * loss for task, loss in losses.items()])

    def train_step(self, inputs: Batch) -> dict[str, tf.Tensor]:
        """Takes one step.

        Returns:
            The losses before the step: by task, and `TOTAL`, their weighted sum.
        """
        with tf.GradientTape() as tape:
            losses = self.task_losses(inputs, training=True)
            total = self._weighted_sum(losses)
            objective = tf.add_n([total, *self.losses])
        tables = self.embedding.tables
        dense = self.dense_variables
        gradients = tape.gradient(objective, [*tables, *dense])
        if tables:
            self.embedding_optimizer.apply_gradients(
                zip(gradients[: len(tables)], tables, strict=True)
            )
        self.dense_optimizer.apply_gradients(zip(gradients[len(tables) :], dense, strict=True))
        return losses | {TOTAL: total}

    def prepare(self, batch: Batch) -> None:
        """Makes every variable, those of the optimizers included, from any batch.

        A step then traces once, and a checkpoint restores all at once.
        """
        self(batch)
        optimized = [(self.dense_optimizer, self.dense_variables)]
        if self.embedding.tables:
            optimized.append((self.embedding_optimizer, self.embedding.tables))
        for optimizer, variables in optimized:
            # A step without gradient makes the moments and moves nothing.
            optimizer.apply_gradients([(tf.zeros_like(v), v) for v in variables])
            optimizer.iterations.assign(0)

    @property
    def dense_variables(self) -> list[tf.Variable]:
        """Trainable variables other than the embedding tables."""
        tables = {id(table) for table in self.embedding.tables}
        return [v for v in self.trainable_variables if id(v) not in tables]

    @property
    def num_parameters(self) -> int:
        """Number of trained numbers."""
        return int(sum(np.prod(v.shape) for v in self.trainable_variables))


def trained_tasks(ranking: RankingSpec, candidate: Candidate) -> tuple[str, ...]:
    """Returns the tasks that a candidate trains, sorted."""
    auxiliary = ranking.auxiliary_tasks if candidate.auxiliary else ()
    return tuple(sorted((*ranking.served_tasks, *auxiliary)))
