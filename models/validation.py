"""Metrics of every output on the validation split."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from models.metrics.columns import TaskColumns
from models.metrics.estimation import compute
from models.ranking_model import Batch, RankingModel
from models.rows import Rows
from models.spec.keys import TRANSFORMED_GROUP
from models.spec.task import Output

_BATCH_ROWS = 8192


class Validation:
    """Measures a model on the validation split.

    Args:
        model: The model; its current weights are measured.
        rows: The rows.
    """

    def __init__(self, model: RankingModel, rows: Rows) -> None:
        """Keeps the rows."""
        self._model = model
        self._rows = rows
        self._predict = tf.function(model.predictions, input_signature=[rows.batch_spec])
        self._logits = tf.function(_both_logits(model), input_signature=[rows.batch_spec])

    def settle_decisions(self) -> None:
        """Chooses the offsets that replace the tower of decision columns on these rows."""
        tower = self._model.tower
        if tower is None:
            return
        ranking = self._model.ranking
        parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for batch in self._rows.in_order(_BATCH_ROWS):
            for task, (main, added) in self._logits(batch).items():
                parts.setdefault(task, []).append((main.numpy(), added.numpy()))
        tower.settle(
            {
                task: (
                    np.concatenate([main for main, _ in found]),
                    np.concatenate([added for _, added in found]),
                    self._rows.column(ranking.outputs_of(task)[-1].weight_key),
                )
                for task, found in parts.items()
            }
        )

    def measure(self) -> dict[str, dict[str, float]]:
        """Computes every metric of every output of the trained tasks; NaN where undefined."""
        predictions = self._predictions()
        return {
            output.name: self._metrics(output, predictions[output.name])
            for task in self._model.tasks
            for output in self._model.ranking.outputs_of(task)
        }

    def _predictions(self) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {}
        for batch in self._rows.in_order(_BATCH_ROWS):
            for name, values in self._predict(batch).items():
                parts.setdefault(name, []).append(values.numpy())
        return {name: np.concatenate(values) for name, values in parts.items()}

    def _metrics(self, output: Output, predictions: np.ndarray) -> dict[str, float]:
        group = self._rows.column(TRANSFORMED_GROUP)
        columns = TaskColumns(
            label=self._rows.column(output.label_key),
            prediction=predictions,
            weight=self._rows.column(output.weight_key),
            group=group,
            cluster=group,
        )
        return compute(output.metrics, columns)


def _both_logits(model: RankingModel) -> Callable[[Batch], dict[str, tuple[tf.Tensor, tf.Tensor]]]:
    """Returns a function from a batch to the main logit and what the tower adds, by task."""

    def logits(batch: Batch) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
        added = model.decision_logits(batch)
        heads = model(batch)
        return {task: (heads[task][:, 0], added[task]) for task in added}

    return logits


def as_json(values: Mapping[str, float]) -> dict[str, float | None]:
    """Replaces what JSON cannot hold (NaN, infinity) by null."""
    return {name: float(x) if math.isfinite(x) else None for name, x in values.items()}
