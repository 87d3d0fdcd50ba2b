"""A change against the previous window: what, where, before, after, the limit, the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from models.spec.anomaly import AnomalyKind


@dataclass(frozen=True)
class Finding:
    """One change that a run is refused for.

    Attributes:
        kind: What kind of change.
        subject: `column`, `task` or `stream`.
        name: Its name in the configuration.
        what: What changed, in words.
        measure: What the two figures are.
        before: The figure of the previous window.
        after: That of this one.
        limit: The key under `data_checks` and its value.
        remedy: What to do.
        splits: Splits in which it was found; empty for whole logs.
    """

    kind: AnomalyKind
    subject: str
    name: str
    what: str
    measure: str
    before: str
    after: str
    limit: str
    remedy: str
    splits: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The finding as one sentence."""
        where = f" (split {', '.join(self.splits)})" if self.splits else ""
        return (
            f"{self.subject} {self.name}: {self.what}{where}; {self.measure} went from "
            f"{self.before} in the previous window to {self.after}, limit {self.limit}; remedy: "
            f"{self.remedy}, or waive it with data_checks.waived: {{{self.name}: [{self.kind}]}}"
        )

    def as_json(self) -> dict[str, Any]:
        """The finding for the gate's details."""
        return asdict(self) | {"splits": list(self.splits)}


_HIDES: Mapping[AnomalyKind, frozenset[AnomalyKind]] = {
    "vanished": frozenset({"distribution", "unit_change", "new_category"}),
    "unit_change": frozenset({"distribution", "label_rate"}),
    "new_category": frozenset({"distribution"}),
}
"""A change that has a name is not told a second time in general terms."""


def distinct(findings: Iterable[Finding]) -> list[Finding]:
    """Tells each change once: the same one of several splits together, the most telling kind."""
    merged: dict[tuple[str, str, str], Finding] = {}
    for finding in findings:
        key = (finding.kind, finding.subject, finding.name)
        known = merged.get(key)
        splits = (*(known.splits if known else ()), *finding.splits)
        merged[key] = replace(known or finding, splits=tuple(dict.fromkeys(splits)))
    hidden = {
        (general, finding.subject, finding.name)
        for finding in merged.values()
        for general in _HIDES.get(finding.kind, frozenset())
    }
    return [finding for key, finding in merged.items() if key not in hidden]


def share(value: float) -> str:
    """Formats a share."""
    return f"{value:.1%}"
