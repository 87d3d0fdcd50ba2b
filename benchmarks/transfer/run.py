"""What auxiliary tasks bring, and where sharing hurts: ``python -m benchmarks.transfer.run``.

Trains candidates of the simulated example with and without its auxiliary tasks under several seeds,
on examples that the pipeline made once, and compares on the test split. Resumes where it stopped.
Writes `docs/benchmarks/transfer.json` and `transfer.md`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks.prepared import OVERRIDES, PreparedExamples, predicted
from benchmarks.transfer.comparison import TestRows, compare
from benchmarks.transfer.page import page
from models.rows import CachedRows, Rows
from models.spec.keys import key_feature, slice_feature
from models.spec.training import Candidate
from pipeline.config import Config
from pipeline.load import load_config
from simulator.simulate import SimulationConfig, simulate

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "examples" / "simulated" / "config.yaml"
DOCS = ROOT / "docs" / "benchmarks"
CANDIDATES = ("single_task", "shared_bottom", "mmoe")
"""The candidates to start with, by `docs/architectures.md`."""

_BATCH_ROWS = 4096


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        candidate: Name in the configuration.
        auxiliary: Whether the auxiliary tasks are trained as well.
        seed: Seed of initialisation, shuffling and dropout.
    """

    candidate: str
    auxiliary: bool
    seed: int

    def file(self, out: Path) -> Path:
        """Where its test predictions are kept; there once it is done."""
        side = "on" if self.auxiliary else "off"
        return out / "predictions" / f"{self.candidate}-{side}-{self.seed}.npz"


def jobs(num_seeds: int) -> Iterator[Job]:
    """Yields all trainings, whole seeds first, so that a run cut short compares like with like."""
    for seed in range(num_seeds):
        for candidate in CANDIDATES:
            for auxiliary in (True, False):
                yield Job(candidate, auxiliary, seed)


def read_test(examples: PreparedExamples, slices: tuple[str, ...]) -> tuple[TestRows, Rows]:
    """Reads the test split: what predictions are compared by, and what they are made from.

    The raw examples name users and slices; the transform graph makes features of the same rows.
    """
    ranking = examples.ranking
    text = tf.io.FixedLenFeature([], tf.string, default_value="")
    named = {key_feature(c): text for c in (ranking.group_column, ranking.user)}
    named |= {slice_feature(c): text for c in slices}
    raw = examples.transform.raw_feature_spec()
    layer = examples.transform.transform_features_layer()
    files = sorted(str(file) for file in (examples.raw / "Split-test").iterdir())
    parts: dict[str, list[Any]] = {}
    for records in tf.data.TFRecordDataset(files, compression_type="GZIP").batch(_BATCH_ROWS):
        parsed = tf.io.parse_example(records, raw | named)
        columns = {name: parsed[name] for name in named}
        columns |= layer({name: parsed[name] for name in raw})
        for name, values in columns.items():
            parts.setdefault(name, []).append(values.numpy())
    columns = {name: np.concatenate(values) for name, values in parts.items()}
    rows = TestRows(
        columns={key: columns[key] for key in examples.label_keys},
        group=columns[key_feature(ranking.group_column)],
        user=columns[key_feature(ranking.user)],
        slices={c: columns[slice_feature(c)].astype(str) for c in slices},
    )
    transformed = examples.transform.transformed_feature_spec()
    return rows, CachedRows({name: columns[name] for name in transformed})


def main() -> None:
    """Trains what is missing, compares and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "transfer", help="work folder")
    parser.add_argument("--seeds", type=int, default=5, help="of each training (default 5)")
    parser.add_argument("--impressions", type=int, default=200_000, help="of the simulated logs")
    parser.add_argument("--replicates", type=int, default=200, help="resamples of the users")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where the results go")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds must be at least 2: an interval over seeds needs two")
    logs = options.out / "logs"
    if not (logs / "_truth" / "oracle.json").exists():
        simulate(SimulationConfig(impressions=options.impressions), logs)
    root = f"logs.root={logs}"
    config = load_config(CONFIG, [root])
    examples = PreparedExamples.prepare(
        load_config(CONFIG, [root, *OVERRIDES]), options.out / "work"
    )
    slices = tuple(dict.fromkeys(name for names in config.evaluation.slices for name in names))
    rows, inputs = read_test(examples, slices)
    predictions: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for job in jobs(options.seeds):
        file = job.file(options.out)
        if not file.exists():
            found = _trained(job, config, examples, inputs)
            file.parent.mkdir(parents=True, exist_ok=True)
            # Under its name only once it is whole: a run that was killed repeats the training.
            partial = file.with_suffix(".partial.npz")
            np.savez(partial, **found)
            partial.replace(file)
            print(f"{file.stem}: trained", flush=True)
        with np.load(file) as stored:
            predictions.setdefault((job.candidate, job.auxiliary), []).append(dict(stored))
    result = {
        "setting": {
            "impressions": options.impressions,
            "rows": {s: examples.rows(s).num_rows for s in ("train", "validation", "test")},
            "num_users": len(np.unique(rows.user)),
            "num_seeds": options.seeds,
            "num_replicates": options.replicates,
            "auxiliary_tasks": list(config.ranking.auxiliary_tasks),
        },
        **compare(
            config.ranking,
            {name: config.candidates[name] for name in CANDIDATES},
            rows,
            predictions,
            options.replicates,
        ),
    }
    options.docs.mkdir(parents=True, exist_ok=True)
    (options.docs / "transfer.json").write_text(
        json.dumps(result, indent=1, allow_nan=False) + "\n"
    )
    (options.docs / "transfer.md").write_text(page(result))


def _trained(job: Job, config: Config, examples: PreparedExamples, inputs: Rows) -> dict[str, Any]:
    candidate: Candidate = config.candidates[job.candidate]
    model, _ = examples.train(
        candidate.model_copy(update={"auxiliary": job.auxiliary}),
        config.training.model_copy(update={"seed": job.seed}),
        config.objective,
    )
    return predicted(model, inputs, config.ranking.served_tasks)


if __name__ == "__main__":
    main()
