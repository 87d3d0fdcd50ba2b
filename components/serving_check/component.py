"""ServingCheck: the exported models behind a real server, asked over gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfx.types import standard_artifacts

from components.artifacts import Blessing, Predictions
from components.declare import component_class
from components.serving_check.executor import Executor


def serving_check_class(candidates: Sequence[str]) -> type[Any]:
    """Returns the ServingCheck component (inputs `model_<c>` and `predictions_<c>`)."""
    inputs: dict[str, type[Any]] = {"examples": standard_artifacts.Examples}
    for name in candidates:
        inputs[f"model_{name}"] = standard_artifacts.Model
        inputs[f"predictions_{name}"] = Predictions
    return component_class(
        "ServingCheck",
        Executor,
        inputs=inputs,
        outputs={"blessing": Blessing},
        parameters=("candidates_json", "ranking_json", "num_rows", "memory_bytes", "code_hash"),
    )
