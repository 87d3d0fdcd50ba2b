"""Numbers that grew or shrank by a factor: seconds that became milliseconds."""

from __future__ import annotations

import math

from components.data_gate.finding import Finding
from components.data_gate.limits import Limits
from components.data_gate.statistics import FeatureSummary, SplitSummary
from models.spec.ranking import RankingSpec

_COUNTED = ("count", "age", "recency")
"""As-of features whose unit is ours: nobody else can change it."""


def unit_changes(
    ranking: RankingSpec, now: SplitSummary, previous: SplitSummary, limits: Limits, split: str
) -> list[Finding]:
    """Finds numeric features and targets that are larger or smaller by a factor.

    A change of unit multiplies the median and the standard deviation alike, so both must have
    moved by more than `max_unit_ratio`: a number around 0 may have any median. Where half the
    values are 0 the mean of the others stands for the median.
    """
    findings = []
    for name in _measured_columns(ranking):
        ratio = _ratio(previous.feature(name), now.feature(name), limits)
        if ratio is not None:
            findings.append(_finding("column", name, ratio, limits, split))
    for output in ranking.outputs:
        if output.kind == "binary":
            continue
        ratio = _ratio(previous.feature(output.label_key), now.feature(output.label_key), limits)
        if ratio is not None:
            findings.append(_finding("task", output.task, ratio, limits, split))
    return findings


def _measured_columns(ranking: RankingSpec) -> list[str]:
    names = []
    for feature in ranking.training_features:
        derived = ranking.features.get(feature.name)
        if feature.dtype == "string" or feature.origin in ("rate", "slate"):
            continue
        as_of = derived.as_of if derived is not None and derived.source == "computed" else None
        if as_of is None or as_of.aggregate not in _COUNTED:
            names.append(feature.name)
    return names


def _ratio(
    before: FeatureSummary, after: FeatureSummary, limits: Limits
) -> tuple[float, float] | None:
    """Returns the typical values if they and the spread moved by more than the limit."""
    if before.median and after.median:
        old, new = before.median, after.median
    elif before.mean_of_nonzero and after.mean_of_nonzero:
        old, new = before.mean_of_nonzero, after.mean_of_nonzero
    else:
        return None
    if old * new <= 0:
        return None
    factors = [new / old]
    if before.standard_deviation and after.standard_deviation:
        factors.append(after.standard_deviation / before.standard_deviation)
    logs = [math.log(factor) for factor in factors]
    bound = math.log(limits.max_unit_ratio)
    moved = all(each > bound for each in logs) or all(each < -bound for each in logs)
    return (old, new) if moved else None


def _finding(
    subject: str, name: str, typical: tuple[float, float], limits: Limits, split: str
) -> Finding:
    old, new = typical
    factor = new / old
    how = f"{factor:.4g} times as large" if factor > 1 else f"{1 / factor:.4g} times smaller"
    return Finding(
        "unit_change",
        subject,
        name,
        f"looks like another unit, {how}",
        "its median",
        f"{old:.4g}",
        f"{new:.4g}",
        f"max_unit_ratio {limits.max_unit_ratio:g}",
        "make the log write its old unit (seconds, not milliseconds), or convert it with an "
        "expression",
        (split,),
    )
