"""Checks of single features: vanished ones, and those that carry nothing."""

from __future__ import annotations

from components.data_gate.finding import Finding, share
from components.data_gate.limits import Limits
from components.data_gate.statistics import SplitSummary
from models.spec.ranking import RankingSpec


def idle_feature_warnings(ranking: RankingSpec, train: SplitSummary) -> list[str]:
    """Names features that are constant or entirely missing: useless, yet no reason to refuse."""
    warnings = []
    for feature in ranking.training_features:
        summary = train.feature(feature.name)
        if not summary.num_present:
            warnings.append(f"column {feature.name}: no train row has a value")
        elif summary.is_constant and feature.length is None:
            missing = f"; {summary.missing_rate:.1%} missing" if summary.missing_rate else ""
            warnings.append(f"column {feature.name}: constant in the train split{missing}")
    return warnings


def vanished_features(
    ranking: RankingSpec, now: SplitSummary, previous: SplitSummary, limits: Limits, split: str
) -> list[Finding]:
    """Finds features that had values in the previous window and lost them.

    A feature may not go from some values to none, nor may its missing rate rise by more than
    `max_drift`.
    """
    findings = []
    for feature in ranking.training_features:
        before = previous.feature(feature.name).missing_rate
        after = now.feature(feature.name).missing_rate
        vanished = after == 1.0 and before < 1.0
        if vanished or after - before > limits.max_drift:
            findings.append(
                Finding(
                    "vanished",
                    "column",
                    feature.name,
                    "vanished, no row has a value" if vanished else "is missing more often",
                    "its missing rate",
                    share(before),
                    share(after),
                    f"max_drift {share(limits.max_drift)}",
                    "find out why the log stopped carrying it; remove it from the columns if it "
                    "is gone for good",
                    (split,),
                )
            )
    return findings
