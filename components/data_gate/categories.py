"""Values of categorical features that the previous window did not have."""

from __future__ import annotations

from components.data_gate.finding import Finding, share
from components.data_gate.limits import Limits
from components.data_gate.statistics import SplitSummary
from models.spec.feature import SharedEncoding
from models.spec.ranking import RankingSpec


def new_categories(
    ranking: RankingSpec, now: SplitSummary, previous: SplitSummary, limits: Limits, split: str
) -> list[Finding]:
    """Finds values of a string feature that are frequent now and were absent before.

    A value is frequent if it alone takes more than `max_new_category` of the values. Users, items
    and other keys come and go, so they are not judged, nor is what shares their values (a
    history of items); nor are features whose values the statistics could not list whole (more than
    about a thousand).
    """
    keys = frozenset(ranking.key_columns)
    findings = []
    for feature in ranking.training_features:
        shared = feature.encoding.feature if isinstance(feature.encoding, SharedEncoding) else None
        if keys & {feature.name, shared}:
            continue
        before, after = previous.feature(feature.name), now.feature(feature.name)
        if not before.counts or not before.lists_all or not after.counts:
            continue
        total = sum(after.counts.values())
        new = {
            value: count / total
            for value, count in after.counts.items()
            if value and value not in before.counts and count > limits.max_new_category * total
        }
        if not new:
            continue
        value = max(sorted(new), key=lambda each: new[each])
        more = f" and {len(new) - 1} more" if len(new) > 1 else ""
        findings.append(
            Finding(
                "new_category",
                "column",
                feature.name,
                f"new category {value!r}{more}, of {len(before.counts)} known ones none",
                "its share of the values",
                "0",
                share(new[value]),
                f"max_new_category {share(limits.max_new_category)}",
                "find out whether the log writes an old value in a new way; if the world did "
                "change, raise data_checks.max_new_category for this run",
                (split,),
            )
        )
    return findings
