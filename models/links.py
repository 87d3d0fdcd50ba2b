"""From head outputs to the outputs of a ranking: conditionals and their entire-space products."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from models.losses.abstract import Loss
from models.losses.counterfactual import CounterfactualLoss
from models.spec.ranking import RankingSpec

HeadOutputs = Mapping[str, tf.Tensor]
"""Task to [batch, units of its loss]."""

Labels = Mapping[str, tf.Tensor]
"""`OUTCOME`, and for a loss that corrects for it `OBSERVED`; float32 [batch] each."""

OUTCOME = "outcome"
"""What happened, in natural units."""

OBSERVED = "observed"
"""1 where the parent happened, so that the conditional outcome was seen, else 0."""


@dataclass(frozen=True)
class LogProbabilities:
    """Logarithms of a probability and of its complement, both exact near 0 and near 1.

    Attributes:
        happens: log p, float32 [batch].
        fails: log(1 - p), float32 [batch].
    """

    happens: tf.Tensor
    fails: tf.Tensor

    @classmethod
    def of_logit(cls, logit: tf.Tensor) -> LogProbabilities:
        """Returns those of sigmoid(logit)."""
        return cls(-tf.nn.softplus(-logit), -tf.nn.softplus(logit))

    def then(self, conditional: LogProbabilities) -> LogProbabilities:
        """Returns those of both happening: `p q`, and `1 - p q = (1 - p) + p (1 - q)`."""
        return LogProbabilities(
            happens=self.happens + conditional.happens,
            fails=_log_add(self.fails, self.happens + conditional.fails),
        )

    def among_sampled(self, negative_rate: float) -> LogProbabilities:
        """Returns those of a positive where only a share of the negatives is seen.

        `p / (p + r (1 - p))`, that is `logit - log r` (He et al., ADKDD 2014, sec. 6.3 solves it
        for p): what a calibrated model expects in data whose negatives were kept at rate r.
        """
        if negative_rate == 1.0:
            return self
        fails = self.fails + math.log(negative_rate)
        total = _log_add(self.happens, fails)
        return LogProbabilities(self.happens - total, fails - total)

    def cross_entropy(self, labels: tf.Tensor) -> tf.Tensor:
        """Returns `-y log p - (1 - y) log(1 - p)` per row, finite."""
        return -labels * self.happens - (1.0 - labels) * self.fails


def _log_add(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Returns log(e^a + e^b)."""
    return tf.reduce_logsumexp(tf.stack([a, b]), axis=0)


class Links:
    """Turns head outputs into outputs in natural units.

    A binary task conditioned on another learns `q = P(task | parent)`; its entire-space
    probability is the product along the chain, `p = P(parent) q` (ESMM, Ma et al., SIGIR 2018,
    eq. 1). A conditioned task of another kind has the entire-space expectation
    `P(parent) E[task | parent]`. Durations and counts are never negative.

    Args:
        ranking: The tasks.
        losses: Loss by task.
    """

    def __init__(self, ranking: RankingSpec, losses: Mapping[str, Loss]) -> None:
        """Keeps the settings."""
        self._ranking = ranking
        self._losses = dict(losses)

    def log_probabilities(self, task: str, heads: HeadOutputs) -> LogProbabilities:
        """Returns the entire-space log-probabilities of a binary task.

        Args:
            task: A binary task.
            heads: Head outputs of the task and of those it is conditioned on.
        """
        own = LogProbabilities.of_logit(heads[task][:, 0])
        parent = self._ranking.tasks[task].conditioned_on
        return own if parent is None else self.log_probabilities(parent, heads).then(own)

    def labels(self, task: str, batch: Mapping[str, tf.Tensor]) -> Labels:
        """Picks the labels that train a task.

        Args:
            task: The task.
            batch: Label and weight of every output by their keys.
        """
        found = {OUTCOME: batch[self._ranking.training_output(task).label_key]}
        if isinstance(self._losses[task], CounterfactualLoss):
            conditional = self._ranking.outputs_of(task)[-1]
            found[OBSERVED] = tf.cast(batch[conditional.weight_key] > 0, tf.float32)
        return found

    def row_losses(self, task: str, heads: HeadOutputs, labels: Labels) -> tf.Tensor:
        """Computes a task's loss per row, in the space of its `training_output`.

        A conditioned binary task has the cross entropy of its entire-space product, plus what a
        `CounterfactualLoss` asks of its conditional. Where negatives are downsampled, the loss sees
        the probability among the sampled rows; heads and outputs are those of the whole
        population, so nothing is corrected when served.

        Args:
            task: The task.
            heads: Head outputs of the task and of those it is conditioned on.
            labels: See `labels`.

        Returns:
            Float32 [batch], finite.
        """
        spec, loss = self._ranking.tasks[task], self._losses[task]
        own, outcome = heads[task], labels[OUTCOME]
        if spec.kind != "binary" or spec.conditioned_on is None:
            if spec.negative_rate < 1:
                own -= math.log(spec.negative_rate)
            return loss.per_row(own, outcome)
        seen = self.log_probabilities(task, heads).among_sampled(spec.negative_rate)
        rows = seen.cross_entropy(outcome)
        if isinstance(loss, CounterfactualLoss):
            propensity = tf.exp(self.log_probabilities(spec.conditioned_on, heads).happens)
            rows += loss.weight * loss.corrected(own, outcome, labels[OBSERVED], propensity)
        return rows

    def outputs(self, heads: HeadOutputs) -> dict[str, tf.Tensor]:
        """Computes every output of the given tasks.

        Args:
            heads: Head outputs by task; a task's parents must be among them.

        Returns:
            Output name to float32 [batch], by task name.
        """
        found: dict[str, tf.Tensor] = {}
        for task in sorted(heads):
            spec = self._ranking.tasks[task]
            own = self._losses[task].prediction(heads[task])
            if spec.kind in ("duration", "count"):
                own = tf.maximum(own, 0.0)
            if spec.conditioned_on is None:
                found[task] = own
                continue
            entire, conditional = (output.name for output in self._ranking.outputs_of(task))
            parent = tf.exp(self.log_probabilities(spec.conditioned_on, heads).happens)
            found[entire] = parent * own
            found[conditional] = own
        return found
