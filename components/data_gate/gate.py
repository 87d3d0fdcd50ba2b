"""The DataGate's decision, free of TFX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.data_gate import accounts as account_checks
from components.data_gate import features, labels, schema_check
from components.data_gate.categories import new_categories
from components.data_gate.finding import Finding, distinct
from components.data_gate.limits import Limits
from components.data_gate.score import score_warnings
from components.data_gate.statistics import summarize
from components.data_gate.traffic import traffic_findings
from components.data_gate.units import unit_changes
from components.verdict import Verdict
from models.spec.ranking import RankingSpec

NAME = "data_gate"

Statistics = Mapping[str, statistics_pb2.DatasetFeatureStatisticsList]
"""Statistics by split name."""


def judge(
    ranking: RankingSpec,
    limits: Limits,
    accounts: Mapping[str, Any],
    schema: schema_pb2.Schema,
    statistics: Statistics,
    previous: Statistics | None,
    previous_accounts: Mapping[str, Any] | None = None,
) -> Verdict:
    """Decides whether models may be trained on these examples.

    Args:
        ranking: Columns, features and tasks.
        limits: What is too much or too little.
        accounts: The content of `accounts.json`.
        schema: The training schema.
        statistics: Statistics of the examples, by split.
        previous: Those of the window of the last pushed model, if there is one.
        previous_accounts: The accounts of that window.
    """
    reasons = account_checks.account_reasons(ranking, accounts, limits)

    if not any(output.gates for output in ranking.outputs):
        reasons.append(
            "no task has gates: expected at least one gated task, or nothing is checked; remedy: "
            "declare gates on the served tasks"
        )

    train = summarize(statistics["train"])
    reasons += _row_reasons(accounts, statistics)
    constant, warnings = labels.constant_label_reasons(ranking, accounts, train)
    reasons += constant
    warnings = [
        *score_warnings(ranking),
        *account_checks.missing_day_warnings(accounts),
        *account_checks.impossible_label_warnings(ranking, accounts),
        *features.idle_feature_warnings(ranking, train),
        *warnings,
    ]

    changes: list[Finding] = []
    for split in account_checks.SPLITS:
        before = previous["train"] if previous is not None and split == "train" else None
        found, minor, moved = schema_check.validate(
            ranking, schema, statistics[split], before, limits.max_drift
        )
        changes += moved
        reasons += [f"{text} (split {split})" for text in found]
        warnings += [f"{text} (split {split})" for text in minor]
    if previous is not None:
        before_train = summarize(previous["train"])
        for split in account_checks.SPLITS:
            # The newest days are in the test split: what broke yesterday shows there first.
            compared = (ranking, summarize(statistics[split]), before_train, limits, split)
            changes += features.vanished_features(*compared)
            changes += new_categories(*compared)
            changes += unit_changes(*compared)
            changes += labels.label_rate_findings(*compared, summarize(previous[split]))
    if previous_accounts is not None:
        flow, minor = traffic_findings(accounts, previous_accounts, limits)
        changes += flow
        warnings += minor
    changes = distinct(changes)
    waived = [c for c in changes if c.kind in limits.waived.get(c.name, ())]
    reasons += [change.text for change in changes if change not in waived]
    warnings += [f"waived: {change.text}" for change in waived]

    details = {
        "limits": limits.model_dump(),
        "num_rows": {split: summarize(statistics[split]).num_rows for split in statistics},
        "previous_window": previous is not None,
        "changes": [c.as_json() | {"waived": c in waived} for c in changes],
        "warnings": warnings,
    }
    return Verdict(NAME, not reasons, tuple(reasons), details)


def _row_reasons(accounts: Mapping[str, Any], statistics: Statistics) -> list[str]:
    return [
        f"examples: the accounts do not add up: split {split} has {accounts['examples'][split]} "
        f"examples, but its statistics saw {rows}; remedy: report it as a defect of the ingestion"
        for split in account_checks.SPLITS
        if (rows := summarize(statistics[split]).num_rows) != accounts["examples"][split]
    ]
