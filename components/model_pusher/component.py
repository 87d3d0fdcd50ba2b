"""ModelPusher: the champion into the base path that servers watch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfx.types import standard_artifacts

from components.artifacts import Blessing, ChampionChoice
from components.declare import component_class
from components.model_pusher.executor import Executor


def model_pusher_class(candidates: Sequence[str]) -> type[Any]:
    """Returns the ModelPusher component for a set of candidates (inputs `model_<c>`)."""
    inputs: dict[str, type[Any]] = {"champion": ChampionChoice, "blessing": Blessing}
    inputs |= {f"model_{name}": standard_artifacts.Model for name in candidates}
    return component_class(
        "ModelPusher",
        Executor,
        inputs=inputs,
        outputs={"pushed_model": standard_artifacts.PushedModel},
        parameters=(
            "ranking_json", "serving_dir", "model_name", "memory_bytes", "allow_older",
            "deploy_json", "run_id", "provenance_json", "code_hash",
        ),
    )  # fmt: skip
