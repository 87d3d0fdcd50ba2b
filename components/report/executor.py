"""Writes `report.json`: floors and paired comparisons on the test split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import TypeAdapter
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils

from components.report.comparisons import Resampling, report_data
from components.report.example_columns import read_split
from components.report.floors import columns_needed, score_floors
from components.report.row_match import example_of_prediction
from models.spec.ranking import RankingSpec
from models.spec.training import Candidate

FILE_NAME = "report.json"
PREDICTIONS_FILE = "predictions.parquet"

_CANDIDATES: TypeAdapter[dict[str, Candidate]] = TypeAdapter(dict[str, Candidate])


class Executor(base_executor.BaseExecutor):
    """Measures every candidate against single_task and the floors, for the report."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Reads examples and predictions, writes `report.json`."""
        candidates = _CANDIDATES.validate_json(exec_properties["candidates_json"])
        content = compare(
            RankingSpec.model_validate_json(exec_properties["ranking_json"]),
            candidates,
            artifact_utils.get_single_uri(input_dict["examples"]),
            {
                name: Path(artifact_utils.get_single_uri(input_dict[f"predictions_{name}"]))
                / PREDICTIONS_FILE
                for name in candidates
            },
            Resampling(int(exec_properties["num_replicates"]), int(exec_properties["seed"])),
        )
        folder = Path(artifact_utils.get_single_uri(output_dict["report"]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE_NAME).write_text(
            json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
        )


def compare(
    ranking: RankingSpec,
    candidates: Mapping[str, Candidate],
    examples_uri: str,
    prediction_files: Mapping[str, Path],
    resampling: Resampling,
) -> dict[str, Any]:
    """Computes the content of `report.json` from files; see `report_data`.

    Args:
        ranking: What is ranked.
        candidates: Candidates by name.
        examples_uri: Root of the examples, with splits train and test.
        prediction_files: Each candidate's `predictions.parquet`.
        resampling: How intervals are made.

    Raises:
        DataError: A split is missing, or predictions and examples hold different rows.
    """
    needed = columns_needed(ranking)
    train, test = (read_split(examples_uri, split, needed) for split in ("train", "test"))
    columns = ["timestamp", *ranking.key_columns]
    for output in ranking.outputs:
        columns += [output.label_key, output.weight_key, f"{output.name}__prediction"]
    predictions = {
        name: pq.read_table(file, columns=columns, filters=[("split", "=", "test")])
        for name, file in prediction_files.items()
    }
    positions = example_of_prediction(ranking, test, next(iter(predictions.values())))
    floors = {
        name: replace(
            floor, predictions={o: scores[positions] for o, scores in floor.predictions.items()}
        )
        for name, floor in score_floors(ranking, train, test).items()
    }
    return report_data(ranking, candidates, predictions, floors, resampling)
