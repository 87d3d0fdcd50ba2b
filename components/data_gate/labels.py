"""Checks of the labels: constant ones, and rates that jumped against the previous window."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from components.data_gate.finding import Finding
from components.data_gate.limits import Limits
from components.data_gate.statistics import SplitSummary
from models.spec.ranking import RankingSpec
from models.spec.task import Output

_CHANCE_ERRORS = 5.0
"""A rate that moved by less than this many standard errors may have moved by chance."""

_RELATIVE_TOLERANCE = 1e-6
"""Labels are float32: a sum of equal ones is exact to about this."""


def constant_label_reasons(
    ranking: RankingSpec, accounts: Mapping[str, Any], train: SplitSummary
) -> tuple[list[str], list[str]]:
    """Finds labels that carry no information in the train split.

    Args:
        ranking: The tasks.
        accounts: Counts and sums of the labels, per split.
        train: Statistics of the train split.

    Returns:
        Reasons to refuse (gated tasks), and warnings (auxiliary tasks and derived outputs).
    """
    reasons: list[str] = []
    warnings: list[str] = []
    for output in ranking.all_outputs:
        finding = _constant(output, accounts["labels"][output.name]["by_split"]["train"], train)
        if finding is None:
            continue
        target = ranking.tasks[output.task].target
        text = (
            f"task {output.task}: {finding} (column {target}, output {output.name}); expected at "
            "least two different values; remedy: check the target's source or join, its "
            "attribution window and keys, or remove the task"
        )
        (reasons if output.gates else warnings).append(text)
    return reasons, warnings


def _constant(output: Output, counts: Mapping[str, Any], train: SplitSummary) -> str | None:
    mature, total = counts["mature"], counts["sum"]
    if not mature:
        return f"none of the {counts['rows']} train rows has a mature label"
    if total == 0 and train.feature(output.label_key).minimum in (0.0, None):
        return f"the label is zero in all {mature} mature train rows"
    summary = train.feature(output.label_key)
    for bound in (summary.minimum, summary.maximum):
        if bound is not None and math.isclose(
            total, bound * mature, rel_tol=_RELATIVE_TOLERANCE, abs_tol=0.0
        ):
            return f"the label is {bound:g} in all {mature} mature train rows"
    return None


def label_rate_findings(
    ranking: RankingSpec,
    now: SplitSummary,
    previous: SplitSummary,
    limits: Limits,
    split: str,
    same_split: SplitSummary,
) -> list[Finding]:
    """Finds served outputs whose mean label jumped against the previous window.

    The mean over the output's sample space is `mean(label) / mean(mask)`, since masked labels are
    0. It may change by `max_drift` of the larger of the two means; a change within five standard
    errors is chance and passes.

    Args:
        ranking: The tasks.
        now: Statistics of the split.
        previous: Statistics of the previous window's train split.
        limits: `max_drift`.
        split: Name of the split.
        same_split: Statistics of this split in the previous window. Labels that are taken as they
            arrive count a positive twice in train, once as a negative, so that only equal splits
            have equal rates.
    """
    findings = []
    for output in ranking.outputs:
        arrive = ranking.tasks[output.task].takes_fake_negatives
        means = [_mean_label(output, each) for each in (same_split if arrive else previous, now)]
        if means[0] is None or means[1] is None:
            continue
        (before, before_error), (after, after_error) = means[0], means[1]
        largest = max(abs(before), abs(after))
        change = abs(after - before) / largest if largest else 0.0
        chance = _CHANCE_ERRORS * math.hypot(before_error, after_error)
        if change > limits.max_drift and abs(after - before) > chance:
            kind = "rate" if output.kind == "binary" else "mean"
            how = "fell" if after < before else "rose"
            findings.append(
                Finding(
                    "label_rate",
                    "task",
                    output.task,
                    f"its label {kind} {how}{_source(ranking, output)}",
                    f"the {kind} of output {output.name}",
                    f"{before:.6g}",
                    f"{after:.6g}, a change of {change:.1%}",
                    f"max_drift {limits.max_drift:.1%}",
                    "check the target's logs, keys and attribution window; if the world did "
                    "change, raise data_checks.max_drift for this run",
                    (split,),
                )
            )
    return findings


def _source(ranking: RankingSpec, output: Output) -> str:
    """Names the stream that a target comes from: a broken join shows as a rate that falls."""
    target = ranking.tasks[output.task].target
    join = ranking.columns[target].join
    return f" (column {target}, joined from {join.stream})" if join else f" (column {target})"


def _mean_label(output: Output, split: SplitSummary) -> tuple[float, float] | None:
    label, mask = split.feature(output.label_key), split.feature(output.mask_key)
    if label.mean is None or label.standard_deviation is None or not mask.mean:
        return None
    error = label.standard_deviation / math.sqrt(split.num_rows)
    return label.mean / mask.mean, error / mask.mean
