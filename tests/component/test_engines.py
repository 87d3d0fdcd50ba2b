"""What any Beam runner must pass: the transforms, row for row, and a user's error on its way out.

Here the runner in this process, alone, with threads and with processes. Another one is tested by

    POLYRANK_BEAM_ARGUMENTS="--runner=FlinkRunner --flink_master=host:8081 ..." pytest FILE

with TMPDIR on a disk that its workers share.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import polars as pl
import pytest
import tensorflow as tf

from components.log_example_gen.beam_graph import snapshot_file
from components.log_example_gen.build import build_examples, read_logs
from components.log_example_gen.executor import generate_examples
from components.log_example_gen.plan import Plan
from components.log_example_gen.spec import DatasetSpec, Window
from models.spec.errors import DataError
from pipeline.config import Beam
from tests.reference import small_logs
from tests.reference.comparison import assert_equal, write_logs
from tests.reference.exactness import SPLITS, digest
from tests.reference.naive import Reference, reference_examples
from tests.reference.small_logs import BASE, Row

pytestmark = pytest.mark.slow

WINDOW = Window(
    train_start=BASE,
    validation_start=BASE + 7,
    test_start=BASE + 10,
    test_end=BASE + 16,
    train_cutoff=BASE + 12,
    cutoff=BASE + 24,
)
ENGINES = {
    "in process": Beam().pipeline_arguments,
    "threads": Beam(direct_num_workers=3).pipeline_arguments,
    "processes": Beam(
        direct_num_workers=2, direct_running_mode="multi_processing"
    ).pipeline_arguments,
}
if "POLYRANK_BEAM_ARGUMENTS" in os.environ:
    ENGINES = {"given": tuple(shlex.split(os.environ["POLYRANK_BEAM_ARGUMENTS"]))}

engines = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture(scope="module")
def logs() -> dict[str, list[Row]]:
    return small_logs.random_logs(small_logs.SLATES_COLUMNS, 5, 4.0)


@pytest.fixture(scope="module")
def expected(logs: dict[str, list[Row]]) -> Reference:
    spec = small_logs.dataset(small_logs.SLATES, WINDOW)
    return reference_examples(spec, logs, small_logs.SLATES_FUNCTIONS)


def run(spec: DatasetSpec, out: Path, engine: str) -> dict[str, Any]:
    pipeline = beam.Pipeline(argv=list(ENGINES[engine]))
    return generate_examples(spec, str(out / "examples"), str(out / "accounts"), pipeline)


def written_rows(out: Path, templates: Mapping[str, pl.DataFrame]) -> dict[str, list[Row]]:
    """Examples by split in order of time and key, as the frame's rows."""
    found: dict[str, list[Row]] = {}
    for split in SPLITS:
        rows = []
        for path in (out / "examples" / f"Split-{split}").glob("*.gz"):
            for record in tf.data.TFRecordDataset(str(path), compression_type="GZIP"):
                features = tf.train.Example.FromString(record.numpy()).features.feature
                rows.append({n: value(f, templates[split][n]) for n, f in features.items()})
        keys = ("impression__timestamp", "request_id__key", "item_id__key")
        found[split] = sorted(rows, key=lambda row: tuple(row[name] for name in keys))
    return found


def value(feature: tf.train.Feature, column: pl.Series) -> Any:
    kind = feature.WhichOneof("kind")
    values = list(getattr(feature, kind).value) if kind else []
    values = [v.decode() if isinstance(v, bytes) else v for v in values]
    if isinstance(column.dtype, pl.Array):
        return values
    return values[0] if values else None


@engines
def test_every_row_equals_plain_loops(
    engine: str, logs: dict[str, list[Row]], expected: Reference, tmp_path: Path
) -> None:
    spec = small_logs.dataset(small_logs.SLATES, WINDOW, root=tmp_path / "logs", num_shards=4)
    write_logs(spec, logs, num_files=3)
    accounts = run(spec, tmp_path / "out", engine)
    in_memory = build_examples(spec, read_logs(spec))
    features = tmp_path / "out" / "accounts" / "features"
    snapshots = {
        entity: pl.read_parquet(features / snapshot_file(entity))
        for entity in Plan(spec).entity_sets
    }
    rows = written_rows(tmp_path / "out", in_memory.examples)
    assert_equal(expected, rows, accounts, snapshots)
    assert sum(map(len, rows.values())) > 40
    assert {p.name for p in (tmp_path / "out" / "accounts").iterdir()} == {
        "accounts.json",
        "dead_letters.parquet",
        "features",
    }


def test_engines_write_the_same_bytes(logs: dict[str, list[Row]], tmp_path: Path) -> None:
    spec = small_logs.dataset(small_logs.SLATES, WINDOW, root=tmp_path / "logs", num_shards=3)
    write_logs(spec, logs, num_files=2)
    found = []
    for engine in ENGINES:
        run(spec, tmp_path / engine, engine)
        found.append(digest(tmp_path / engine))
    assert all(each == found[0] for each in found)


@engines
def test_a_fault_in_a_worker_keeps_its_message(
    engine: str, logs: dict[str, list[Row]], tmp_path: Path
) -> None:
    spec = small_logs.dataset(small_logs.SLATES, WINDOW, root=tmp_path / "logs", num_shards=2)
    write_logs(spec, logs)
    path = tmp_path / "logs" / "clicks" / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"file 'clicks/part-0.parquet' cannot be read") as raised:
        run(spec, tmp_path / "out", engine)
    assert "Traceback" not in str(raised.value)
    left = [p.name for p in (tmp_path / "out" / "accounts").iterdir() if p.name.startswith(".")]
    assert left == []
