"""Reads the DataGate's inputs, decides and writes the verdict."""

from __future__ import annotations

from typing import Any

from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.components.base import base_executor
from tfx.types import artifact, artifact_utils
from tfx.utils import io_utils

from components.data_gate.accounts import SPLITS, read_accounts
from components.data_gate.gate import Statistics, judge
from components.data_gate.limits import Limits
from components.verdict import write_verdict
from models.spec.ranking import RankingSpec

Artifacts = dict[str, list[artifact.Artifact]]


class Executor(base_executor.BaseExecutor):
    """Executes the DataGate."""

    def Do(
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Judges the examples and blesses them or not.

        Args:
            input_dict: `statistics`, `schema`, `accounts`, and `previous_statistics` and
                `previous_accounts` where an earlier window was pushed.
            output_dict: `blessing`.
            exec_properties: `ranking_json`, `checks_json`.
        """
        schema_uri = artifact_utils.get_single_uri(input_dict["schema"])
        previous = input_dict.get("previous_statistics") or []
        before = input_dict.get("previous_accounts") or []
        verdict = judge(
            RankingSpec.model_validate_json(exec_properties["ranking_json"]),
            Limits.model_validate_json(exec_properties["checks_json"]),
            read_accounts(artifact_utils.get_single_uri(input_dict["accounts"])),
            io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema_uri)),
            _statistics(artifact_utils.get_single_instance(input_dict["statistics"])),
            _statistics(previous[0]) if previous else None,
            read_accounts(before[0].uri) if before else None,
        )
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        blessing.blessed = int(verdict.passed)
        write_verdict(blessing.uri, verdict)


def _statistics(statistics: artifact.Artifact) -> Statistics:
    return {
        split: stats_artifact_utils.load_statistics(statistics, split).proto() for split in SPLITS
    }
