"""The shape that every metric family has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from models.metrics.columns import FloatArray, IntArray, Rows, num_codes


class Family(ABC):
    """Metrics that share their preparation, on the rows of one task.

    The rows are prepared once (sorted, summed by cluster); `evaluate` then gives each metric for
    any number of resamples. The value on the data is the resample that takes each cluster once,
    so a value and its interval come from one definition.

    Args:
        rows: The rows present, all finite; at least one.
    """

    names: ClassVar[tuple[str, ...]]
    keeps_groups_whole: ClassVar[bool] = False
    biased: ClassVar[frozenset[str]] = frozenset()
    """Metrics, at least 0, that noise pushes up: their resamples lie above the value."""

    def __init__(self, rows: Rows) -> None:
        """Prepares the rows."""
        self.unit: IntArray = rows.whole_cluster if self.keeps_groups_whole else rows.cluster
        self.num_units = num_codes(self.unit)
        self._prepare(rows)

    @abstractmethod
    def _prepare(self, rows: Rows) -> None:
        """Does what does not depend on the resample."""

    @abstractmethod
    def evaluate(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Computes every metric of the family on resamples.

        Args:
            counts: How often each resample takes each unit, [num_units, num_resamples].

        Returns:
            Metric name to [num_resamples], NaN where the metric is undefined.
        """

    @classmethod
    def tally_names(cls) -> tuple[str, ...]:
        """Names of the counts that `tallies` returns."""
        return ()

    def tallies(self) -> dict[str, int]:
        """Counts what the metrics used and left out."""
        return {}

    def _by_unit(self, values: FloatArray) -> FloatArray:
        """Sums a value per row over the rows of each unit: [n] to [num_units]."""
        return np.asarray(np.bincount(self.unit, values, self.num_units), np.float64)


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divides, giving NaN (and no warning) where the denominator is 0."""
    defined = denominator != 0
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)


def total(per_unit: FloatArray, counts: FloatArray) -> FloatArray:
    """Sums values over the units of each resample: [..., num_units] to [..., num_resamples].

    Not a matrix product: BLAS splits such sums over threads, which is slow at these sizes and
    makes the last bits depend on the machine.
    """
    return np.asarray(np.einsum("...u,ur->...r", per_unit, counts), np.float64)


def sum_runs(values: FloatArray, starts: IntArray) -> FloatArray:
    """Sums sorted rows over runs of equal keys: [n, ...] to [num_runs, ...]."""
    if len(starts) == len(values):
        return values  # no ties, the usual case for predictions
    return np.add.reduceat(values, starts)


def starts_of_runs(*sorted_keys: FloatArray | IntArray) -> IntArray:
    """Returns the index of the first row of every run of equal keys."""
    new = np.zeros(len(sorted_keys[0]), bool)
    new[:1] = True
    for key in sorted_keys:
        new[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(new)
