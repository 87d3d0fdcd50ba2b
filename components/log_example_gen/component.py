"""LogExampleGen: from raw logs to training examples."""

from __future__ import annotations

from tfx.types import standard_artifacts

from components.artifacts import LogAccounts
from components.declare import component_class
from components.log_example_gen.executor import Executor

LogExampleGen = component_class(
    "LogExampleGen",
    Executor,
    inputs={},
    outputs={"examples": standard_artifacts.Examples, "accounts": LogAccounts},
    parameters=("spec_json", "fingerprint", "code_hash"),
    beam=True,
)
"""Parameters: `spec_json`, a `DatasetSpec`; `fingerprint` of the logs' contents and `code_hash`,
which only enter the cache key."""
