"""Every candidate against single_task and the floors, and against itself without auxiliary tasks.

All differences are paired: both models on the same test rows, and in the same resamples of users.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from components.report.floor_scores import FLOORS, FloorScores
from models.metrics.columns import FloatArray, IntArray, TaskColumns
from models.metrics.estimation import Interval, Resampled, resample
from models.spec.errors import DataError
from models.spec.ranking import RankingSpec
from models.spec.training import Candidate

SCHEMA_VERSION = 1

Differences = dict[str, dict[str, dict[str, float | None]]]
"""Output name to metric to ``{value, low, high}``; None where undefined."""


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Attributes:
        num_replicates: Number of resamples of the users.
        seed: Seed of the draws.
    """

    num_replicates: int
    seed: int


def report_data(
    ranking: RankingSpec,
    candidates: Mapping[str, Candidate],
    predictions: Mapping[str, pa.Table],
    floors: Mapping[str, FloorScores],
    resampling: Resampling,
) -> dict[str, Any]:
    """Computes the content of `report.json`.

    Args:
        ranking: What is ranked.
        candidates: Candidates by name.
        predictions: Test rows of each candidate, the same rows in the same order.
        floors: Scores of the floors, in that row order.
        resampling: How intervals are made.

    Returns:
        JSON values. `floors`: metrics of each floor; `comparisons`: candidate minus reference by
        candidate, reference, output and metric; `single_task`: the candidate that stands for it, or
        None; `auxiliary`: with minus without auxiliary tasks for each pair of candidates that
        differ in nothing else; `notes`: what could not be compared, and why.

    Raises:
        DataError: The candidates' rows differ.
    """
    _require_same_rows(ranking, predictions)
    single_task = single_task_candidate(candidates)
    pairs = auxiliary_pairs(candidates)
    first = next(iter(predictions.values()))
    group, cluster = (_codes(first[c]) for c in (ranking.group_column, ranking.user))
    measured: dict[str, dict[str, Resampled]] = {n: {} for n in [*FLOORS, *candidates]}
    for output in ranking.outputs:
        label, weight = (_number(first[k]) for k in (output.label_key, output.weight_key))
        scores = {n: t[f"{output.name}__prediction"] for n, t in predictions.items()}
        scores |= {
            n: floors[n].predictions[output.name]
            for n in FLOORS
            if output.name in floors[n].predictions
        }
        for name, score in scores.items():
            measured[name][output.name] = resample(
                output.metrics,
                TaskColumns(label, _number(score), weight, group, cluster),
                num_replicates=resampling.num_replicates,
                seed=resampling.seed,
            )
    references = [*([single_task] if single_task else []), *FLOORS]
    return {
        "schema_version": SCHEMA_VERSION,
        "split": "test",
        "rows": first.num_rows,
        "num_replicates": resampling.num_replicates,
        "seed": resampling.seed,
        "single_task": single_task,
        "floors": {n: _metrics(measured[n]) for n in FLOORS},
        "comparisons": {
            name: {
                reference: _differences(measured[name], measured[reference])
                for reference in references
                if reference != name
            }
            for name in candidates
        },
        "auxiliary": [
            {"on": on, "off": off, "differences": _differences(measured[on], measured[off])}
            for on, off in pairs
        ],
        "notes": [*_notes(ranking, candidates, single_task, pairs), *_floor_notes(floors)],
    }


def single_task_candidate(candidates: Mapping[str, Candidate]) -> str | None:
    """Returns the candidate that stands for single_task: the one so named, else the first."""
    names = [n for n, c in candidates.items() if c.model.architecture == "single_task"]
    return "single_task" if "single_task" in names else names[0] if names else None


def auxiliary_pairs(candidates: Mapping[str, Candidate]) -> list[tuple[str, str]]:
    """Returns (with, without) for candidates that differ only in `auxiliary`."""
    off = {n: c.model_copy(update={"auxiliary": True}) for n, c in candidates.items()}
    return [
        (on_name, off_name)
        for on_name, on in candidates.items()
        for off_name, candidate in candidates.items()
        if on.auxiliary and not candidate.auxiliary and on == off[off_name]
    ]


def _notes(
    ranking: RankingSpec,
    candidates: Mapping[str, Candidate],
    single_task: str | None,
    pairs: Sequence[tuple[str, str]],
) -> list[str]:
    notes = []
    if single_task is None:
        notes.append(
            "No candidate is a single_task, so what sharing brings is not measured. Add one under "
            "candidates, e.g. single_task: {model: {architecture: single_task}}."
        )
    if not ranking.auxiliary_tasks:
        notes.append("There are no auxiliary tasks, so there is nothing to switch off.")
    elif not pairs:
        notes.append(
            "What the auxiliary tasks bring is not measured: no two candidates differ only in "
            f"auxiliary. Add a copy of one of {', '.join(candidates)} with auxiliary: false."
        )
    return notes


def _floor_notes(floors: Mapping[str, FloorScores]) -> Iterable[str]:
    reasons = {(o, r): None for floor in floors.values() for o, r in floor.absent.items()}
    return [f"No floor for {output}: {reason}." for output, reason in reasons]


def _require_same_rows(ranking: RankingSpec, predictions: Mapping[str, pa.Table]) -> None:
    shared = ["timestamp", *ranking.key_columns]
    shared += [key for o in ranking.outputs for key in (o.label_key, o.weight_key)]
    first_name, first = next(iter(predictions.items()))
    for name, table in predictions.items():
        for column in shared:
            if not table[column].equals(first[column]):
                raise DataError(
                    f"candidates {first_name} and {name} were scored on different rows",
                    constraint="the same test rows in the same order",
                    received=f"{first.num_rows:,} and {table.num_rows:,} rows; {column} differs",
                    remedy="run the scoring step of both on the same examples",
                )


def _codes(column: Any) -> IntArray:
    codes: IntArray = (
        column.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    )
    return codes


def _number(column: Any) -> FloatArray:
    return np.asarray(column, np.float64)


def _metrics(measured: Mapping[str, Resampled]) -> Differences:
    return {o: _plain(resampled.intervals()) for o, resampled in measured.items()}


def _differences(
    measured: Mapping[str, Resampled], reference: Mapping[str, Resampled]
) -> Differences:
    return {o: _plain(measured[o].less(reference[o])) for o in measured if o in reference}


def _plain(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    return {
        metric: {
            key: value if math.isfinite(value) else None
            for key, value in (("value", i.value), ("low", i.low), ("high", i.high))
        }
        for metric, i in intervals.items()
    }
