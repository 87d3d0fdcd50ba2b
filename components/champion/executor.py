"""Chooses the candidate with the best objective on validation among those every gate passed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils

from components.scorer.executor import FILE_NAME as PREDICTIONS_FILE
from components.verdict import Verdict, read_verdict, write_verdict
from models.metrics.columns import TaskColumns
from models.metrics.estimation import compute
from models.metrics.objective import Measured, objective_value, undefined_terms
from models.spec.ranking import RankingSpec

FILE_NAME = "champion.json"
METRIC_GATE_FAILED = "a metric gate failed"


class Executor(base_executor.BaseExecutor):
    """Picks among the candidates that passed their gates."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes `champion.json` and a verdict; refuses when no candidate passed."""
        candidates = json.loads(exec_properties["candidates_json"])
        ranking = RankingSpec.model_validate_json(exec_properties["ranking_json"])
        weights = json.loads(exec_properties["objective_json"])
        refusals: dict[str, list[str]] = {name: [] for name in candidates}
        for gate in ("leakage", "serving"):
            verdict = read_verdict(artifact_utils.get_single_uri(input_dict[gate]))
            for name in candidates:
                refusals[name] += verdict.details.get("candidates", {}).get(
                    name, [f"{gate} gate did not check it"]
                )
        objectives: dict[str, float | None] = {}
        for name in candidates:
            blessing = artifact_utils.get_single_uri(input_dict[f"blessing_{name}"])
            if not Path(blessing, constants.BLESSED_FILE_NAME).exists():
                refusals[name].append(METRIC_GATE_FAILED)
            predictions = artifact_utils.get_single_uri(input_dict[f"predictions_{name}"])
            measured = measure(str(Path(predictions, PREDICTIONS_FILE)), ranking, weights)
            objectives[name] = objective_value(weights, measured)
            if undefined := undefined_terms(weights, measured):
                refusals[name].append(
                    f"the objective needs {', '.join(undefined)}, undefined on the validation "
                    "split (no rows, one class or group, or predictions that are not finite); "
                    "remedy: a longer splits.validation, or another objective"
                )
        passed = [n for n in candidates if not refusals[n]]
        champion = max(passed, key=lambda n: (objectives[n], -candidates.index(n)), default=None)
        folder = Path(artifact_utils.get_single_uri(output_dict["champion"]))
        folder.mkdir(parents=True, exist_ok=True)
        details = {"champion": champion, "objective": objectives, "refusals": refusals}
        (folder / FILE_NAME).write_text(
            json.dumps(details, indent=1, sort_keys=True, allow_nan=False)
        )
        artifact = artifact_utils.get_single_instance(output_dict["blessing"])
        artifact.set_int_custom_property("blessed", int(champion is not None))
        reasons = tuple(f"{n}: {'; '.join(r)}" for n, r in refusals.items() if r)
        write_verdict(artifact.uri, Verdict("champion", champion is not None, reasons, details))


def measure(predictions_path: str, ranking: RankingSpec, keys: Iterable[str]) -> Measured:
    """Computes metrics on the validation rows of a candidate's predictions.

    Args:
        predictions_path: The candidate's `predictions.parquet`.
        ranking: What is ranked.
        keys: The metrics, ``<output>.<metric>`` each.
    """
    table = pq.read_table(predictions_path)
    table = table.filter(pc.equal(table["split"], "validation"))
    wanted: dict[str, list[str]] = {}
    for key in keys:
        output, _, metric = key.partition(".")
        wanted.setdefault(output, []).append(metric)
    return {o: compute(names, task_columns(table, o, ranking)) for o, names in wanted.items()}


def task_columns(table: Any, output: str, ranking: RankingSpec) -> TaskColumns:
    """Takes one output's columns from a predictions table."""
    return TaskColumns(
        label=table[f"{output}__label"].to_numpy().astype(np.float64),
        prediction=table[f"{output}__prediction"].to_numpy().astype(np.float64),
        weight=table[f"{output}__weight"].to_numpy().astype(np.float64),
        group=_codes(table[ranking.group_column]),
        cluster=_codes(table[ranking.user]),
    )


def _codes(column: Any) -> np.ndarray[Any, Any]:
    encoded = column.combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False))
