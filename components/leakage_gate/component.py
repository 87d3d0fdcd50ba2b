"""DataLeakageGate and ModelLeakageGate: nothing served may know the future."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfx.types import standard_artifacts

from components.artifacts import Blessing, LogAccounts
from components.declare import component_class
from components.leakage_gate import data_executor, model_executor

DataLeakageGate = component_class(
    "DataLeakageGate",
    data_executor.Executor,
    inputs={"examples": standard_artifacts.Examples, "accounts": LogAccounts},
    outputs={"blessing": Blessing},
    parameters=("dataset_json", "checks_json", "code_hash"),
)


def model_leakage_gate_class(candidates: Sequence[str]) -> type[Any]:
    """Returns the ModelLeakageGate component for a set of candidates.

    Args:
        candidates: Candidate names; the inputs are `model_<candidate>` for each.
    """
    return component_class(
        "ModelLeakageGate",
        model_executor.Executor,
        inputs={
            f"{model_executor.MODEL_INPUT_PREFIX}{name}": standard_artifacts.Model
            for name in candidates
        },
        outputs={"blessing": Blessing},
        parameters=("ranking_json", "code_hash"),
    )
