"""A small ranking problem with every kind of feature and task, its examples, and Transform run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.spec.keys import TIMESTAMP, key_feature, slice_feature
from models.spec.ranking import RankingSpec

SLICES = ("device",)
_BATCH_ROWS = 256
"""Left to itself, Beam chooses batches by the clock, and means differ in their last digits."""
Rows = dict[str, list[Any]]
"""Example features by name: one value a row, a list for a sequence, None where it is missing."""


def synthetic_ranking(**changes: Any) -> RankingSpec:
    """Returns the specification; keyword arguments replace its top-level keys."""
    feature = {"availability": "request", "role": "feature"}
    context = feature | {"scope": "context"}
    future = {"availability": "future"}
    spec: dict[str, Any] = {
        "slate": "request_id",
        "user": "user_id",
        "item": "item_id",
        "columns": {
            "request_id": {"type": "string", "availability": "request", "scope": "context"},
            "user_id": context
            | {"type": "string", "encoding": {"kind": "hash", "dimension": 4, "buckets": 64}},
            "item_id": feature
            | {
                "type": "string",
                "encoding": {"kind": "vocabulary", "dimension": 4, "min_count": 2},
            },
            "device": context
            | {
                "type": "string",
                "encoding": {"kind": "vocabulary", "dimension": 8, "oov_buckets": 2},
            },
            "price": feature
            | {
                "type": "float",
                "encoding": {"kind": "numeric", "log": True, "pieces": 6},
                "group": "item",
            },
            "quality": feature
            | {
                "type": "float",
                "encoding": {"kind": "quantiles", "dimension": 4, "buckets": 5},
                "group": "item",
            },
            "fresh": feature | {"type": "bool"},
            "tags": feature
            | {"type": "list[string]", "max_length": 3, "encoding": {"dimension": 4}},
            "content": feature | {"type": "list[float]", "max_length": 2, "group": "item"},
            "history": context
            | {
                "type": "list[string]",
                "max_length": 4,
                "encoding": {"kind": "shared", "feature": "item_id"},
            },
            "popularity": {"type": "float", "availability": "request"},
            "position": {"type": "int", "availability": "decision", "role": "feature"},
            "clicked": future | {"type": "bool", "role": "target"},
            "bought": future | {"type": "bool", "role": "target"},
            "watch": future | {"type": "float", "role": "target"},
            "comments": future | {"type": "int", "role": "target"},
            "stars": future | {"type": "float", "role": "target"},
            "scroll": future | {"type": "float", "role": "auxiliary_target"},
        },
        "features": {
            "popularity_rank": {"slate": {"of": "popularity", "relation": "rank"}},
            "price_share": {"slate": {"of": "price", "relation": "share"}},
            "price_ratio": {"slate": {"of": "price", "relation": "ratio_to_max"}},
            "priced": {"slate": {"of": "price", "relation": "count"}},
        },
        "tasks": {
            "click": {"kind": "binary", "target": "clicked", "gates": {"auc": {"min": 0.5}}},
            "purchase": {
                "kind": "binary",
                "target": "bought",
                "conditioned_on": "click",
                "gates": {"auc": {"min": 0.5}},
            },
            "watch_seconds": {
                "kind": "duration",
                "target": "watch",
                "mask": "clicked",
                "loss": {"kind": "zero_inflated_log_normal"},
                "gates": {"mae": {"max": 100.0}},
            },
            "spend": {
                "kind": "regression",
                "target": "stars",
                "conditioned_on": "click",
                "loss": {"kind": "huber"},
                "gates": {"mae": {"max": 100.0}},
            },
            "comments": {
                "kind": "count",
                "target": "comments",
                "gates": {"mae": {"max": 100.0}},
            },
            "scroll": {
                "kind": "regression",
                "target": "scroll",
                "role": "auxiliary",
                "weight": 0.5,
            },
        },
        "score": {
            "weights": {"click": 1.0, "watch_seconds": 0.1},
            "log": ["watch_seconds"],
            "bounds": {"watch_seconds": {"min": 0.0, "max": 2.5}},
        },
    }
    spec["columns"]["tags"]["encoding"]["kind"] = "vocabulary"
    return RankingSpec.model_validate(spec | changes)


def synthetic_rows(ranking: RankingSpec, num_rows: int = 1200, seed: int = 0) -> Rows:
    """Draws examples in which features do tell something about every task."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 40, num_rows)
    item = rng.integers(0, 30, num_rows)
    device = rng.integers(0, 3, num_rows)
    price = np.exp(rng.normal(1.0, 1.0, num_rows))
    quality = rng.normal(size=num_rows)
    tastes = np.random.default_rng(0).normal(size=70)
    affinity = tastes[user] + tastes[40 + item] + quality
    click = rng.random(num_rows) < 1 / (1 + np.exp(-affinity + 0.5))
    bought = click & (rng.random(num_rows) < 1 / (1 + np.exp(-quality)))
    watch = np.where(click & (rng.random(num_rows) < 0.8), np.exp(1.5 + affinity), 0.0)
    missing = rng.random((num_rows, 4)) < 0.1
    rows: Rows = {
        "user_id": [None if m else b"u%d" % u for u, m in zip(user, missing[:, 0], strict=True)],
        "item_id": [b"i%d" % i for i in item],
        "device": [(b"phone", "tülk".encode(), b"tv")[d] for d in device],
        "price": [None if m else p for p, m in zip(price, missing[:, 1], strict=True)],
        "quality": [None if m else q for q, m in zip(quality, missing[:, 2], strict=True)],
        "fresh": (rng.random(num_rows) < 0.5).astype(float).tolist(),
        "tags": [[b"t%d" % (i % 4), b"t%d" % (i % 7), b""] for i in item],
        "content": [
            None if m else [float(i) / 10, float("nan") if i % 3 else 1.0]
            for i, m in zip(item, missing[:, 3], strict=True)
        ],
        "history": [
            [b"i%d" % ((u + k) % 30) if k < u % 5 else b"" for k in range(4)] for u in user
        ],
        "position": (1.0 + np.arange(num_rows) % 6).tolist(),
        "popularity_rank": rng.random(num_rows).tolist(),
        "price_share": rng.random(num_rows).tolist(),
        "price_ratio": rng.random(num_rows).tolist(),
        "priced": rng.integers(1, 9, num_rows).astype(float).tolist(),
        key_feature("request_id"): [b"r%d" % (k // 6) for k in range(num_rows)],
        key_feature("user_id"): [b"u%d" % u for u in user],
        key_feature("item_id"): [b"i%d" % i for i in item],
        slice_feature("device"): [(b"phone", b"tablet", b"tv")[d] for d in device],
        TIMESTAMP: [1_700_000_000_000 + k for k in range(num_rows)],
    }
    labels = {
        "click": (click, np.ones(num_rows)),
        "purchase": (bought, np.ones(num_rows)),
        "purchase_given_click": (bought, click),
        "watch_seconds": (watch, click),
        "spend": (np.where(click, 3 + affinity, 0), np.ones(num_rows)),
        "spend_given_click": (np.where(click, 3 + affinity, 0), click),
        "comments": (rng.poisson(np.exp(0.3 * affinity)), np.ones(num_rows)),
        "scroll": (np.where(click, affinity, 0), click),
    }
    for output in ranking.all_outputs:
        label, mask = labels[output.name]
        weight = mask.astype(float)
        rows[output.label_key] = (label * weight).tolist()
        rows[output.mask_key] = weight.tolist()
        rows[output.weight_key] = weight.tolist()
    names = {f.name for f in ranking.training_features}
    return {k: v for k, v in rows.items() if "__" in k or k in names}


def encode(rows: Mapping[str, Sequence[Any]]) -> list[bytes]:
    """Serialises rows to tf.Examples; a missing value is a feature without a list."""
    import tensorflow as tf

    examples = []
    for index in range(len(next(iter(rows.values())))):
        example = tf.train.Example()
        for name, column in rows.items():
            value = column[index]
            feature = example.features.feature[name]
            if value is None:
                continue
            values = value if isinstance(value, list) else [value]
            if isinstance(values[0], bytes):
                feature.bytes_list.value.extend(values)
            elif isinstance(values[0], int):
                feature.int64_list.value.extend(values)
            else:
                feature.float_list.value.extend(values)
        examples.append(example.SerializeToString())
    return examples


def write_records(path: Path, records: Sequence[bytes]) -> None:
    """Writes gzipped TFRecords, as LogExampleGen does."""
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for record in records:
            writer.write(record)


@dataclass(frozen=True)
class Transformed:
    """What Transform leaves behind.

    Attributes:
        ranking: What is ranked.
        graph: Folder of the transform graph.
        examples: Folder with `Split-<split>/` of transformed examples.
        rows: Raw rows by split.
    """

    ranking: RankingSpec
    graph: Path
    examples: Path
    rows: dict[str, Rows]

    def files(self, split: str) -> list[str]:
        """File patterns of one split, as TFX's Trainer passes them."""
        return [str(self.examples / f"Split-{split}" / "*")]


def run_transform(ranking: RankingSpec, rows: dict[str, Rows], folder: Path) -> Transformed:
    """Analyses the train split and transforms every split, on Beam."""
    records = {split: encode(columns) for split, columns in rows.items()}
    return transform_records(ranking, records, folder, SLICES, rows)


def transform_records(
    ranking: RankingSpec,
    records: Mapping[str, list[bytes]],
    folder: Path,
    slices: Sequence[str],
    rows: dict[str, Rows],
) -> Transformed:
    """The same for serialized examples by split."""
    import apache_beam as beam
    import tensorflow_transform.beam as tft_beam
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from tfx_bsl.coders import example_coder
    from tfx_bsl.tfxio import tf_example_record

    from models.preprocessing import preprocessing_fn
    from models.schema import training_schema

    schema = training_schema(ranking, tuple(slices))
    config = {"ranking": ranking.model_dump_json(), "code_hash": "test"}

    with (
        tempfile.TemporaryDirectory() as scratch,
        beam.Pipeline(runner=FnApiRunner()) as pipeline,
        tft_beam.Context(temp_dir=scratch),
    ):
        sources = {}
        for split, own in records.items():
            io = tf_example_record.TFExampleBeamRecord(
                physical_format="inmem", telemetry_descriptors=["test"], schema=schema
            )
            batches = (
                pipeline
                | f"Create[{split}]" >> beam.Create(own, reshuffle=False)
                | f"Decode[{split}]" >> io.BeamSource(batch_size=_BATCH_ROWS)
            )
            sources[split] = (batches, io.TensorAdapterConfig())
        transform_fn = sources["train"] | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, config)
        )
        _ = transform_fn | tft_beam.WriteTransformFn(str(folder / "graph"))
        for split, source in sources.items():
            data, _ = (source, transform_fn) | f"Transform[{split}]" >> tft_beam.TransformDataset(
                output_record_batches=True
            )

            def _write(batches: list[Any], split: str = split) -> None:
                encoder = example_coder.RecordBatchToExamplesEncoder()
                records = [r for batch, _ in batches for r in encoder.encode(batch)]
                write_records(folder / "examples" / f"Split-{split}" / "part-0.gz", records)

            _ = (
                data
                | f"Gather[{split}]" >> beam.combiners.ToList()
                | f"Write[{split}]" >> beam.Map(_write)
            )
    return Transformed(ranking, folder / "graph", folder / "examples", rows)


def transform_synthetic(
    folder: Path, num_rows: int = 1200, ranking: RankingSpec | None = None
) -> Transformed:
    """Runs the synthetic problem through Transform.

    Splits: train; validation, half as long; served, the same rows as a server sees them.
    """
    ranking = ranking or synthetic_ranking()
    rows = {
        "train": synthetic_rows(ranking, num_rows, seed=1),
        "validation": synthetic_rows(ranking, num_rows // 2, seed=2),
    }
    rows["validation"]["item_id"][:2] = [b"never seen", None]
    # What a server sees of the same rows: decision columns do not exist yet.
    rows["served"] = rows["validation"] | {"position": [None] * (num_rows // 2)}
    return run_transform(ranking, rows, folder)
