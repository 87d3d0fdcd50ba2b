"""Areas under the curves that a moving decision threshold draws."""

from __future__ import annotations

from typing import final

import numpy as np

from models.metrics.columns import FloatArray, IntArray, Rows
from models.metrics.family import Family, ratio, starts_of_runs, sum_runs


@final
class ThresholdCurves(Family):
    """`auc` and `pr_auc` of a binary task.

    `auc` is the weighted share of pairs of a positive and a negative row in which the positive has
    the higher prediction; a tie counts one half.

    `pr_auc` is the average precision: the sum over distinct thresholds, from the highest, of the
    rise in recall times the precision at that threshold. No interpolation.

    Both are NaN where a class is missing.
    """

    names = ("auc", "pr_auc")

    def _prepare(self, rows: Rows) -> None:
        order = np.argsort(-rows.prediction, kind="stable")
        prediction = rows.prediction[order]
        positive = rows.label[order] > 0
        starts = starts_of_runs(prediction)
        threshold = np.zeros(len(rows), np.int64)
        threshold[starts[1:]] = 1
        threshold = np.cumsum(threshold)
        # Neighbouring thresholds that only negatives sit on act as one: recall does not move
        # there. With few positives this shortens the curves many times over.
        has_positive = np.logical_or.reduceat(positive, starts)
        opens_step = has_positive.copy()
        opens_step[1:] |= has_positive[:-1]
        opens_step[0] = True
        step = (np.cumsum(opens_step) - 1)[threshold]
        self._num_steps = int(step[-1]) + 1
        self._positives = _Side(order[positive], step[positive], rows.weight, self.unit)
        self._negatives = _Side(order[~positive], step[~positive], rows.weight, self.unit)

    def evaluate(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Computes both areas; see `Family.evaluate`."""
        positives = self._positives.by_step(counts, self._num_steps)
        negatives = self._negatives.by_step(counts, self._num_steps)
        true_positives = np.cumsum(positives, axis=0)
        false_positives = np.cumsum(negatives, axis=0)
        num_positives, num_negatives = true_positives[-1], false_positives[-1]
        pairs = num_positives * num_negatives
        concordant = np.einsum("sr,sr->r", negatives, true_positives - 0.5 * positives)
        flagged = true_positives + false_positives
        precision = true_positives / np.where(flagged > 0, flagged, 1.0)
        area = np.einsum("sr,sr->r", positives, precision)
        return {
            "auc": ratio(concordant, pairs),
            "pr_auc": np.where(pairs > 0, ratio(area, num_positives), np.nan),
        }


class _Side:
    """The rows of one class, highest prediction first."""

    def __init__(self, row: IntArray, step: IntArray, weight: FloatArray, unit: IntArray) -> None:
        self._unit = unit[row]
        self._weight = weight[row][:, np.newaxis]
        self._starts = starts_of_runs(step)
        self._steps = step[self._starts]

    def by_step(self, counts: FloatArray, num_steps: int) -> FloatArray:
        """Sums resampled weights per step: [num_units, r] to [num_steps, r]."""
        sums = np.zeros((num_steps, counts.shape[1]))
        if len(self._unit):
            sums[self._steps] = sum_runs(counts[self._unit] * self._weight, self._starts)
        return sums
