"""Transformed rows in memory and streamed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from models.rows import Batch, CachedRows, Rows, StreamedRows, read_rows
from models.spec.errors import DataError
from models.spec.keys import TRANSFORMED_CATEGORICAL, TRANSFORMED_GROUP, TRANSFORMED_NUMERIC
from tests.conformance.synthetic_ranking import encode, write_records

SPEC = {
    TRANSFORMED_CATEGORICAL: tf.io.FixedLenFeature([2], tf.int64),
    TRANSFORMED_NUMERIC: tf.io.FixedLenFeature([1], tf.float32),
    TRANSFORMED_GROUP: tf.io.FixedLenFeature([], tf.int64),
    "click__label": tf.io.FixedLenFeature([], tf.float32),
    "other__label": tf.io.FixedLenFeature([], tf.float32),
}
NUM_ROWS = 25


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows")
    for shard, (start, stop) in enumerate([(0, 11), (11, 11), (11, NUM_ROWS)]):
        numbers = range(start, stop)
        records = encode(
            {
                TRANSFORMED_CATEGORICAL: [[i, i + 1] for i in numbers],
                TRANSFORMED_NUMERIC: [float(i) for i in numbers],
                TRANSFORMED_GROUP: [i // 3 for i in numbers],
                "click__label": [float(i % 2) for i in numbers],
                "other__label": [0.0 for _ in numbers],
            }
        )
        write_records(path / f"part-{shard}.gz", records)
    return path


def read(folder: Path, cache_bytes: int) -> Rows:
    return read_rows(
        [str(folder / "*")],
        SPEC,
        ["click__label"],
        split="train",
        cache_bytes=cache_bytes,
        shuffle_buffer=7,
    )


@pytest.fixture(params=[10**9, 0], ids=["cached", "streamed"])
def rows(request: pytest.FixtureRequest, folder: Path) -> Rows:
    return read(folder, request.param)


def order(batches: Iterator[Batch]) -> list[int]:
    return [int(g) for batch in batches for g in batch[TRANSFORMED_NUMERIC].numpy()[:, 0]]


def test_rows_that_fit_are_cached(folder: Path) -> None:
    num_bytes = NUM_ROWS * (2 * 4 + 4 + 8 + 4)
    assert isinstance(read(folder, num_bytes), CachedRows)
    assert isinstance(read(folder, num_bytes - 1), StreamedRows)


def test_in_order(rows: Rows) -> None:
    assert rows.num_rows == NUM_ROWS
    batches = list(rows.in_order(10))
    assert [len(b[TRANSFORMED_NUMERIC]) for b in batches] == [10, 10, 5]
    assert order(rows.in_order(10)) == list(range(NUM_ROWS))
    assert set(batches[0]) == set(rows.names) == set(SPEC) - {"other__label"}
    assert batches[0][TRANSFORMED_CATEGORICAL].dtype == tf.int32
    for name, spec in rows.batch_spec.items():
        assert all(spec.is_compatible_with(batch[name]) for batch in batches)
        assert spec.shape[0] is None
    np.testing.assert_array_equal(batches[1][TRANSFORMED_CATEGORICAL][0], [10, 11])
    np.testing.assert_array_equal(rows.column("click__label"), np.arange(NUM_ROWS) % 2)


def test_shuffled_by_seed_and_epoch(rows: Rows) -> None:
    first = order(rows.shuffled(4, seed=1, epoch=1))
    assert sorted(first) == list(range(NUM_ROWS)) and first != sorted(first)
    assert order(rows.shuffled(4, seed=1, epoch=1)) == first
    assert order(rows.shuffled(4, seed=1, epoch=2)) != first
    assert order(rows.shuffled(4, seed=2, epoch=1)) != first


def test_rows_stay_together(rows: Rows) -> None:
    for batch in rows.shuffled(4, seed=1, epoch=1):
        number = batch[TRANSFORMED_NUMERIC].numpy()[:, 0]
        np.testing.assert_array_equal(batch["click__label"], number % 2)
        np.testing.assert_array_equal(batch[TRANSFORMED_CATEGORICAL][:, 1], number + 1)


@pytest.mark.parametrize("cache_bytes", [0, 10**9])
def test_no_rows(tmp_path: Path, cache_bytes: int) -> None:
    with pytest.raises(DataError, match="train split has no rows"):
        read(tmp_path, cache_bytes)
    write_records(tmp_path / "part-0.gz", [])
    with pytest.raises(DataError, match="train split has no rows"):
        read(tmp_path, cache_bytes)
