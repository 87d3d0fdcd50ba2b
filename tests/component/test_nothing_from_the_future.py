"""Other events after a moment: the same examples before it, and the same model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import apache_beam as beam
import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from components.log_example_gen.build import BuiltExamples, build_examples, read_logs
from components.log_example_gen.example_encoder import encode_examples
from components.log_example_gen.executor import generate_examples
from components.log_example_gen.spec import DatasetSpec, Window
from models.spec.keys import TIMESTAMP
from tests.conformance.synthetic_ranking import transform_records
from tests.conformance.trainer_run import train
from tests.reference import small_logs
from tests.reference.comparison import write_logs
from tests.reference.exactness import SPLITS, digest, hard_dataset, make_logs
from tests.reference.future import other_future, other_future_of_rows, seen_at
from tests.reference.hard_logs import Layout, write_shuffled
from tests.reference.small_logs import BASE, Row

FEW = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
MANY = settings(FEW, max_examples=60)
DAY_MS = 86_400_000


def build(text: str, logs: Mapping[str, list[Row]], window: Window) -> BuiltExamples:
    with tempfile.TemporaryDirectory() as root:
        spec = small_logs.dataset(text, window, root=root)
        write_logs(spec, logs)
        return build_examples(spec, read_logs(spec))


def check_what_is_seen_at_a_moment(logs: dict[str, list[Row]], window: Window, seed: int) -> None:
    """A run that looks at the world at T: nothing after T changes a byte, snapshots included."""
    changed = other_future_of_rows(logs, window.cutoff, seed, last=BASE + 30)
    first, second = (build(small_logs.SLATES, each, window) for each in (logs, changed))
    for split in SPLITS:
        assert encoded(first.examples[split]) == encoded(second.examples[split])
    for entity, snapshot in first.snapshots.items():
        assert snapshot.equals(second.snapshots[entity])


def check_a_run_that_sees_later(
    logs: dict[str, list[Row]], window: Window, seed: int, ahead: int
) -> None:
    """A run that sees events after T: features of rows before T, and train labels, stay."""
    at = window.train_cutoff
    window = window.model_copy(update={"cutoff": max(at, window.test_end) + ahead})
    changed = other_future_of_rows(logs, at, seed, last=window.cutoff)
    # One request is one decision: logs in which it goes on after T tell its later candidates.
    straddling = {
        row["request_id"]
        for rows in (logs["impressions"], changed["impressions"])
        for row in rows
        if row["time"] is not None and row["time"] >= at
    }
    pairs = [build(small_logs.SLATES, each, window).examples for each in (logs, changed)]
    for split in SPLITS:
        if pairs[0][split].is_empty() or pairs[1][split].is_empty():
            continue
        before = [
            frames[split].filter(
                (pl.col(TIMESTAMP) < at) & ~pl.col("request_id__key").is_in(list(straddling))
            )
            for frames in pairs
        ]
        labels = [n for n in before[0].columns if n.endswith(("__label", "__mask", "__weight"))]
        if split == "train":
            assert encoded(before[0]) == encoded(before[1])
        else:
            assert encoded(before[0].drop(labels)) == encoded(before[1].drop(labels))


def encoded(frame: pl.DataFrame) -> list[bytes]:
    return [record for chunk in encode_examples(frame) for record in chunk.to_pylist()]


seen_now = given(logs=small_logs.slates_logs, window=small_logs.windows, seed=small_logs.seeds)
seen_later = given(
    logs=small_logs.slates_logs,
    window=small_logs.windows,
    seed=small_logs.seeds,
    ahead=st.integers(0, 12),
)


@FEW
@seen_now
def test_what_is_seen_at_a_moment(logs: dict[str, list[Row]], window: Window, seed: int) -> None:
    check_what_is_seen_at_a_moment(logs, window, seed)


@FEW
@seen_later
def test_a_run_that_sees_later(
    logs: dict[str, list[Row]], window: Window, seed: int, ahead: int
) -> None:
    check_a_run_that_sees_later(logs, window, seed, ahead)


@pytest.mark.slow
@MANY
@seen_now
def test_many_seen_at_a_moment(logs: dict[str, list[Row]], window: Window, seed: int) -> None:
    check_what_is_seen_at_a_moment(logs, window, seed)


@pytest.mark.slow
@MANY
@seen_later
def test_many_that_see_later(
    logs: dict[str, list[Row]], window: Window, seed: int, ahead: int
) -> None:
    check_a_run_that_sees_later(logs, window, seed, ahead)


# The model -------------------------------------------------------------------------------------


def generate(logs: dict[str, pl.DataFrame], folder: Path, window: Window) -> DatasetSpec:
    write_shuffled(logs, folder / "logs", Layout(num_files=2, seed=0))
    spec = hard_dataset(folder / "logs", 3).model_copy(update={"window": window})
    pipeline = beam.Pipeline(argv=["--runner=FnApiRunner"])
    generate_examples(spec, str(folder / "examples"), str(folder / "accounts"), pipeline)
    return spec


def trained_weights(spec: DatasetSpec, folder: Path) -> dict[str, np.ndarray]:
    """Transforms train and validation and trains a model on them; its weights by name."""
    records = {
        split: [
            record
            for path in sorted((folder / "examples" / f"Split-{split}").glob("*.gz"))
            for record in tf.data.TFRecordDataset(
                str(path), compression_type="GZIP"
            ).as_numpy_iterator()
        ]
        for split in ("train", "validation")
    }
    ranking = spec.ranking.model_view
    transformed = transform_records(ranking, records, folder / "model", spec.slice_columns, {})
    run = train(
        transformed, folder / "model", objective={"click.auc": 1.0}, epochs=1, batch_size=512
    )
    path = str(run.model / "variables" / "variables")
    return {
        name: tf.train.load_variable(path, name)
        for name, _ in tf.train.list_variables(path)
        if name.startswith("weights/")
    }


@pytest.mark.slow
def test_the_model_is_the_same_to_the_bit(tmp_path: Path) -> None:
    logs = make_logs(tmp_path / "simulated", impressions=6_000, hot_events=400)
    write_shuffled(logs, tmp_path / "logs", Layout(num_files=1, seed=0))
    whole = hard_dataset(tmp_path / "logs", 3)
    at = whole.window.test_start + DAY_MS // 2
    window = seen_at(whole, at).window
    # The last one is a control: another past gives other examples and another model.
    futures = [logs, other_future(logs, at, seed=1), other_future(logs, at - 3 * DAY_MS, seed=1)]
    digests, weights = [], []
    for number, each in enumerate(futures):
        folder = tmp_path / str(number)
        spec = generate(each, folder, window)
        digests.append({split: digest(folder)[split] for split in SPLITS})
        weights.append(trained_weights(spec, folder))
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]
    assert weights[0].keys() == weights[1].keys()
    assert len(weights[0]) > 10
    for name, value in weights[0].items():
        np.testing.assert_array_equal(weights[1][name], value, err_msg=name)
    assert any(
        value.shape != weights[2][name].shape or not np.array_equal(value, weights[2][name])
        for name, value in weights[0].items()
    )
