"""SchemaWriter: the schema of the examples, derived from the configuration and not from data."""

from __future__ import annotations

from tfx.types import standard_artifacts

from components.declare import component_class
from components.schema_writer.executor import Executor

SchemaWriter = component_class(
    "SchemaWriter",
    Executor,
    inputs={},
    outputs={"schema": standard_artifacts.Schema},
    parameters=("ranking_json", "slice_columns", "code_hash"),
)
