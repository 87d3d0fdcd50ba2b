"""Ranking quality inside slates or users."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from models.metrics.columns import FloatArray, IntArray, Rows, num_codes
from models.metrics.family import Family, ratio, starts_of_runs, total


class _GroupMean(Family):
    """A weighted mean over groups of a value that each group has by itself.

    Resamples take groups whole: where a group spans clusters (users resampled by slate), those
    clusters are resampled as one. A cluster taken twice brings its groups twice, as groups apart.
    """

    keeps_groups_whole = True

    def _set_groups(
        self, rows: Rows, value: FloatArray, weight: FloatArray, defined: NDArray[np.bool_]
    ) -> None:
        unit_of_group = np.zeros(len(value), np.int64)
        unit_of_group[rows.group] = self.unit
        unit, value, weight = unit_of_group[defined], value[defined], weight[defined]
        self._num_groups, self._num_skipped = len(value), int((~defined).sum())
        self._weighted_values = _sums(unit, weight * value, self.num_units)
        self._weight = _sums(unit, weight, self.num_units)

    def evaluate(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Computes the mean; see `Family.evaluate`."""
        return {
            self.names[0]: ratio(total(self._weighted_values, counts), total(self._weight, counts))
        }

    @classmethod
    def tally_names(cls) -> tuple[str, ...]:
        """Names of the counts that `tallies` returns."""
        return f"{cls.names[0]}_num_groups", f"{cls.names[0]}_num_groups_skipped"

    def tallies(self) -> dict[str, int]:
        """Counts the groups that entered the mean and those that could not."""
        return dict(zip(self.tally_names(), (self._num_groups, self._num_skipped), strict=True))


@final
class GroupAuc(_GroupMean):
    """`gauc`: AUC inside each group, averaged by the groups' weight (rows where unweighted).

    Groups with one class only have no AUC; they are skipped and counted. G. Zhou et al., "Deep
    Interest Network for Click-Through Rate Prediction", KDD 2018. Differs from the paper: any
    group key, and row weights.
    """

    names = ("gauc",)

    def _prepare(self, rows: Rows) -> None:
        order = np.lexsort((rows.prediction, rows.group))
        group, prediction = rows.group[order], rows.prediction[order]
        weight, positive = rows.weight[order], rows.label[order] > 0
        starts = starts_of_runs(group, prediction)
        positives = np.add.reduceat(weight * positive, starts)
        negatives = np.add.reduceat(weight * ~positive, starts)
        group = group[starts]
        group_starts = starts_of_runs(group)
        below = np.cumsum(negatives) - negatives
        below -= below[group_starts][group]
        concordant = np.add.reduceat(positives * (below + 0.5 * negatives), group_starts)
        num_positives = np.add.reduceat(positives, group_starts)
        num_negatives = np.add.reduceat(negatives, group_starts)
        self._set_groups(
            rows,
            ratio(concordant, num_positives * num_negatives),
            num_positives + num_negatives,
            (num_positives > 0) & (num_negatives > 0),
        )


@final
class GroupNdcg(_GroupMean):
    """`ndcg`: mean over groups of the discounted gain against the best order's.

    DCG = sum over rows of gain / log2(1 + position), the gain being the label itself, the position
    that of the row in its group by falling prediction. Rows with equal predictions share the mean
    of their positions' discounts, which is the expected DCG under random tie-breaking. A group
    weighs as much as its rows do on average (1 where unweighted). Groups of a single row have
    nothing to order, and those in which no label is above 0 have no best order: both are skipped
    and counted. NaN where a label is negative.
    K. Järvelin, J. Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002.
    """

    names = ("ndcg",)

    def _prepare(self, rows: Rows) -> None:
        gain = rows.label if (rows.label >= 0).all() else np.full(len(rows), np.nan)
        num_groups = num_codes(rows.group)
        num_rows = np.bincount(rows.group, minlength=num_groups)
        discount_until = np.concatenate(
            ([0.0], np.cumsum(1 / np.log2(np.arange(2, num_rows.max() + 2))))
        )
        gained = _discounted_gain(rows.group, rows.prediction, gain, discount_until)
        best = _discounted_gain(rows.group, rows.label, gain, discount_until)
        self._set_groups(
            rows,
            ratio(gained, best),
            np.bincount(rows.group, rows.weight) / num_rows,
            (best != 0) & (num_rows > 1),
        )


def _sums(codes: IntArray, values: FloatArray, num_sums: int) -> FloatArray:
    return np.asarray(np.bincount(codes, values, num_sums), np.float64)


def _discounted_gain(
    group: IntArray, score: FloatArray, gain: FloatArray, discount_until: FloatArray
) -> FloatArray:
    """Computes the DCG of each group, [num_groups], with tied scores averaged."""
    order = np.lexsort((-score, group))
    sorted_group, sorted_score = group[order], score[order]
    starts = starts_of_runs(sorted_group, sorted_score)
    ends = np.append(starts[1:], len(group))
    group_start = starts_of_runs(sorted_group)
    offset = group_start[sorted_group[starts]]
    discount = (discount_until[ends - offset] - discount_until[starts - offset]) / (ends - starts)
    gains = np.add.reduceat(gain[order], starts)
    return _sums(sorted_group[starts], gains * discount, num_codes(group))
