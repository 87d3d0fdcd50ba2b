"""How many nats a probability costs, alone and against the base rate."""

from __future__ import annotations

from typing import final

import numpy as np

from models.metrics.columns import FloatArray, Rows
from models.metrics.family import Family, ratio, total

# Models answer in float32, where a sigmoid reaches 0 or 1 exactly.
_EPSILON = float(np.finfo(np.float32).eps)


@final
class CrossEntropy(Family):
    """`log_loss` and `normalized_entropy` of a binary task.

    `log_loss` is the weighted mean of -log(probability given to what happened), in nats, with
    predictions clipped to [eps, 1 - eps] for eps = 1.19e-7 (float32).

    `normalized_entropy` is `log_loss` divided by the entropy of the base rate p,
    -p log p - (1 - p) log(1 - p): below 1 the model knows more than the average. NaN where a class
    is missing. X. He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook",
    ADKDD 2014.
    """

    names = ("log_loss", "normalized_entropy")

    def _prepare(self, rows: Rows) -> None:
        probability = np.clip(rows.prediction, _EPSILON, 1 - _EPSILON)
        positive = rows.label > 0
        loss = -np.log(np.where(positive, probability, 1 - probability))
        self._loss = self._by_unit(rows.weight * loss)
        self._weight = self._by_unit(rows.weight)
        self._positives = self._by_unit(rows.weight * positive)
        self._negatives = self._by_unit(rows.weight * ~positive)

    def evaluate(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Computes both metrics; see `Family.evaluate`."""
        log_loss = ratio(total(self._loss, counts), total(self._weight, counts))
        positives, negatives = (
            total(self._positives, counts),
            total(self._negatives, counts),
        )
        base_rate = ratio(positives, positives + negatives)
        both_classes = (positives > 0) & (negatives > 0)
        rate = np.where(both_classes, base_rate, 0.5)
        entropy = -rate * np.log(rate) - (1 - rate) * np.log1p(-rate)
        return {
            "log_loss": log_loss,
            "normalized_entropy": np.where(both_classes, log_loss / entropy, np.nan),
        }
