"""Champion: picks among the candidates that passed, by the declared objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfx.types import standard_artifacts

from components.artifacts import Blessing, ChampionChoice, Predictions
from components.champion.executor import Executor
from components.declare import component_class


def champion_class(candidates: Sequence[str]) -> type[Any]:
    """Returns the Champion component for a set of candidates.

    Args:
        candidates: Candidate names; inputs are `blessing_<c>`, `evaluation_<c>` and
            `predictions_<c>` for each.
    """
    inputs: dict[str, type[Any]] = {"leakage": Blessing, "serving": Blessing}
    for name in candidates:
        inputs[f"blessing_{name}"] = standard_artifacts.ModelBlessing
        inputs[f"evaluation_{name}"] = standard_artifacts.ModelEvaluation
        inputs[f"predictions_{name}"] = Predictions
    return component_class(
        "Champion",
        Executor,
        inputs=inputs,
        outputs={"champion": ChampionChoice, "blessing": Blessing},
        parameters=("candidates_json", "ranking_json", "objective_json", "code_hash"),
    )
