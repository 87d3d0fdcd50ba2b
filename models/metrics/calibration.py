"""Whether predictions have the right size."""

from __future__ import annotations

from typing import final

import numpy as np

from models.metrics.columns import FloatArray, Rows
from models.metrics.family import Family, ratio, starts_of_runs, total

NUM_BINS = 20


@final
class Calibration(Family):
    """`calibration`: the weighted sum of predictions over the weighted sum of labels.

    1 is unbiased, above 1 predicts too much. NaN where the labels sum to 0.
    """

    names = ("calibration",)

    def _prepare(self, rows: Rows) -> None:
        self._predictions = self._by_unit(rows.weight * rows.prediction)
        self._labels = self._by_unit(rows.weight * rows.label)

    def evaluate(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Computes the ratio; see `Family.evaluate`."""
        return {"calibration": ratio(total(self._predictions, counts), total(self._labels, counts))}


@final
class ExpectedCalibrationError(Family):
    """`ece` of a binary task, in 20 bins of equal weight.

    ECE = sum over bins of (weight share of the bin) * |mean label - mean prediction|. Rows are
    binned by the share of weight below them, b = floor(20 * (W_below + W_tied / 2) / W), so bins
    hold about the same weight, equal predictions share a bin and row order does not matter.
    Equal-width bins would put nearly every row of a click-through task into the first.

    Resamples keep the bins of the full sample. An absolute value of noise is biased upwards, in
    resamples more than in the sample: the interval is shifted by the bootstrap's estimate of that
    bias, so that it lies around the value.

    M. P. Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining Well Calibrated Probabilities Using
    Bayesian Binning", AAAI 2015. Differs from the paper: bins of equal weight, not equal width.
    """

    names = ("ece",)
    biased = frozenset({"ece"})

    def _prepare(self, rows: Rows) -> None:
        order = np.argsort(rows.prediction, kind="stable")
        starts = starts_of_runs(rows.prediction[order])
        tied = np.add.reduceat(rows.weight[order], starts)
        share = (np.cumsum(tied) - tied / 2) / tied.sum()
        bin_of_tie = np.minimum((NUM_BINS * share).astype(np.int64), NUM_BINS - 1)
        num_tied = np.diff(np.append(starts, len(rows)))
        bin_of_row = np.empty(len(rows), np.int64)
        bin_of_row[order] = np.repeat(bin_of_tie, num_tied)
        surplus = rows.weight * ((rows.label > 0) - rows.prediction)
        self._surplus = np.stack(
            [self._by_unit(surplus * (bin_of_row == b)) for b in range(NUM_BINS)]
        )
        self._weight = self._by_unit(rows.weight)

    def evaluate(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Computes the error; see `Family.evaluate`."""
        return {
            "ece": ratio(np.abs(total(self._surplus, counts)).sum(0), total(self._weight, counts))
        }
