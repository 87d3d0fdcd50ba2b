"""What became of every row: counts that add up, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from components.log_example_gen.maturity import maturity_account
from components.log_example_gen.plan import Plan
from components.log_example_gen.skew import skew_account
from components.log_example_gen.spec import Window
from components.log_example_gen.splits import SPLIT, SPLITS
from components.log_example_gen.tally import Tally, as_float, exact_sums
from components.log_example_gen.traffic import traffic
from models.spec.errors import DataError, PolyrankError
from models.spec.keys import TIMESTAMP
from models.spec.ranking import IMPRESSIONS, RankingSpec

_DAY_MS = 86_400_000
_MAX_NAMED = 5


class UselessData(DataError):
    """The logs were read, but leave nothing to train on or to measure.

    Attributes:
        accounts: What became of every row.
    """

    def __init__(self, found: dict[str, Any], what: str, **parts: Any) -> None:
        """Keeps the accounts beside the message."""
        super().__init__(what, **parts)
        self.accounts = found


def dead_counts(dead: pl.DataFrame) -> Tally:
    """Counts dead letters by stream and reason."""
    counts = dead.group_by("stream", "reason").len()
    return {("rows", stream, "dead", reason): n for stream, reason, n in counts.iter_rows()}


def row_counts(stream_name: str, **counts: int) -> Tally:
    """Counts rows of a stream: read, used, duplicates."""
    return {("rows", stream_name, kind): count for kind, count in counts.items()}


def misfit_counts(stream_name: str, misfits: Mapping[str, int]) -> Tally:
    """Counts rows of a stream with a value that does not fit its column, by column."""
    return {("misfits", stream_name, column): count for column, count in misfits.items()}


def dead_text(dead: Mapping[str, int], misfits: Mapping[str, int]) -> str:
    """Says how many rows died of what, most first, and which columns made them malformed.

    Args:
        dead: Counts by reason.
        misfits: Counts by column.
    """
    columns = _counts_text(misfits)
    return _counts_text(dead) + (
        f"; values that do not fit their column: {columns}" * bool(columns)
    )


def _counts_text(counts: Mapping[str, int]) -> str:
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MAX_NAMED]
    return ", ".join(f"{count} {name}" for name, count in most)


def label_counts(rows: pl.DataFrame, ranking: RankingSpec) -> Tally:
    """Counts labels by day and by split.

    Args:
        rows: Examples with time, split, labels and masks.
        ranking: Outputs.

    Returns:
        For each output and each day or split: rows; mature (rows whose label counts); sum (of
        their labels); impossible (final labels in its sample space that the task's
        kind does not allow).
    """
    if rows.is_empty():
        return {}
    day = pl.from_epoch(pl.col(TIMESTAMP) // _DAY_MS, time_unit="d").cast(pl.String)
    tally: Tally = {}
    for kind, key in (("by_day", day), ("by_split", pl.col(SPLIT))):
        grouped = rows.group_by(key.alias("key")).agg(
            pl.len().alias("rows"),
            *(
                expression
                for output in ranking.all_outputs
                for expression in (
                    pl.col(output.mask_key).sum().cast(pl.Int64),
                    pl.col(f"{output.name}__impossible").sum(),
                )
            ),
        )
        sums = {
            output.name: exact_sums(rows.select(key).to_series(), rows[output.label_key])
            for output in ranking.all_outputs
        }
        for row in grouped.iter_rows(named=True):
            for output in ranking.all_outputs:
                path = ("labels", output.name, kind, row["key"])
                tally[(*path, "rows")] = row["rows"]
                tally[(*path, "mature")] = row[output.mask_key]
                tally[(*path, "sum")] = sums[output.name].get(row["key"], 0)
                tally[(*path, "impossible")] = row[f"{output.name}__impossible"]
    return tally


def accounts(tally: Tally, plan: Plan) -> dict[str, Any]:
    """Puts the counts into their final form and checks that they add up.

    Args:
        tally: All counts of a run.
        plan: Streams, outputs, window.

    Returns:
        The contents of ``accounts.json``: `window`, `rows` by stream (read = used + duplicates +
        dead; counted after exploding), `examples` (exploded = the impressions without exact
        duplicates = dead + train + validation + test + outside), `labels` by output, day and
        split, `misfits` by stream and column, `sampling` by task (negatives of the train split and
        how many of them are kept), `maturity` by task (see `maturity_account`), `skew` by
        logged feature and split, and `traffic` by log and day.

    Raises:
        PolyrankError: The sums do not hold: a fault of this package.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name in plan.sources:
        read, used, duplicates = (
            int(tally.get(("rows", name, kind), 0)) for kind in ("read", "used", "duplicates")
        )
        prefix = ("rows", name, "dead")
        dead = {path[3]: int(n) for path, n in sorted(tally.items()) if path[:3] == prefix}
        rows[name] = {"read": read, "used": used, "duplicates": duplicates, "dead": dead}
        _check(name, read, used + duplicates + sum(dead.values()))
    splits = {kind: int(tally.get(("examples", kind), 0)) for kind in (*SPLITS, "outside")}
    impressions = rows[IMPRESSIONS]
    _check("examples", int(tally.get(("rows", IMPRESSIONS, "used"), 0)), sum(splits.values()))
    return {
        "window": _window(plan.window),
        "rows": rows,
        "examples": {
            "exploded": impressions["read"] - impressions["duplicates"],
            "dead": impressions["dead"],
            **splits,
        },
        "labels": {output.name: _labels(tally, output.name) for output in plan.ranking.all_outputs},
        "misfits": {
            name: {p[2]: int(n) for p, n in sorted(tally.items()) if p[:2] == ("misfits", name)}
            for name in plan.sources
        },
        "sampling": {
            name: {
                kind: int(tally.get(("sampling", name, kind), 0)) for kind in ("negatives", "kept")
            }
            for name, task in sorted(plan.ranking.tasks.items())
            if task.negative_rate < 1
        },
        "maturity": maturity_account(tally, plan),
        "skew": skew_account(tally, plan),
        "traffic": traffic(tally, list(plan.sources)),
    }


def refuse_useless(found: dict[str, Any]) -> None:
    """Refuses data that leave nothing to train on or to measure.

    Args:
        found: What `accounts` returned.

    Raises:
        UselessData: A split is empty, or no row of a task holds a possible label.
    """
    examples = found["examples"]
    for split in SPLITS:
        if examples[split] == 0:
            raise UselessData(
                found,
                f"the {split} split has no example",
                constraint="at least one usable impression in each of train, validation and test",
                received=", ".join(f"{key} {examples[key]}" for key in (*SPLITS, "outside"))
                + (f"; dead: {dead_text(examples['dead'], found['misfits'][IMPRESSIONS])}"),
                remedy="look at the dead letters' reasons, and at splits in the configuration",
            )
    for output, counts in found["labels"].items():
        totals = [
            sum(split[kind] for split in counts["by_split"].values())
            for kind in ("mature", "impossible")
        ]
        if totals[0] == 0 and totals[1] > 0:
            raise UselessData(
                found,
                f"no label of {output!r} is possible",
                constraint="0 or 1 for a binary task, 0 or more for a duration or count",
                received=f"{totals[1]} other values",
                remedy="change the task's kind, or compute its target with an expression",
            )


def _check(what: str, left: int, right: int) -> None:
    if left != right:
        raise PolyrankError(
            f"the accounts of {what!r} do not add up",
            constraint="read = used + duplicates + dead",
            received=f"{left} and {right}",
            remedy="report this: no row may be lost",
        )


def _window(window: Window) -> dict[str, Any]:
    return {
        "train": [window.train_start, window.validation_start],
        "validation": [window.validation_start, window.test_start],
        "test": [window.test_start, window.test_end],
        "train_cutoff": window.train_cutoff,
        "cutoff": window.cutoff,
    }


def _labels(tally: Tally, output: str) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {"by_day": {}, "by_split": {}}
    for path, count in sorted(tally.items()):
        if path[:2] == ("labels", output):
            value = as_float(count) if path[4] == "sum" else count
            found[path[2]].setdefault(path[3], {})[path[4]] = value
    return found
