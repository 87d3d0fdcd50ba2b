"""How labels fill in: what the choice of a cut-off rests on."""

from __future__ import annotations

import numpy as np
import polars as pl

from components.log_example_gen.plan import Plan
from components.log_example_gen.splits import SPLIT
from components.log_example_gen.tally import Tally
from components.log_example_gen.time_index import Ints
from models.spec.keys import TIMESTAMP

_HALVINGS = 10


def age_bounds(window_ms: int) -> tuple[int, ...]:
    """Returns the ages at which labels are looked at: the window halved ten times, ascending."""
    return tuple(sorted({window_ms >> k for k in range(_HALVINGS + 1)} - {0}))


def maturity_counts(column: str, window_ms: int, ages: Ints) -> Tally:
    """Counts how many values of a joined column were final by each age.

    Args:
        column: The column.
        window_ms: Its attribution window.
        ages: Age at which each value became final, as `final_ages` returns them.

    Returns:
        ``("maturity", column, age)``: values final by events younger than the age.
    """
    ordered = np.sort(ages)
    return {
        ("maturity", column, str(bound)): int(np.searchsorted(ordered, bound))
        for bound in age_bounds(window_ms)
    }


def age_counts(rows: pl.DataFrame, plan: Plan) -> Tally:
    """Counts the train rows that are at least so old when their labels are read.

    Args:
        rows: Examples with time and split.
        plan: Tasks and window.

    Returns:
        ``("ages", age)`` for every age that a task's label is looked at.
    """
    cutoff = min(plan.window.train_cutoff, plan.window.cutoff)
    times = np.sort(rows.filter(pl.col(SPLIT) == "train")[TIMESTAMP].to_numpy())
    return {
        ("ages", str(bound)): int(np.searchsorted(times, cutoff - bound, side="right"))
        for bound in _task_bounds(plan)
    }


def maturity_account(tally: Tally, plan: Plan) -> dict[str, object]:
    """Puts the counts together for the report.

    Returns:
        By task whose target joins a stream: ``window_ms``, and for every age, in milliseconds,
        ``known`` (values final by then; the last age's is all of them) and ``rows`` (train rows at
        least so old).
    """
    found: dict[str, object] = {}
    for name, task in sorted(plan.ranking.tasks.items()):
        join = plan.ranking.columns[task.target].join
        if join is not None:
            found[name] = {
                "window_ms": join.window,
                "ages": [
                    {
                        "age_ms": bound,
                        "known": int(tally.get(("maturity", task.target, str(bound)), 0)),
                        "rows": int(tally.get(("ages", str(bound)), 0)),
                    }
                    for bound in age_bounds(join.window)
                ],
            }
    return found


def _task_bounds(plan: Plan) -> list[int]:
    columns = [plan.ranking.columns[task.target] for task in plan.ranking.tasks.values()]
    windows = {column.join.window for column in columns if column.join is not None}
    return sorted({bound for window in windows for bound in age_bounds(window)})
