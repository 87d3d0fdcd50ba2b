"""Differences between candidates that count both what seeds and what users make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from components.report.comparisons import single_task_candidate
from components.report.headline import headline_metric
from models.metrics.columns import TaskColumns
from models.metrics.estimation import Resampled, resample
from models.spec.ranking import RankingSpec
from models.spec.task import Output
from models.spec.training import Candidate

ALL_ROWS = "all"
"""Name of the slice of everybody."""

Predictions = Mapping[tuple[str, bool], Sequence[Mapping[str, NDArray[Any]]]]
"""(candidate, with auxiliary tasks) to one mapping per seed: output name to [rows]."""


@dataclass(frozen=True)
class TestRows:
    """What the predictions on the test split are compared by, [rows] each.

    Attributes:
        columns: Label and weight of every output, by their keys.
        group: What GAUC and NDCG rank in.
        user: What is resampled.
        slices: Values by slice column.
    """

    __test__ = False

    columns: Mapping[str, NDArray[Any]]
    group: NDArray[Any]
    user: NDArray[Any]
    slices: Mapping[str, NDArray[Any]]

    def masks(self) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Yields name and rows of every slice, everybody first."""
        yield ALL_ROWS, np.ones(len(self.user), bool)
        for column, values in self.slices.items():
            for value in np.unique(values):
                yield f"{column}={value}", values == value


def compare(
    ranking: RankingSpec,
    candidates: Mapping[str, Candidate],
    rows: TestRows,
    predictions: Predictions,
    num_replicates: int,
) -> dict[str, Any]:
    """Compares with against without auxiliary tasks, and every candidate against single_task.

    Args:
        ranking: What is ranked.
        candidates: The candidates by name; one of them has architecture single_task.
        rows: The test rows.
        predictions: Of all candidates, the same seeds in the same order.
        num_replicates: Resamples of the users.

    Returns:
        JSON values. ``metrics``: output to the metric compared; ``values``: candidate, on or off,
        output to the mean over seeds; ``auxiliary``: candidate, output to on minus off;
        ``transfer``: candidate, slice, output to candidate minus single_task, both with the
        auxiliary tasks. See `difference` for what a difference holds.
    """
    reference = single_task_candidate(candidates)
    assert reference is not None, "negative transfer needs a single_task to compare with"
    outputs = ranking.outputs
    metrics = {output.name: headline_metric(output, ranking) for output in outputs}
    values: dict[str, dict[str, dict[str, float]]] = {}
    auxiliary: dict[str, dict[str, Any]] = {}
    transfer: dict[str, dict[str, dict[str, Any]]] = {}
    for name, mask in rows.masks():
        for output in outputs:
            measured = _measured(output, metrics[output.name], rows, mask, num_replicates)
            on = {c: [measured(p) for p in predictions[c, True]] for c in candidates}
            for candidate in candidates:
                if candidate != reference:
                    found = transfer.setdefault(candidate, {}).setdefault(name, {})
                    found[output.name] = difference(on[candidate], on[reference])
                if name == ALL_ROWS:
                    off = [measured(p) for p in predictions[candidate, False]]
                    found = auxiliary.setdefault(candidate, {})
                    found[output.name] = difference(on[candidate], off)
                    for side, seeds in (("on", on[candidate]), ("off", off)):
                        by_output = values.setdefault(candidate, {}).setdefault(side, {})
                        by_output[output.name] = float(np.mean([_value(r) for r in seeds]))
    return {
        "reference": reference,
        "metrics": metrics,
        "values": values,
        "auxiliary": auxiliary,
        "transfer": transfer,
    }


def difference(ours: Sequence[Resampled], theirs: Sequence[Resampled]) -> dict[str, Any] | None:
    """Averages paired differences over seeds, with an interval for new seeds and new users.

    Two things would come out otherwise another time: how the seeds fall, whose half-width is that
    of a t-interval over the paired differences, and who is in the test split, whose half-widths are
    those of the percentile interval of the mean difference over resampled users. The two are
    independent, so their half-widths add in squares.

    Args:
        ours: One metric of one model under each seed, on the same rows and draws.
        theirs: The same of the other model.

    Returns:
        ``value``, ``low``, ``high`` (95 %), ``seeds`` (the difference under each), and ``users``
        (the percentile interval over users alone); None where the metric is undefined.
    """
    seeds = np.array([_value(a) - _value(b) for a, b in zip(ours, theirs, strict=True)])
    drawn = np.mean([_drawn(a) - _drawn(b) for a, b in zip(ours, theirs, strict=True)], axis=0)
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(seeds).all() or len(drawn) == 0:
        return None
    mean = float(seeds.mean())
    low, high = np.quantile(drawn, (0.025, 0.975))
    of_seeds = float(stats.sem(seeds) * stats.t.ppf(0.975, len(seeds) - 1))
    return {
        "value": mean,
        "low": mean - float(np.hypot(of_seeds, max(mean - low, 0.0))),
        "high": mean + float(np.hypot(of_seeds, max(high - mean, 0.0))),
        "seeds": seeds.tolist(),
        "users": [float(low), float(high)],
    }


def _measured(
    output: Output, metric: str, rows: TestRows, mask: NDArray[np.bool_], num_replicates: int
) -> Callable[[Mapping[str, NDArray[Any]]], Resampled]:
    """Returns a function that resamples the metric of one output on the rows of a slice."""

    def measured(predictions: Mapping[str, NDArray[Any]]) -> Resampled:
        columns = TaskColumns(
            label=rows.columns[output.label_key][mask],
            prediction=predictions[output.name][mask],
            weight=rows.columns[output.weight_key][mask],
            group=rows.group[mask],
            cluster=rows.user[mask],
        )
        return resample([metric], columns, num_replicates=num_replicates, seed=0)

    return measured


def _value(resampled: Resampled) -> float:
    (value,) = resampled.values.values()
    return value


def _drawn(resampled: Resampled) -> NDArray[np.float64]:
    (replicates,) = resampled.replicates.values()
    return replicates
