"""LagStudy: the champion's quality against the delay of its as-of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfx.types import standard_artifacts

from components.artifacts import ChampionChoice, Predictions, ReportData
from components.declare import component_class
from components.lag_study.executor import Executor


def lag_study_class(candidates: Sequence[str]) -> type[Any]:
    """Returns the LagStudy component for a set of candidates.

    Its parameters are strings: `dataset_json` (DatasetSpec), `ranking_json` (RankingSpec),
    `lags_json` (milliseconds) and `code_hash`; its output is `report` with `lags.json`.

    Args:
        candidates: Candidate names; inputs are `champion`, and `model_<c>` and `predictions_<c>`
            for each.
    """
    inputs: dict[str, type[Any]] = {"champion": ChampionChoice}
    inputs |= {f"model_{name}": standard_artifacts.Model for name in candidates}
    inputs |= {f"predictions_{name}": Predictions for name in candidates}
    return component_class(
        "LagStudy",
        Executor,
        inputs=inputs,
        outputs={"report": ReportData},
        parameters=("dataset_json", "ranking_json", "lags_json", "fingerprint", "code_hash"),
        beam=True,
    )
