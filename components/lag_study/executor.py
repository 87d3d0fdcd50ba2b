"""Recomputes the as-of features of the test split with other lags, and scores the champion."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact, artifact_utils
from tfx.utils import path_utils

from components.champion.executor import FILE_NAME as CHAMPION_FILE
from components.champion.executor import task_columns
from components.log_example_gen.executor import run_example_graph
from components.log_example_gen.spec import DatasetSpec
from components.scorer.executor import FILE_NAME as PREDICTIONS_FILE
from components.scorer.executor import score
from models.metrics.estimation import compute
from models.spec.ranking import RankingSpec

FILE_NAME = "lags.json"

Artifacts = dict[str, list[artifact.Artifact]]
Metrics = dict[str, dict[str, float | None]]
"""Value by output and metric, None where undefined."""


class Executor(base_beam_executor.BaseBeamExecutor):
    """Measures the champion on test rows whose as-of features are later than declared."""

    def Do(
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        """Writes `lags.json`: the champion, its metrics as declared and with every lag."""
        dataset = DatasetSpec.model_validate_json(exec_properties["dataset_json"])
        ranking = RankingSpec.model_validate_json(exec_properties["ranking_json"])
        choice = Path(artifact_utils.get_single_uri(input_dict["champion"]), CHAMPION_FILE)
        champion = json.loads(choice.read_text())["champion"]
        model = path_utils.serving_model_path(
            artifact_utils.get_single_uri(input_dict[f"model_{champion}"])
        )
        declared = Path(
            artifact_utils.get_single_uri(input_dict[f"predictions_{champion}"]), PREDICTIONS_FILE
        )
        content = {
            "champion": champion,
            "declared": _metrics(pq.read_table(declared), ranking),
            "lags": [
                {
                    "lag_ms": lag_ms,
                    "metrics": measure(
                        with_lag(dataset, lag_ms), ranking, model, self._make_beam_pipeline()
                    ),
                }
                for lag_ms in json.loads(exec_properties["lags_json"])
            ],
        }
        folder = Path(artifact_utils.get_single_uri(output_dict["report"]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE_NAME).write_text(json.dumps(content, indent=1, allow_nan=False))


def with_lag(dataset: DatasetSpec, lag_ms: int) -> DatasetSpec:
    """Returns the dataset of the test rows alone, every computed as-of feature with one lag.

    Args:
        dataset: What the champion was trained on.
        lag_ms: Replaces each `availability_lag`.
    """
    ranking = dataset.ranking.model_dump(mode="json")
    for feature in ranking["features"].values():
        if feature["as_of"] is not None and feature["source"] == "computed":
            feature["as_of"]["availability_lag"] = lag_ms
    start = dataset.window.test_start
    window = dataset.window.model_copy(
        update={"train_start": start, "validation_start": start, "train_cutoff": start}
    )
    return dataset.model_copy(
        update={"ranking": RankingSpec.model_validate(ranking), "window": window}
    )


def measure(
    dataset: DatasetSpec, ranking: RankingSpec, model_path: str, pipeline: beam.Pipeline
) -> Metrics:
    """Builds the test rows of a dataset and measures a model on them.

    Args:
        dataset: The rows.
        ranking: What is ranked, with the metrics of every task.
        model_path: A SavedModel with the `serving_default` signature.
        pipeline: A new pipeline.
    """
    with tempfile.TemporaryDirectory() as folder:
        examples = Path(folder, "examples")
        run_example_graph(dataset, str(examples), str(Path(folder, "accounts")), pipeline)
        target = Path(folder, PREDICTIONS_FILE)
        score(model_path, {"test": str(examples / "Split-test")}, ranking, (), target)
        return _metrics(pq.read_table(target), ranking)


def _metrics(rows: pa.Table, ranking: RankingSpec) -> Metrics:
    test = rows.filter(pc.equal(rows["split"], "test"))
    found: Metrics = {}
    for output in ranking.outputs:
        values = compute(output.metrics, task_columns(test, output.name, ranking))
        found[output.name] = {n: v if math.isfinite(v) else None for n, v in values.items()}
    return found
