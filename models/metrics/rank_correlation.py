"""Whether predictions order rows as their labels do."""

from __future__ import annotations

from typing import final

import numpy as np

from models.metrics.columns import FloatArray, IntArray, Rows
from models.metrics.family import Family, ratio, starts_of_runs, sum_runs, total


@final
class Spearman(Family):
    """`spearman`: Pearson correlation of the midranks of labels and predictions.

    With weights, the midrank of a row is the weight below it plus half the weight tied with it,
    and the correlation is weighted: an integer weight w equals w copies of the row. NaN where
    either side is constant.
    """

    names = ("spearman",)

    def _prepare(self, rows: Rows) -> None:
        self._weight = rows.weight[:, np.newaxis]
        self._label_ties = _Ties(rows.label)
        self._prediction_ties = _Ties(rows.prediction)

    def evaluate(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Computes the correlation; see `Family.evaluate`."""
        weight = counts[self.unit] * self._weight
        # The weighted mean of midranks is exactly half the total weight.
        x = self._label_ties.centred_midranks(weight)
        y = self._prediction_ties.centred_midranks(weight)
        weighted_x = weight * x
        covariance = np.einsum("nr,nr->r", weighted_x, y)
        variance_x = np.einsum("nr,nr->r", weighted_x, x)
        variance_y = np.einsum("nr,nr->r", np.multiply(weight, y, out=weight), y)
        return {"spearman": ratio(covariance, np.sqrt(variance_x * variance_y))}


class _Ties:
    """Rows sorted by a value, cut into runs of equal values."""

    def __init__(self, values: FloatArray) -> None:
        self._order = np.argsort(values, kind="stable")
        self._starts = starts_of_runs(values[self._order])
        run = np.zeros(len(values), np.int64)
        run[self._starts[1:]] = 1
        self._run_of_row = np.empty(len(values), np.int64)
        self._run_of_row[self._order] = np.cumsum(run)

    def centred_midranks(self, weight: FloatArray) -> FloatArray:
        """Turns weights [n, r] into midranks less their mean [n, r], 0 when all rows tie."""
        tied = sum_runs(weight[self._order], self._starts)
        below_and_tied = np.cumsum(tied, axis=0)
        midranks: FloatArray = below_and_tied - 0.5 * (tied + below_and_tied[-1])
        return midranks[self._run_of_row]


@final
class ConcordantPairs(Family):
    """`xauc`: share of concordant pairs among pairs of rows with different labels.

    A pair counts w_i * w_j; a tie of predictions counts one half. On 0/1 labels it is `auc`. NaN
    where all labels are equal. R. Zhan et al., "Deconfounding Duration Bias in Watch-time
    Prediction for Video Recommendation", KDD 2022.

    The value is exact, in O(n log^2 n). In a resample with counts k the sum over pairs is a
    quadratic form in k; the interval uses its tangent at k = 1 (each pair sum changes by what
    either of its two clusters' counts changes it), which drops the product of two clusters'
    deviations. Measured on random rows, against resamples written out: correlation .995 and
    spread within 3 % at 200 clusters, .999 and 2 % at 800.
    """

    names = ("xauc",)

    def _prepare(self, rows: Rows) -> None:
        order = np.lexsort((-rows.prediction, rows.label))
        label, prediction = rows.label[order], rows.prediction[order]
        starts = starts_of_runs(label, prediction)
        weight = np.add.reduceat(rows.weight[order], starts)
        label, prediction = label[starts], prediction[starts]
        rank = np.unique(prediction, return_inverse=True)[1].astype(np.int64)
        # In this order rows before i with an equal label predict more than i, hence add nothing.
        lower = _weight_of_earlier_smaller(rank, weight)
        higher = _weight_of_earlier_smaller(rank.max() - rank[::-1], weight[::-1])[::-1]
        label_starts = starts_of_runs(label)
        per_label = np.add.reduceat(weight, label_starts)
        num_in_label = np.diff(np.append(label_starts, len(label)))
        different = weight.sum() - np.repeat(per_label, num_in_label)

        copies = np.diff(np.append(starts, len(rows)))
        concordant_of_row = np.empty(len(rows))
        concordant_of_row[order] = np.repeat(lower + higher, copies)
        different_of_row = np.empty(len(rows))
        different_of_row[order] = np.repeat(different, copies)
        self._concordant = self._by_unit(rows.weight * concordant_of_row)
        self._different = self._by_unit(rows.weight * different_of_row)
        self._is_defined = len(label_starts) > 1

    def evaluate(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Computes the share; see `Family.evaluate`."""
        if not self._is_defined:
            return {"xauc": np.full(counts.shape[1], np.nan)}
        # Each sum over ordered pairs is twice the pair sum, at k = 1 too.
        concordant = total(self._concordant, counts) - self._concordant.sum() / 2
        different = total(self._different, counts) - self._different.sum() / 2
        return {"xauc": np.where(different > 0, ratio(concordant, different), np.nan)}


def _weight_of_earlier_smaller(rank: IntArray, weight: FloatArray) -> FloatArray:
    """Sums, for each element, the weight of earlier elements of lower rank and half of equal rank.

    Merge counting, from the bottom up and all blocks of a level at once: every pair of positions
    meets exactly once, as the left and right half of some block.
    """
    num_rows = len(rank)
    position = np.arange(num_rows)
    num_ranks = int(rank.max()) + 1
    result = np.zeros(num_rows)
    order = position
    for level in range(max(num_rows - 1, 0).bit_length()):
        key = (position >> (level + 1)) * num_ranks + rank
        # The previous level left sorted runs, which a stable sort merges.
        order = order[np.argsort(key[order], kind="stable")]
        sorted_key = key[order]
        in_right_half = (order >> level & 1).astype(bool)
        left_weight = np.where(in_right_half, 0.0, weight[order])
        starts = starts_of_runs(sorted_key)
        tied = np.add.reduceat(left_weight, starts)
        below = np.cumsum(tied) - tied
        block = sorted_key[starts] // num_ranks
        block_starts = starts_of_runs(block)
        num_runs = np.diff(np.append(block_starts, len(starts)))
        below -= np.repeat(below[block_starts], num_runs)
        per_row = np.repeat(below + 0.5 * tied, np.diff(np.append(starts, num_rows)))
        result[order[in_right_half]] += per_row[in_right_half]
    return result
