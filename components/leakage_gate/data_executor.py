"""Checks the examples against the raw logs and writes the verdict."""

from __future__ import annotations

from typing import Any

from tfx.dsl.components.base import base_executor
from tfx.types import artifact, artifact_utils

from components.data_gate.accounts import read_accounts
from components.data_gate.limits import Limits
from components.leakage_gate.example_gate import judge_examples
from components.log_example_gen.spec import DatasetSpec
from components.verdict import write_verdict

Artifacts = dict[str, list[artifact.Artifact]]


class Executor(base_executor.BaseExecutor):
    """Refuses examples that know what a ranking request cannot."""

    def Do(
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Judges the examples and blesses them or not.

        Args:
            input_dict: `examples`, `accounts`.
            output_dict: `blessing`.
            exec_properties: `dataset_json`, `checks_json`.
        """
        verdict = judge_examples(
            DatasetSpec.model_validate_json(exec_properties["dataset_json"]),
            Limits.model_validate_json(exec_properties["checks_json"]),
            read_accounts(artifact_utils.get_single_uri(input_dict["accounts"])),
            artifact_utils.get_single_uri(input_dict["examples"]),
        )
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        blessing.blessed = int(verdict.passed)
        write_verdict(blessing.uri, verdict)
