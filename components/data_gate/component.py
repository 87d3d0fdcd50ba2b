"""DataGate: refuses examples that no model should be trained on, before any is."""

from __future__ import annotations

from tfx.types import standard_artifacts

from components.artifacts import Blessing, LogAccounts
from components.data_gate.executor import Executor
from components.declare import component_class

DataGate = component_class(
    "DataGate",
    Executor,
    inputs={
        "statistics": standard_artifacts.ExampleStatistics,
        "schema": standard_artifacts.Schema,
        "accounts": LogAccounts,
    },
    optional_inputs={
        "previous_statistics": standard_artifacts.ExampleStatistics,
        "previous_accounts": LogAccounts,
    },
    outputs={"blessing": Blessing},
    parameters=("ranking_json", "checks_json", "code_hash"),
)
