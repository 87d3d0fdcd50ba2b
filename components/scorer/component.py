"""Scorer: the exported model's predictions for every validation and test row."""

from __future__ import annotations

from tfx.types import standard_artifacts

from components.artifacts import Predictions
from components.declare import component_class
from components.scorer.executor import Executor

Scorer = component_class(
    "Scorer",
    Executor,
    inputs={"model": standard_artifacts.Model, "examples": standard_artifacts.Examples},
    outputs={"predictions": Predictions},
    parameters=("ranking_json", "slice_columns", "code_hash"),
)
