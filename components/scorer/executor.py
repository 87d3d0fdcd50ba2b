"""Reads examples, calls the exported model, writes `predictions.parquet`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import path_utils

from models.spec.keys import TIMESTAMP, key_feature, slice_feature
from models.spec.ranking import RankingSpec

FILE_NAME = "predictions.parquet"
SPLITS = ("validation", "test")
_BATCH_ROWS = 4096


class Executor(base_executor.BaseExecutor):
    """Executor of `Scorer`."""

    def Do(
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Scores the splits of `examples` with `model`."""
        ranking = RankingSpec.model_validate_json(exec_properties["ranking_json"])
        slices = tuple(json.loads(exec_properties["slice_columns"]))
        model_path = path_utils.serving_model_path(
            artifact_utils.get_single_uri(input_dict["model"])
        )
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        target = Path(artifact_utils.get_single_uri(output_dict["predictions"]), FILE_NAME)
        target.parent.mkdir(parents=True, exist_ok=True)
        score(
            model_path,
            {s: artifact_utils.get_split_uri([examples], s) for s in SPLITS},
            ranking,
            slices,
            target,
        )


def score(
    model_path: str,
    split_folders: dict[str, str],
    ranking: RankingSpec,
    slices: tuple[str, ...],
    target: Path,
) -> None:
    """Writes one row per example, sorted by split, time and keys.

    Args:
        model_path: A SavedModel with the `serving_default` signature.
        split_folders: Folder of gzipped tf.Example records by split name.
        ranking: What is ranked.
        slices: Slice columns that the examples carry.
        target: The Parquet file: key columns, `timestamp` (ms), slice columns, `split`, then per
            output `<output>__label`, `__mask`, `__weight` (float32) and `__prediction`.
    """
    model = tf.saved_model.load(model_path)
    signature = model.signatures["serving_default"]
    tables = []
    for split, folder in split_folders.items():
        parts = [
            _table(columns, split, ranking, slices)
            for columns in _scored(signature, folder, ranking, slices)
        ]
        if parts:
            tables.append(pa.concat_tables(parts).sort_by(_order(ranking)))
    pq.write_table(pa.concat_tables(tables), target, compression="zstd")


def _order(ranking: RankingSpec) -> list[tuple[str, str]]:
    return [("timestamp", "ascending"), *((c, "ascending") for c in ranking.key_columns)]


def _feature_spec(ranking: RankingSpec, slices: tuple[str, ...]) -> dict[str, Any]:
    text = tf.io.FixedLenFeature([], tf.string, default_value="")
    spec: dict[str, Any] = {TIMESTAMP: tf.io.FixedLenFeature([], tf.int64)}
    spec |= {key_feature(c): text for c in ranking.key_columns}
    spec |= {slice_feature(c): text for c in slices}
    for output in ranking.outputs:
        for key in (output.label_key, output.mask_key, output.weight_key):
            spec[key] = tf.io.FixedLenFeature([], tf.float32)
    return spec


def _scored(
    signature: Any, folder: str, ranking: RankingSpec, slices: tuple[str, ...]
) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    files = sorted(str(file) for file in Path(folder).iterdir())
    spec = _feature_spec(ranking, slices)
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(_BATCH_ROWS)
    for batch in records.prefetch(2):
        columns = {k: v.numpy() for k, v in tf.io.parse_example(batch, spec).items()}
        predictions = signature(examples=batch)
        for output in ranking.outputs:
            columns[f"{output.name}__prediction"] = predictions[output.name].numpy()
        yield columns


def _table(
    columns: dict[str, np.ndarray[Any, Any]],
    split: str,
    ranking: RankingSpec,
    slices: tuple[str, ...],
) -> pa.Table:
    def text(values: np.ndarray[Any, Any]) -> pa.Array:
        return pa.array(values, pa.binary()).cast(pa.string())

    names = {c: text(columns[key_feature(c)]) for c in ranking.key_columns}
    names["timestamp"] = pa.array(columns[TIMESTAMP])
    names |= {c: text(columns[slice_feature(c)]) for c in slices if c not in names}
    names["split"] = pa.array([split] * len(columns[TIMESTAMP]))
    for output in ranking.outputs:
        for suffix in ("label", "mask", "weight", "prediction"):
            key = f"{output.name}__{suffix}"
            names[key] = pa.array(columns[key], pa.float32())
    return pa.table(names)
