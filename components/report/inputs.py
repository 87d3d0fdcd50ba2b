"""What the page is made from. Anything but the summary and the ranking may be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.report.formatting import clipped
from components.verdict import Verdict
from models.spec.ranking import RankingSpec

Json = Mapping[str, Any]


@dataclass(frozen=True)
class ReportInputs:
    """Everything a run left behind.

    Attributes:
        summary: `summary.json`, of a run in any state.
        ranking: What is ranked.
        training: `training.json` by candidate.
        insights: `insights.json` by candidate.
        accounts: `accounts.json` of LogExampleGen.
        report_data: `report.json` of the Report component.
        predictions: Each candidate's `predictions.parquet`.
        verdicts: What the gates decided, those that ran.
        lags: `lags.json` of LagStudy.
        wants_lags: Whether the configuration asked for it.
        previous_summary: `summary.json` of the newest earlier window that was pushed.
    """

    summary: Json
    ranking: RankingSpec
    training: Mapping[str, Json] = field(default_factory=dict)
    insights: Mapping[str, Json] = field(default_factory=dict)
    accounts: Json | None = None
    report_data: Json | None = None
    predictions: Mapping[str, Path] = field(default_factory=dict)
    verdicts: Sequence[Verdict] = ()
    lags: Json | None = None
    wants_lags: bool = False
    previous_summary: Json | None = None

    @property
    def state(self) -> str:
        """How the run ended: succeeded, refused or failed; `unknown` where nobody wrote it."""
        return str(self.summary.get("state") or "unknown")

    @property
    def candidates(self) -> tuple[str, ...]:
        """Candidates that have metrics, in the summary's order."""
        return tuple(self.summary.get("candidates") or ())

    @property
    def champion(self) -> str | None:
        """Name of the candidate that was chosen."""
        return self.summary.get("champion") or None

    def candidate(self, name: str) -> Json:
        """Returns a candidate's part of the summary, empty where there is none."""
        return (self.summary.get("candidates") or {}).get(name) or {}

    def metric(self, candidate: str, output: str, metric: str) -> Json:
        """Returns ``{value, low, high}`` of a candidate on the test split, empty if not there."""
        return ((self.candidate(candidate).get("metrics") or {}).get(output) or {}).get(
            metric
        ) or {}

    def why_absent(self) -> str:
        """Says in one clause why something was not made."""
        if self.state == "failed":
            error = clipped(str(self.summary.get("error") or "no error was recorded"), 200)
            return f"the run failed before it was made ({error})"
        if self.state == "refused":
            gates = [verdict.gate for verdict in self.verdicts if not verdict.passed]
            by = f" by {', '.join(gates)}" if gates else ""
            return f"the run was refused{by} before it was made"
        return "the run did not write it"
