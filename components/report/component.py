"""Report: floors and paired comparisons, for the page that is written after the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfx.types import standard_artifacts

from components.artifacts import Predictions, ReportData
from components.declare import component_class
from components.report.executor import Executor


def make_report_component(candidates: Sequence[str]) -> type[Any]:
    """Returns the Report component for a set of candidates.

    Its parameters are strings: `ranking_json` (RankingSpec), `candidates_json` (Candidate by name),
    `seed`, `num_replicates` and `code_hash`; its output is `report` with `report.json`.

    Args:
        candidates: Candidate names; inputs are `examples` and `predictions_<c>` for each.
    """
    inputs: dict[str, type[Any]] = {"examples": standard_artifacts.Examples}
    inputs |= {f"predictions_{name}": Predictions for name in candidates}
    return component_class(
        "Report",
        Executor,
        inputs=inputs,
        outputs={"report": ReportData},
        parameters=("ranking_json", "candidates_json", "seed", "num_replicates", "code_hash"),
    )
