"""Checks of the ingestion's accounts: sums, dead letters, and evidence for the gated tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from components.data_gate.limits import Limits
from components.log_example_gen.accounts import dead_text
from models.spec.ranking import RankingSpec

FILE_NAME = "accounts.json"
SPLITS = ("train", "validation", "test")

_MAX_DAYS_NAMED = 5

_NOT_LOST = ("after_cutoff", "erased")
"""Reasons of rows that are left out on purpose: those that exist only after the time at which the
run looks at the world, and those of people on the erasure list."""


def read_accounts(directory: str) -> dict[str, Any]:
    """Reads `accounts.json` from the accounts artifact."""
    content: dict[str, Any] = json.loads((Path(directory) / FILE_NAME).read_text())
    return content


def account_reasons(ranking: RankingSpec, accounts: Mapping[str, Any], limits: Limits) -> list[str]:
    """Refuses what the accounts alone can tell, without statistics of the examples."""
    return [
        *sum_reasons(accounts),
        *dead_letter_reasons(accounts, limits),
        *skew_reasons(accounts, limits),
        *evidence_reasons(ranking, accounts, limits),
    ]


def sum_reasons(accounts: Mapping[str, Any]) -> list[str]:
    """Refuses accounts that do not add up: rows were lost or counted twice.

    Checks per stream `read = used + duplicates + dead`, and for the examples `exploded = dead +
    train + validation + test + outside the window`.
    """
    remedy = "remedy: report it as a defect of the ingestion; its examples are not to be trusted"
    reasons = []
    for stream, rows in sorted(accounts["rows"].items()):
        parts = rows["used"] + rows["duplicates"] + sum(rows["dead"].values())
        if rows["read"] != parts:
            reasons.append(
                f"stream {stream}: the accounts do not add up: read {rows['read']}, but used "
                f"{rows['used']} + duplicates {rows['duplicates']} + dead "
                f"{sum(rows['dead'].values())} = {parts}; {remedy}"
            )
    examples = accounts["examples"]
    parts = sum(
        sum(value.values()) if isinstance(value, Mapping) else value
        for name, value in examples.items()
        if name != "exploded"
    )
    if examples["exploded"] != parts:
        reasons.append(
            f"examples: the accounts do not add up: exploded {examples['exploded']}, but the dead, "
            f"the splits and those outside the window are {parts}; {remedy}"
        )
    for output, label in sorted(accounts["labels"].items()):
        for split, counts in sorted(label["by_split"].items()):
            if counts["rows"] != examples[split] or counts["mature"] > counts["rows"]:
                reasons.append(
                    f"output {output}: the accounts do not add up: split {split} has "
                    f"{examples[split]} examples, but {counts['rows']} label rows, "
                    f"{counts['mature']} of them mature; {remedy}"
                )
    return reasons


def dead_letter_reasons(accounts: Mapping[str, Any], limits: Limits) -> list[str]:
    """Refuses a stream that lost too many rows, naming what they mostly died of.

    Rows after the cut-off are not lost, a run for an earlier date must not see them; nor are those
    of people who were erased.
    """
    reasons = []
    for name, rows in sorted(accounts["rows"].items()):
        dead = {r: n for r, n in rows["dead"].items() if r not in _NOT_LOST}
        total = rows["read"] - sum(rows["dead"].get(r, 0) for r in _NOT_LOST)
        num_dead = sum(dead.values())
        if num_dead <= limits.max_dead_rate * total:
            continue
        told = dead_text(dead, accounts["misfits"].get(name, {}))
        reasons.append(
            f"stream {name}: {num_dead} of {total} rows are dead letters, {num_dead / total:.2%}, "
            f"limit max_dead_rate {limits.max_dead_rate:.2%}: {told}; "
            "remedy: look at the dead letters (runs keep them in dead_letters.parquet), mend the "
            "log or its declaration, or raise data_checks.max_dead_rate"
        )
    return reasons


def missing_day_warnings(accounts: Mapping[str, Any]) -> list[str]:
    """Names days without an impression between the first and the last one with some."""
    days = {
        date.fromisoformat(day).toordinal()
        for label in accounts["labels"].values()
        for day in label["by_day"]
    }
    gaps = sorted(set(range(min(days), max(days))) - days) if days else []
    if not gaps:
        return []
    shown = ", ".join(date.fromordinal(day).isoformat() for day in gaps[:_MAX_DAYS_NAMED])
    more = ", ..." if len(gaps) > _MAX_DAYS_NAMED else ""
    return [f"impressions: {len(gaps)} day(s) without a row: {shown}{more}"]


def impossible_label_warnings(ranking: RankingSpec, accounts: Mapping[str, Any]) -> list[str]:
    """Names tasks of which some labels are values that their kind does not allow.

    They are masked, so a sentinel such as -1 seconds would otherwise thin a task out unnoticed.
    """
    warnings = []
    for name, task in ranking.tasks.items():
        by_split = accounts["labels"][ranking.outputs_of(name)[0].name]["by_split"].values()
        impossible = sum(counts["impossible"] for counts in by_split)
        if impossible:
            mature = sum(counts["mature"] for counts in by_split)
            allowed = "0 or 1" if task.kind == "binary" else "finite"
            allowed = "0 or more" if task.kind in ("duration", "count") else allowed
            warnings.append(
                f"task {name}: {impossible} of {impossible + mature} final labels (column "
                f"{task.target}) are not {allowed} and do not count"
            )
    return warnings


def skew_reasons(accounts: Mapping[str, Any], limits: Limits) -> list[str]:
    """Refuses logged features that are not what the logs say they were.

    A model trained on values that the feature store got wrong, or got early, learns what serving
    will not see.
    """
    reasons = []
    for name, by_split in sorted(accounts.get("skew", {}).items()):
        for split, counts in by_split.items():
            share = counts["differing"] / counts["rows"] if counts["rows"] else 0.0
            if share > limits.max_skew:
                mean = counts["absolute"] / counts["both"] if counts["both"] else 0.0
                reasons.append(
                    f"feature {name}: the logged value differs from our own computation in "
                    f"{share:.1%} of {counts['rows']} rows (split {split}), by {mean:.6g} on "
                    f"average, limit max_skew {limits.max_skew:.1%}; remedy: compare the feature "
                    "store's window, condition and delay with the declaration (availability_lag), "
                    "or raise data_checks.max_skew"
                )
    return reasons


def evidence_reasons(
    ranking: RankingSpec, accounts: Mapping[str, Any], limits: Limits
) -> list[str]:
    """Refuses a gated task that the test split cannot say anything about.

    A gated output needs `min_rows` mature test rows, a binary one also `min_positives` positives.
    """
    reasons = []
    for output in ranking.outputs:
        if not output.gates:
            continue
        counts = accounts["labels"][output.name]["by_split"]["test"]
        mask = ranking.tasks[output.task].mask
        if counts["mature"] < limits.min_rows:
            reasons.append(
                f"task {output.task}: {counts['mature']} mature test rows"
                f"{f' with {mask} true' if mask else ''} (of {counts['rows']}), "
                f"limit evaluation.min_rows {limits.min_rows}: too little evidence for its gates; "
                "remedy: a longer test window, or one that ends at least the task's attribution "
                f"window ({ranking.task_maturity_ms(output.task) / 3_600_000:g} h) before the "
                "cut-off, or lower evaluation.min_rows"
            )
        elif output.kind == "binary" and counts["sum"] < limits.min_positives:
            reasons.append(
                f"task {output.task}: {counts['sum']:g} positives among {counts['mature']} mature "
                f"test rows, limit evaluation.min_positives {limits.min_positives}: too little "
                "evidence for its gates; remedy: a longer test window, make the task auxiliary, "
                "or lower evaluation.min_positives"
            )
    return reasons
