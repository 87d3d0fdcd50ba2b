"""LogExampleGen on Beam: the same bytes for any order, sharding and workers; faults; the node."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tfx.types import artifact_utils, standard_artifacts
from tfx_bsl.coders import example_coder

from components.artifacts import LogAccounts
from components.log_example_gen.beam_graph import snapshot_file
from components.log_example_gen.build import build_examples, read_logs
from components.log_example_gen.component import LogExampleGen
from components.log_example_gen.example_encoder import encode_examples
from components.log_example_gen.executor import Executor, generate_examples
from components.log_example_gen.plan import Plan
from components.log_example_gen.spec import DatasetSpec, Window
from components.log_example_gen.splits import SPLITS
from models.spec.errors import ConfigError, DataError
from tests.reference import small_logs
from tests.reference.comparison import assert_equal, write_logs
from tests.reference.naive import reference_examples
from tests.reference.small_logs import BASE, Row

IN_MEMORY = ("--runner=FnApiRunner", "--direct_num_workers=1")
TWO_THREADS = (
    "--runner=FnApiRunner",
    "--direct_num_workers=2",
    "--direct_running_mode=multi_threading",
)
WINDOW = Window(
    train_start=BASE,
    validation_start=BASE + 7,
    test_start=BASE + 10,
    test_end=BASE + 16,
    train_cutoff=BASE + 12,
    cutoff=BASE + 24,
)


def run(spec: DatasetSpec, out: Path, arguments: tuple[str, ...] = IN_MEMORY) -> dict[str, Any]:
    pipeline = beam.Pipeline(argv=list(arguments))
    return generate_examples(spec, str(out / "examples"), str(out / "accounts"), pipeline)


def records(out: Path, split: str) -> list[bytes]:
    """Serialized examples of a split, sorted, after checking that each file is in order."""
    found = []
    for path in sorted((out / "examples" / f"Split-{split}").iterdir()):
        assert path.suffix == ".gz"
        own = [r.numpy() for r in tf.data.TFRecordDataset(str(path), compression_type="GZIP")]
        times = [time_of(record) for record in own]
        assert times == sorted(times)
        found += own
    return sorted(found)


def time_of(record: bytes) -> int:
    example = tf.train.Example.FromString(record)
    return int(example.features.feature["impression__timestamp"].int64_list.value[0])


def decoded(record: bytes, template: pl.DataFrame) -> Row:
    """An example as the frame's row: scalars, and lists where the frame has arrays."""
    row: Row = {}
    for name, feature in tf.train.Example.FromString(record).features.feature.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        values = [v.decode() if isinstance(v, bytes) else v for v in values]
        is_list = isinstance(template.schema[name], pl.Array)
        row[name] = values if is_list else values[0] if values else None
    return row


def everything(out: Path) -> tuple[Any, ...]:
    accounts = json.loads((out / "accounts" / "accounts.json").read_text())
    dead = pl.read_parquet(out / "accounts" / "dead_letters.parquet").drop("file", "row")
    folder = out / "accounts" / "features"
    features: dict[str, Any] = {p.name: pl.read_parquet(p).rows() for p in folder.glob("*.parquet")}
    features |= {p.name: p.read_bytes() for p in folder.glob("*.lookup")}
    assert len(features) > 1 and "snapshot.lookup" in features
    return (
        {split: records(out, split) for split in SPLITS},
        accounts,
        sorted(map(repr, dead.rows())),
        features,
    )


def dense_logs(seed: int) -> dict[str, list[Row]]:
    return small_logs.random_logs(small_logs.SLATES_COLUMNS, seed, 3.0)


# Equality --------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
@given(seed=small_logs.seeds, num_shards=st.integers(1, 5), workers=st.sampled_from([1, 2]))
def test_beam_equals_the_reference(
    tmp_path_factory: pytest.TempPathFactory, seed: int, num_shards: int, workers: int
) -> None:
    root = tmp_path_factory.mktemp("logs")
    logs = dense_logs(seed)
    spec = small_logs.dataset(small_logs.SLATES, WINDOW, root=root, num_shards=num_shards)
    write_logs(spec, logs, num_files=1 + seed % 3, seed=seed)
    accounts = run(spec, root / "out", IN_MEMORY if workers == 1 else TWO_THREADS)
    template = build_examples(spec, read_logs(spec)).examples["train"]
    key = ("impression__timestamp", "request_id__key", "item_id__key")
    examples = {
        split: sorted(
            (decoded(record, template) for record in records(root / "out", split)),
            key=lambda row: tuple(row[name] for name in key),
        )
        for split in SPLITS
    }
    snapshots = {
        entity: pl.read_parquet(root / "out" / "accounts" / "features" / snapshot_file(entity))
        for entity in Plan(spec).entity_sets
    }
    expected = reference_examples(spec, logs, small_logs.SLATES_FUNCTIONS)
    assert_equal(expected, examples, accounts, snapshots)


@pytest.mark.slow
def test_order_files_shards_and_workers_do_not_change_a_byte(tmp_path: Path) -> None:
    logs = dense_logs(7)
    found = []
    for number, (num_shards, num_files, arguments) in enumerate(
        [(1, 1, IN_MEMORY), (3, 4, IN_MEMORY), (5, 2, TWO_THREADS)]
    ):
        root = tmp_path / str(number)
        spec = small_logs.dataset(small_logs.SLATES, WINDOW, root=root, num_shards=num_shards)
        write_logs(spec, logs, num_files=num_files, seed=number)
        run(spec, root / "out", arguments)
        found.append(everything(root / "out"))
    assert found[0] == found[1] == found[2]
    assert sum(len(rows) for rows in found[0][0].values()) > 20


@pytest.mark.slow
@pytest.mark.parametrize("at", [BASE + 7, BASE + 9])
def test_nothing_after_a_moment_changes_an_example_before_it(tmp_path: Path, at: int) -> None:
    """The proof against leaks: other events after T, the same bytes before it.

    Labels may look as far as the cut-off, so the run that is compared looks at the world at T.
    """
    logs = dense_logs(11)
    window = Window(
        train_start=BASE,
        validation_start=BASE + 3,
        test_start=BASE + 5,
        test_end=at,
        train_cutoff=BASE + 5,
        cutoff=at,
    )
    changed = {}
    draw = random.Random(3)
    for name, rows in logs.items():
        before = [row for row in rows if row["time"] is None or row["time"] < at]
        after = [dict(row) for row in rows if row["time"] is not None and row["time"] >= at]
        for row in after:
            row["time"] = at + draw.randint(0, 5)
            for column in ("seconds", "amount", "rating", "price"):
                if column in row:
                    row[column] = 99
        changed[name] = before + after + [dict(row) for row in after[:3]]
    # What is known only after T of impressions before it changes too.
    for row in changed["impressions"]:
        if row["time"] is not None and row["time"] + 3 > at:
            row["rated"] = 2
    found = []
    for name, content in (("first", logs), ("second", changed)):
        root = tmp_path / name
        spec = small_logs.dataset(small_logs.SLATES, window, root=root, num_shards=2)
        write_logs(spec, content)
        run(spec, root / "out")
        found.append({split: records(root / "out", split) for split in SPLITS})
    assert found[0] == found[1]
    assert all(found[0].values())


# Encoding --------------------------------------------------------------------------------------


def test_encoding_equals_the_library_and_depends_on_the_row_alone() -> None:
    frame = pl.DataFrame(
        {
            "text": ["a", None, "é" * 200, ""],
            "dense": pl.Series([1.5, -0.0, 3e38, float("nan")], dtype=pl.Float32),
            "holes": pl.Series([None, 1.0, None, 2.0], dtype=pl.Float32),
            "number": [2**62, -1, 0, None],
            "numbers": pl.Series(np.arange(8), dtype=pl.Float32).reshape((4, 2)),
            "texts": pl.Series(["a", "", "bb", "x" * 300, "", "", "c", "d"]).reshape((4, 2)),
        }
    )
    offsets = pa.array(np.arange(5, dtype=np.int32))
    pairs = pa.array(np.arange(0, 10, 2, dtype=np.int32))

    def one_each(column: pl.Series, dtype: pa.DataType) -> pa.Array:
        values = column.to_arrow().cast(dtype)
        return pa.ListArray.from_arrays(offsets, values, mask=values.is_null())

    flat_texts = pa.array([t.encode() for row in frame["texts"] for t in row], pa.binary())
    batch = pa.RecordBatch.from_arrays(
        [
            one_each(frame["text"].cast(pl.Binary), pa.binary()),
            one_each(frame["dense"], pa.float32()),
            one_each(frame["holes"], pa.float32()),
            one_each(frame["number"], pa.int64()),
            pa.ListArray.from_arrays(pairs, pa.array(np.arange(8, dtype=np.float32))),
            pa.ListArray.from_arrays(pairs, flat_texts),
        ],
        frame.columns,
    )
    wanted = example_coder.RecordBatchToExamplesEncoder().encode(batch)
    found = encoded(frame)
    assert [canonical(record) for record in found] == [canonical(record) for record in wanted]
    # A row's bytes may not depend on what the rows beside it lack.
    alone = [record for i in range(4) for record in encoded(frame[i : i + 1])]
    assert alone == found
    assert encoded(frame.clear()) == []


def encoded(frame: pl.DataFrame) -> list[bytes]:
    return [record for chunk in encode_examples(frame) for record in chunk.to_pylist()]


def canonical(record: bytes) -> bytes:
    example = tf.train.Example.FromString(record)
    text: bytes = example.SerializeToString(deterministic=True)
    return text


def test_more_rows_than_one_chunk_are_encoded() -> None:
    frame = pl.DataFrame({"n": np.arange(20_000)})
    found = encoded(frame)
    assert len(found) == 20_000
    last = tf.train.Example.FromString(found[-1])
    assert list(last.features.feature["n"].int64_list.value) == [19_999]


def test_other_types_are_not_encoded() -> None:
    with pytest.raises(TypeError, match="'x' of type Float64"):
        encoded(pl.DataFrame({"x": [0.5]}))


# Faults ----------------------------------------------------------------------------------------


@pytest.fixture
def simple(tmp_path: Path) -> Iterator[Callable[..., DatasetSpec]]:
    """Makes datasets of the small slates; the changes damage what was written."""

    def make(
        change: Callable[[Path], None] = lambda root: None,
        text: str = small_logs.SLATES,
        logs: Mapping[str, list[Row]] | None = None,
    ) -> DatasetSpec:
        spec = small_logs.dataset(text, WINDOW, root=tmp_path / "logs", num_shards=2)
        write_logs(spec, logs or dense_logs(1), num_files=2)
        change(tmp_path / "logs")
        return spec

    yield make


def cut_in_half(root: Path) -> None:
    path = root / "clicks" / "part-1.parquet"
    path.write_bytes(path.read_bytes()[:200])


def without_column(root: Path) -> None:
    path = root / "purchases" / "part-0.parquet"
    pl.read_parquet(path).rename({"amount": "amout"}).write_parquet(path)


def in_seconds(root: Path) -> None:
    for path in (root / "history").iterdir():
        frame = pl.read_parquet(path)
        frame.with_columns(pl.lit(BASE // 1000).alias("timestamp")).write_parquet(path)


def without_test_rows(root: Path) -> None:
    for path in (root / "impressions").iterdir():
        frame = pl.read_parquet(path)
        frame.filter(pl.col("timestamp") < WINDOW.test_start).write_parquet(path)


def gone(root: Path) -> None:
    for path in (root / "returns").iterdir():
        path.unlink()


@pytest.mark.parametrize("arguments", [IN_MEMORY, TWO_THREADS], ids=["memory", "threads"])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (cut_in_half, r"file 'clicks/part-1.parquet' cannot be read"),
        (without_column, r"part-0.parquet' of 'purchases' lacks 'amount', did you mean 'amout'"),
        (in_seconds, r"no row of 'history' has a valid time.*time_unit: s"),
        (without_test_rows, r"the test split has no example"),
        (gone, r"no file of 'returns' matches"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    simple: Callable[..., DatasetSpec],
    tmp_path: Path,
    change: Callable[[Path], None],
    match: str,
    arguments: tuple[str, ...],
) -> None:
    with pytest.raises(DataError, match=match) as raised:
        run(simple(change), tmp_path / "out", arguments)
    assert "Traceback" not in str(raised.value)


def test_expressions_that_fail_are_named(
    simple: Callable[..., DatasetSpec], tmp_path: Path
) -> None:
    text = small_logs.SLATES.replace('"price is not null"', "category::INT = 1")
    with pytest.raises(ConfigError, match=r"expression of 'has_price' fails: category::INT = 1"):
        run(simple(text=text), tmp_path / "out")


def test_all_labels_zero_and_a_feature_missing(
    simple: Callable[..., DatasetSpec], tmp_path: Path
) -> None:
    logs = dense_logs(1) | {"clicks": []}
    for row in logs["impressions"]:
        row |= {"price": None, "category": "x"}
    accounts = run(simple(logs=logs), tmp_path / "out")
    counts = accounts["labels"]["click"]["by_split"]["train"]
    assert counts["mature"] > 0
    assert counts["sum"] == 0
    assert records(tmp_path / "out", "train")


def test_a_file_without_rows_and_a_folder_with_other_files(
    simple: Callable[..., DatasetSpec], tmp_path: Path
) -> None:
    def change(root: Path) -> None:
        (root / "clicks" / "_SUCCESS").write_text("")
        pl.read_parquet(root / "clicks" / "part-0.parquet").clear().write_parquet(
            root / "clicks" / "part-9.parquet"
        )

    assert run(simple(change), tmp_path / "out")["rows"]["clicks"]["used"] > 0


MINIMAL = """
logs:
  root: .
  impressions: {path: impressions/*, key: id}
  streams: {}
user: user_id
item: id
columns:
  id: {type: int, availability: request}
  user_id: {type: string, availability: request, role: feature}
  liked: {type: bool, availability: future, role: target}
tasks:
  like: {kind: binary, target: liked, gates: {auc: {min: 0}}}
"""


def test_a_flat_table_without_streams_slates_or_derived_features(tmp_path: Path) -> None:
    rows = [{"time": BASE + i, "id": i, "user_id": None, "liked": i % 2 == 0} for i in range(16)]
    text = MINIMAL + "features: {}\n"
    logs, ranking = small_logs.parse(text)
    spec = DatasetSpec(
        root=tmp_path,
        logs=logs,
        splits={"validation": 1, "test": 1},
        ranking=ranking,
        window=WINDOW,
        slice_columns=(),
        num_shards=3,
    )
    write_logs(spec, {"impressions": rows})
    accounts = run(spec, tmp_path / "out")
    assert [accounts["examples"][split] for split in SPLITS] == [7, 3, 6]
    example = tf.train.Example.FromString(records(tmp_path / "out", "test")[0])
    assert not example.features.feature["user_id"].HasField("kind")
    assert example.features.feature["user_id__key"].bytes_list.value == [b""]


# Size ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_user_with_100_000_events_and_a_slate_of_500(tmp_path: Path) -> None:
    """Quadratic work in the events of a user or the candidates of a slate would take minutes."""
    rng = np.random.default_rng(0)
    impressions = [
        {
            "time": BASE + int(rng.integers(0, 16)),
            "request_id": "big" if i < 500 else f"r{i}",
            "user_id": 1,
            "item_id": f"item{i}",
            "category": "x",
            "price": float(i),
            "is_new": None,
            "tags": None,
            "sizes": None,
            "position": 0,
            "rated": None,
        }
        for i in range(2000)
    ]
    for row in impressions[:500]:
        row["time"] = BASE + 12
    history = [
        {"time": BASE + i % 24, "user_id": 1, "item_id": f"item{i}", "rating": i % 7}
        for i in range(100_000)
    ]
    logs = {"impressions": impressions, "clicks": [], "purchases": [], "returns": []}
    spec = small_logs.dataset(small_logs.SLATES, WINDOW, root=tmp_path / "logs", num_shards=2)
    write_logs(spec, logs | {"history": history})
    accounts = run(spec, tmp_path / "out")
    assert accounts["rows"]["history"]["used"] == 100_000
    template = build_examples(spec, read_logs(spec)).examples["test"]
    big = [decoded(record, template) for record in records(tmp_path / "out", "test")]
    big = [row for row in big if row["request_id__key"] == "big"]
    assert len(big) == 500
    assert sorted(row["price_rank"] for row in big) == pytest.approx(np.arange(500) / 500)
    assert {tuple(row["user_ratings"]) for row in big} == {("0", "0")}


# The node --------------------------------------------------------------------------------------


def test_the_node_writes_what_tfx_expects(
    simple: Callable[..., DatasetSpec], tmp_path: Path
) -> None:
    spec = simple()
    node = LogExampleGen(spec_json=spec.model_dump_json(), fingerprint="f", code_hash="c")
    assert node.outputs["examples"].type is standard_artifacts.Examples
    assert node.outputs["accounts"].type is LogAccounts
    examples, accounts = standard_artifacts.Examples(), LogAccounts()
    examples.uri, accounts.uri = str(tmp_path / "e"), str(tmp_path / "a")
    executor = Executor(Executor.Context(beam_pipeline_args=list(IN_MEMORY)))
    executor.Do({}, {"examples": [examples], "accounts": [accounts]}, dict(node.exec_properties))
    assert artifact_utils.decode_split_names(examples.split_names) == list(SPLITS)
    assert examples.get_string_custom_property("payload_format") == "FORMAT_TF_EXAMPLE"
    assert examples.get_string_custom_property("file_format") == "tfrecords_gzip"
    assert {p.name for p in Path(examples.uri).iterdir()} == {f"Split-{s}" for s in SPLITS}
    assert {p.name for p in Path(accounts.uri).iterdir()} == {
        "accounts.json",
        "dead_letters.parquet",
        "features",
    }
    found = json.loads(Path(accounts.uri, "accounts.json").read_text())
    assert found["window"]["test"] == [WINDOW.test_start, WINDOW.test_end]
    days = found["labels"]["click"]["by_day"]
    assert list(days) == ["2020-09-13"]
    assert days["2020-09-13"]["rows"] == sum(found["examples"][s] for s in SPLITS)


def test_examples_hold_features_keys_labels_and_no_future(
    simple: Callable[..., DatasetSpec], tmp_path: Path
) -> None:
    spec = simple()
    run(spec, tmp_path / "out")
    names = {
        name
        for record in records(tmp_path / "out", "train")
        for name in tf.train.Example.FromString(record).features.feature
    }
    ranking = spec.ranking
    allowed = {f.name for f in [*ranking.training_features, *ranking.rank_inputs]}
    allowed |= {f"{c}__key" for c in ranking.key_columns} | {"impression__timestamp"}
    allowed |= {f"{c}__slice" for c in spec.slice_columns}
    for output in ranking.all_outputs:
        allowed |= {output.label_key, output.mask_key, output.weight_key}
    assert names == allowed
    future = {n for n, c in ranking.columns.items() if c.availability == "future"}
    assert not names & future
