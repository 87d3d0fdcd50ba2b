"""Models on random packed rows, without Transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from models.feature_layout import FeatureLayout, width_of
from models.losses.registry import LOSSES
from models.ranking_model import RankingModel, trained_tasks
from models.spec.keys import (
    TRANSFORMED_CATEGORICAL,
    TRANSFORMED_GROUP,
    TRANSFORMED_NUMERIC,
    TRANSFORMED_SEQUENCES,
)
from models.spec.ranking import RankingSpec
from models.spec.training import Candidate, Training

VOCABULARY_SIZE = 20


def table_rows(layout: FeatureLayout) -> dict[str, int]:
    return {n: t.num_rows(lambda _: VOCABULARY_SIZE) for n, t in layout.tables.items()}


def packed_columns(ranking: RankingSpec, num_rows: int = 64, seed: int = 0) -> dict[str, Any]:
    """Random packed features, labels and weights; a third of the rows is masked for each task."""
    rng = np.random.default_rng(seed)
    layout = FeatureLayout.of(ranking)
    rows = table_rows(layout)
    columns: dict[str, Any] = {
        TRANSFORMED_CATEGORICAL: np.stack(
            [rng.integers(0, rows[str(s.table)], num_rows) for s in layout.categorical], axis=1
        ).astype(np.int32),
        TRANSFORMED_NUMERIC: rng.normal(size=(num_rows, width_of(layout.numeric))).astype(
            np.float32
        ),
        TRANSFORMED_SEQUENCES: np.concatenate(
            [rng.integers(-1, rows[str(s.table)], (num_rows, s.width)) for s in layout.sequences],
            axis=1,
        ).astype(np.int32),
        TRANSFORMED_GROUP: np.arange(num_rows, dtype=np.int64) // 6,
    }
    for output in ranking.all_outputs:
        weight = (rng.random(num_rows) < 2 / 3).astype(np.float32)
        label = (
            rng.integers(0, 2, num_rows) if output.kind == "binary" else rng.poisson(3, num_rows)
        )
        columns[output.label_key] = (label * weight).astype(np.float32)
        columns[output.weight_key] = weight
    return columns


def packed_batch(ranking: RankingSpec, num_rows: int = 64, seed: int = 0) -> dict[str, tf.Tensor]:
    return {k: tf.constant(v) for k, v in packed_columns(ranking, num_rows, seed).items()}


def build_model(
    ranking: RankingSpec,
    architecture: str = "shared_bottom",
    *,
    auxiliary: bool = True,
    training: Training | None = None,
    **model: Any,
) -> RankingModel:
    """Builds a model with all its variables; keyword arguments go to the architecture."""
    candidate = Candidate.model_validate(
        {"model": {"architecture": architecture} | model, "auxiliary": auxiliary}
    )
    losses, biases = {}, {}
    for task in trained_tasks(ranking, candidate):
        config = ranking.tasks[task].resolved_loss
        losses[task] = LOSSES[config.model_dump()["kind"]](config)
        biases[task] = [0.1] * losses[task].units
    built = RankingModel(
        ranking,
        training or Training(batch_size=32),
        candidate,
        table_rows(FeatureLayout.of(ranking)),
        losses,
        biases,
    )
    built.prepare(packed_batch(ranking, num_rows=2))
    return built
