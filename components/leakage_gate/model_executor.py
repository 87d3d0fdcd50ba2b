"""Checks the candidates' exported models and writes the verdict."""

from __future__ import annotations

from typing import Any

from tfx.dsl.components.base import base_executor
from tfx.types import artifact, artifact_utils
from tfx.utils import path_utils

from components.leakage_gate.model_gate import judge_models
from components.verdict import write_verdict
from models.spec.ranking import RankingSpec

MODEL_INPUT_PREFIX = "model_"

Artifacts = dict[str, list[artifact.Artifact]]


class Executor(base_executor.BaseExecutor):
    """Refuses exported models that can see anything but request features."""

    def Do(
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Judges every candidate.

        Args:
            input_dict: `model_<candidate>` for each candidate.
            output_dict: `blessing`.
            exec_properties: `ranking_json`.
        """
        models = {
            key.removeprefix(MODEL_INPUT_PREFIX): path_utils.serving_model_path(
                artifact_utils.get_single_uri(models)
            )
            for key, models in input_dict.items()
        }
        verdict = judge_models(
            RankingSpec.model_validate_json(exec_properties["ranking_json"]), models
        )
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        blessing.blessed = int(verdict.passed)
        write_verdict(blessing.uri, verdict)
