"""Metric values, and intervals that resample clusters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.metrics.catalog import families_of
from models.metrics.columns import FloatArray, IntArray, Rows, TaskColumns
from models.metrics.family import Family
from models.spec.errors import DataError

NUM_REPLICATES = 200
_QUANTILES = (0.025, 0.975)
_LEAST_SHARE_DEFINED = 0.9
_ELEMENTS_PER_BLOCK = 1 << 19


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval.

    Attributes:
        value: The metric on the data, or the difference of two; NaN where undefined.
        low: The 2.5 % quantile over resamples; NaN with fewer than two clusters, or where the
            metric is undefined in more than a tenth of the resamples.
        high: The 97.5 % quantile.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Resampled:
    """Metrics on the data and on the resamples drawn from it.

    Attributes:
        values: Metric name to its value on the data.
        replicates: Metric name to its values on the resamples, [num_replicates].
        biased: Metrics whose resamples lie to one side of the value; never below 0.
        tallies: Counts of what was left out, such as one-class groups.
    """

    values: dict[str, float]
    replicates: dict[str, FloatArray]
    biased: frozenset[str]
    tallies: dict[str, int]

    def intervals(self) -> dict[str, Interval]:
        """Returns each metric with its percentile interval."""
        found = {
            name: _interval(value, self.replicates[name], name in self.biased)
            for name, value in self.values.items()
        }
        for name in self.biased & found.keys():
            if found[name].low < 0:
                found[name] = replace(found[name], low=0.0)
        return found

    def less(self, other: Resampled) -> dict[str, Interval]:
        """Returns the differences to another model on the same rows and the same draws."""
        return {
            name: _interval(
                value - other.values[name],
                self.replicates[name] - other.replicates[name],
                name in self.biased,
            )
            for name, value in self.values.items()
        }


def compute(names: Sequence[str], columns: TaskColumns) -> dict[str, float]:
    """Computes metrics without intervals.

    Args:
        names: Metric names, keys of `models.spec.metric.METRICS`.
        columns: The rows of one task.

    Returns:
        Name to value; NaN where the metric is undefined on these rows (no row, one class, no
        usable group, a label or prediction that is not finite).

    Raises:
        ConfigError: A name is not a metric.
    """
    return resample(names, columns, num_replicates=0, seed=0).values


def bootstrap(
    names: Sequence[str],
    columns: TaskColumns,
    num_replicates: int = NUM_REPLICATES,
    *,
    seed: int,
) -> dict[str, Interval]:
    """Computes metrics with percentile intervals over resampled clusters.

    Every replicate draws as many clusters as there are, with replacement; a cluster brings all its
    rows. Rows of one user are alike, so resampling rows would make intervals too narrow. The
    result depends on the rows and the seed, not on the order of the rows.

    Args:
        names: Metric names, keys of `models.spec.metric.METRICS`.
        columns: The rows of one task.
        num_replicates: Number of resamples.
        seed: Seed of the draws.

    Raises:
        ConfigError: A name is not a metric.
    """
    return resample(names, columns, num_replicates=num_replicates, seed=seed).intervals()


def paired_bootstrap(
    names: Sequence[str],
    columns_a: TaskColumns,
    columns_b: TaskColumns,
    num_replicates: int = NUM_REPLICATES,
    *,
    seed: int,
) -> dict[str, Interval]:
    """Computes b - a per metric, both models on the same rows and in the same resamples.

    Args:
        names: Metric names, keys of `models.spec.metric.METRICS`.
        columns_a: The rows with the predictions of model a.
        columns_b: The same rows in the same order with the predictions of model b.
        num_replicates: Number of resamples.
        seed: Seed of the draws.

    Raises:
        ConfigError: A name is not a metric.
        DataError: The two differ in more than their predictions.
    """
    for name in ("label", "weight", "group", "cluster"):
        if not np.array_equal(getattr(columns_a, name), getattr(columns_b, name)):
            raise DataError(
                f"the models to compare differ in column {name!r}",
                constraint="the same rows in the same order",
                received=f"{len(columns_a)} and {len(columns_b)} rows",
                remedy="join their predictions on the row keys first",
            )
    a, b = (
        resample(names, columns, num_replicates=num_replicates, seed=seed)
        for columns in (columns_a, columns_b)
    )
    return b.less(a)


def resample(
    names: Sequence[str], columns: TaskColumns, *, num_replicates: int, seed: int
) -> Resampled:
    """Computes metrics on the data and on resamples of its clusters.

    The draws depend on the seed and the number of clusters alone, so two models on the same rows
    meet the same resamples. Time and memory: one sort per family, then a few passes over
    [rows, block of resamples], blocks being cut so that they hold about half a million numbers.

    Args:
        names: Metric names, keys of `models.spec.metric.METRICS`.
        columns: The rows of one task.
        num_replicates: Number of resamples; 0 for none.
        seed: Seed of the draws.

    Raises:
        ConfigError: A name is not a metric.
    """
    kinds = families_of(names)
    rows = Rows.of(columns)
    if not len(rows) or not rows.is_finite:
        undefined = np.full(num_replicates, np.nan)
        return Resampled(
            values={name: np.nan for name in names},
            replicates={name: undefined for name in names},
            biased=frozenset(),
            tallies={tally: 0 for kind in kinds for tally in kind.tally_names()},
        )
    families = [kind(rows) for kind in kinds]
    values: dict[str, float] = {}
    replicates: dict[str, FloatArray] = {}
    for family in families:
        once = family.evaluate(np.ones((family.num_units, 1)))
        values |= {name: float(value[0]) for name, value in once.items()}
    for unit in _distinct(rows.cluster, rows.whole_cluster):
        sharing = [family for family in families if np.array_equal(family.unit, unit)]
        if sharing:
            replicates |= _replicates(sharing, len(rows), num_replicates, seed)
    return Resampled(
        values={name: values[name] for name in names},
        replicates={name: replicates[name] for name in names},
        biased=frozenset().union(*(family.biased for family in families)),
        tallies={k: v for family in families for k, v in family.tallies().items()},
    )


def _distinct(a: IntArray, b: IntArray) -> list[IntArray]:
    return [a] if np.array_equal(a, b) else [a, b]


def _replicates(
    families: Sequence[Family], num_rows: int, num_replicates: int, seed: int
) -> dict[str, FloatArray]:
    names = [name for family in families for name in family.names]
    num_units = families[0].num_units
    if num_units < 2:
        # One cluster always resamples to itself, which measures no spread.
        return {name: np.full(num_replicates, np.nan) for name in names}
    parts: dict[str, list[FloatArray]] = {name: [] for name in names}
    block_size = max(1, _ELEMENTS_PER_BLOCK // num_rows)
    for counts in _draws(num_units, num_replicates, block_size, seed):
        for family in families:
            for name, values in family.evaluate(counts).items():
                parts[name].append(values)
    return {name: np.concatenate([np.empty(0), *part]) for name, part in parts.items()}


def _draws(num_units: int, num_replicates: int, block_size: int, seed: int) -> Iterator[FloatArray]:
    """Yields how often each unit is drawn, [num_units, up to block_size]."""
    rng = np.random.default_rng(seed)
    for start in range(0, num_replicates, block_size):
        size = min(block_size, num_replicates - start)
        drawn = rng.integers(0, num_units, (size, num_units)) * size + np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=num_units * size)
        yield counts.reshape(num_units, size).astype(np.float64)


def _interval(value: float, replicates: FloatArray, is_biased: bool) -> Interval:
    defined = replicates[np.isfinite(replicates)]
    if not np.isfinite(value) or len(defined) < max(1.0, _LEAST_SHARE_DEFINED * len(replicates)):
        return Interval(value, np.nan, np.nan)
    shift = value - defined.mean() if is_biased else 0.0
    low, high = np.quantile(defined, _QUANTILES) + shift
    return Interval(value, float(low), float(high))
