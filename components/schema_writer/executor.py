"""Writes `schema.pbtxt`."""

from __future__ import annotations

import json
import os
from typing import Any

from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils

from models.schema import training_schema
from models.spec.ranking import RankingSpec


class Executor(base_executor.BaseExecutor):
    """Writes the schema (TRAINING and SERVING environments) that the configuration implies."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Derives and writes the schema."""
        ranking = RankingSpec.model_validate_json(exec_properties["ranking_json"])
        schema = training_schema(ranking, tuple(json.loads(exec_properties["slice_columns"])))
        folder = artifact_utils.get_single_uri(output_dict["schema"])
        io_utils.write_pbtxt_file(os.path.join(folder, "schema.pbtxt"), schema)
