"""Impressions with known outcome probabilities, for tests of the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.spec.column import Column
from models.spec.feature import AsOf, DerivedFeature, NumericEncoding, SharedEncoding
from models.spec.keys import TIMESTAMP, key_feature, slice_feature
from models.spec.ranking import RankingSpec
from models.spec.task import Gate, Task

Array = np.ndarray[Any, Any]

START_MS = 1_772_668_800_000  # 2026-03-05
DAY_MS = 86_400_000
SPLIT_STARTS = {"train": 0, "validation": 5, "test": 6}
SLATE = 10
PLANTED = "<script>document.title='planted'</script>"
DEVICES = ("phone", "tablet", "desktop", PLANTED)


def ranking_spec(*, min_auc: float = 0.6) -> RankingSpec:
    """Three served tasks, one of them conditioned and one masked, and an auxiliary one."""
    request: dict[str, Any] = {"availability": "request"}
    return RankingSpec(
        slate="request_id",
        user="user_id",
        item="item_id",
        columns={
            "request_id": Column(type="string", role=("key", "group"), **request),
            "user_id": Column(type="string", role=("feature",), scope="context", **request),
            "item_id": Column(type="string", role=("key", "feature"), **request),
            "device": Column(type="string", role=("feature",), scope="context", **request),
            "quality": Column(type="float", role=("feature",), **request),
            "length_seconds": Column(
                type="float", role=("feature",), encoding=NumericEncoding(log=True), **request
            ),
            "clicked": Column(type="bool", availability="future", role=("target", "mask")),
            "converted": Column(type="bool", availability="future", role=("target",)),
            "watch_seconds": Column(type="float", availability="future", role=("target",)),
            "returned": Column(type="bool", availability="future", role=("auxiliary_target",)),
        },
        features={
            "recent_items": DerivedFeature(
                as_of=AsOf(
                    events="impressions",
                    entity=("user_id",),
                    aggregate="last_values",
                    value="item_id",
                    length=5,
                ),
                encoding=SharedEncoding(kind="shared", feature="item_id"),
            )
        },
        tasks={
            "click": Task(
                kind="binary",
                target="clicked",
                gates={
                    "auc": Gate(min=min_auc, max_drop=0.01),
                    "calibration": Gate(min=0.8, max=1.25),
                },
            ),
            "conversion": Task(
                kind="binary",
                target="converted",
                conditioned_on="click",
                gates={"auc": Gate(min=0.55)},
            ),
            "watch_seconds": Task(
                kind="duration",
                target="watch_seconds",
                mask="clicked",
                gates={"spearman": Gate(min=0.1)},
            ),
            "returned": Task(kind="binary", target="returned", role="auxiliary"),
        },
    )


@dataclass(frozen=True)
class Impressions:
    """Columns of impressions in time order; probabilities are the truth behind the labels."""

    columns: dict[str, Array]
    labels: dict[str, Array]
    weights: dict[str, Array]
    truth: dict[str, Array]

    def split(self, name: str) -> Array:
        """Returns the row numbers of a split."""
        return np.flatnonzero(self.columns["split"] == name)


def impressions(num_rows: int, *, seed: int) -> Impressions:
    """Draws seven days of slates of ten."""
    rng = np.random.default_rng(seed)
    num_slates = num_rows // SLATE
    num_users, num_items = max(20, num_slates // 10), 400
    slate_time = np.sort(rng.integers(0, 7 * DAY_MS, num_slates))
    slate_user = rng.integers(0, num_users, num_slates)
    slate = np.repeat(np.arange(num_slates), SLATE)
    user = slate_user[slate]
    item = np.minimum(rng.zipf(1.3, len(slate)) - 1, num_items - 1)
    item = (item + np.tile(np.arange(SLATE), num_slates) * 37) % num_items
    quality, item_bias = rng.normal(size=num_items), rng.normal(size=num_items) * 0.6
    device = rng.choice(len(DEVICES), num_users, p=(0.6, 0.1, 0.25, 0.05))
    affinity = rng.normal(size=num_users) * 0.5
    length = rng.lognormal(3.5, 0.8, num_items)
    logit = (
        -2.2 + affinity[user] + item_bias[item] + 0.6 * quality[item] - 0.3 * (device[user] == 1)
    )
    click = _sigmoid(logit)
    convert = _sigmoid(-1.2 + 0.8 * quality[item] + 0.3 * affinity[user])
    clicked = rng.random(len(slate)) < click
    converted = clicked & (rng.random(len(slate)) < convert)
    seconds = np.exp(np.log(length[item]) - 0.5 + 0.4 * quality[item])
    watched = np.where(clicked, seconds * rng.lognormal(0, 0.8, len(slate)), 0.0)
    returned = rng.random(len(slate)) < _sigmoid(-0.5 + affinity[user])
    time_ms = slate_time[slate]
    day = time_ms // DAY_MS
    split = np.where(day < 5, "train", np.where(day < 6, "validation", "test"))
    everyone, on_click = np.ones(len(slate)), clicked.astype(float)
    labels = {
        "click": clicked,
        "conversion": converted,
        "conversion_given_click": converted,
        "watch_seconds": watched,
        "returned": returned,
    }
    return Impressions(
        columns={
            "time_ms": START_MS + time_ms,
            "split": split,
            "request_id": np.char.add("r", slate.astype(str)),
            "user_id": np.char.add("u", user.astype(str)),
            "item_id": np.char.add("i", item.astype(str)),
            "device": np.array(DEVICES)[device[user]],
            "quality": np.where(rng.random(len(slate)) < 0.02, np.nan, quality[item]),
            "length_seconds": length[item],
        },
        labels={name: label.astype(np.float32) for name, label in labels.items()},
        weights={
            "click": everyone,
            "conversion": everyone,
            "conversion_given_click": on_click,
            "watch_seconds": on_click,
            "returned": everyone,
        },
        truth={
            "click": click,
            "conversion": click * convert,
            "conversion_given_click": convert,
            "watch_seconds": seconds,
        },
    )


def predictions(rows: Impressions, ranking: RankingSpec, *, noise: float, seed: int) -> pa.Table:
    """Scores validation and test rows with the truth disturbed on the log scale."""
    rng = np.random.default_rng(seed)
    kept = np.concatenate([rows.split("validation"), rows.split("test")])
    table: dict[str, Any] = {n: rows.columns[n][kept] for n in ranking.key_columns}
    table["timestamp"] = rows.columns["time_ms"][kept]
    table["device"] = rows.columns["device"][kept]
    table["split"] = rows.columns["split"][kept]
    for output in ranking.outputs:
        truth = rows.truth[output.name][kept]
        disturbed = truth * np.exp(noise * rng.normal(size=len(kept)) - noise**2 / 2)
        if output.kind == "binary":
            disturbed = np.clip(disturbed, 1e-4, 0.99)
        weight = rows.weights[output.name][kept].astype(np.float32)
        table[f"{output.name}__label"] = rows.labels[output.name][kept] * (weight > 0)
        table[f"{output.name}__mask"] = (weight > 0).astype(np.float32)
        table[f"{output.name}__weight"] = weight
        table[f"{output.name}__prediction"] = disturbed.astype(np.float32)
    order = [(n, "ascending") for n in ("split", "timestamp", *ranking.key_columns)]
    return pa.table(table).sort_by(order)


def write_predictions(
    rows: Impressions, ranking: RankingSpec, noise: dict[str, float], folder: Path
) -> dict[str, Path]:
    """Writes `<folder>/<candidate>.parquet` for each candidate's noise."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for seed, (name, level) in enumerate(noise.items()):
        files[name] = folder / f"{name}.parquet"
        pq.write_table(predictions(rows, ranking, noise=level, seed=seed), files[name])
    return files


def write_examples(rows: Impressions, ranking: RankingSpec, folder: Path, *, seed: int) -> str:
    """Writes an Examples artifact; the rows of each split are shuffled over two files."""
    import tensorflow as tf
    from tfx_bsl.coders import example_coder

    rng = np.random.default_rng(seed)
    for split in SPLIT_STARTS:
        kept = rng.permutation(rows.split(split))
        target = folder / f"Split-{split}"
        target.mkdir(parents=True)
        encoder = example_coder.RecordBatchToExamplesEncoder()
        records = encoder.encode(example_batch(rows, ranking, kept))
        options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
        for shard in range(2):
            path = str(target / f"data-{shard:05d}-of-00002.gz")
            with tf.io.TFRecordWriter(path, options) as writer:
                for record in records[shard::2]:
                    writer.write(record)
    return str(folder)


def example_batch(rows: Impressions, ranking: RankingSpec, kept: Array) -> pa.RecordBatch:
    """Returns rows as the list columns that examples decode to."""

    def lists(values: Any, kind: Any) -> pa.Array:
        array = pa.array(values, kind)
        missing = np.isnan(values) if kind == pa.float32() else np.zeros(len(array), bool)
        offsets = np.concatenate([[0], np.cumsum(~missing)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), array.filter(pa.array(~missing)))

    columns = {n: rows.columns[n][kept] for n in rows.columns}
    batch = {TIMESTAMP: lists(columns["time_ms"], pa.int64())}
    for name in ranking.key_columns:
        batch[key_feature(name)] = lists(columns[name].astype("S"), pa.binary())
    for name in ("user_id", "item_id", "device"):
        batch[name] = lists(columns[name].astype("S"), pa.binary())
    batch[slice_feature("device")] = batch["device"]
    for name in ("quality", "length_seconds"):
        batch[name] = lists(columns[name].astype(np.float32), pa.float32())
    history = [[item.encode()] * (k % 3) for k, item in enumerate(columns["item_id"].tolist())]
    batch["recent_items"] = pa.array(history, pa.list_(pa.binary()))
    for output in ranking.all_outputs:
        weight = rows.weights[output.name][kept].astype(np.float32)
        batch[output.label_key] = lists(rows.labels[output.name][kept] * (weight > 0), pa.float32())
        batch[output.mask_key] = lists((weight > 0).astype(np.float32), pa.float32())
        batch[output.weight_key] = lists(weight, pa.float32())
    return pa.RecordBatch.from_pydict(batch)


def _sigmoid(values: Array) -> Array:
    return 1 / (1 + np.exp(-values))
