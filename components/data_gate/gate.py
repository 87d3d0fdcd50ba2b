"""The DataGate's decision, free of TFX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.data_gate import accounts as account_checks
from components.data_gate import features, labels, schema_check
from components.data_gate.limits import Limits
from components.data_gate.statistics import summarize
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
) -> Verdict:
    """Decides whether models may be trained on these examples.

    Args:
        ranking: Columns, features and tasks.
        limits: What is too much or too little.
        accounts: The content of `accounts.json`.
        schema: The training schema.
        statistics: Statistics of the examples, by split.
        previous: Those of the window of the last pushed model, if there is one.
    """
    reasons = account_checks.sum_reasons(accounts)
    reasons += account_checks.dead_letter_reasons(accounts, limits)
    reasons += account_checks.skew_reasons(accounts, limits)
    reasons += account_checks.evidence_reasons(ranking, accounts, limits)

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
        *account_checks.missing_day_warnings(accounts),
        *features.idle_feature_warnings(ranking, train),
        *warnings,
    ]

    for split in account_checks.SPLITS:
        before = previous["train"] if previous is not None and split == "train" else None
        found, minor = schema_check.validate(
            ranking, schema, statistics[split], before, limits.max_drift
        )
        reasons += [f"{text} (split {split})" for text in found]
        warnings += [f"{text} (split {split})" for text in minor]
    if previous is not None:
        before_train = summarize(previous["train"])
        reasons += features.vanished_feature_reasons(ranking, train, before_train, limits)
        reasons += labels.label_rate_reasons(ranking, train, before_train, limits)

    details = {
        "limits": limits.model_dump(),
        "num_rows": {split: summarize(statistics[split]).num_rows for split in statistics},
        "previous_window": previous is not None,
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
