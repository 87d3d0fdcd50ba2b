"""The parts of LogExampleGen one by one, where the reference comparison is too coarse."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.log_example_gen import faults, sql
from components.log_example_gen.accounts import UselessData, accounts, refuse_useless
from components.log_example_gen.expressions import Expression, evaluate, holds, in_order
from components.log_example_gen.labels import labels
from components.log_example_gen.plan import Plan
from components.log_example_gen.sharding import MAX_TABLE_ROWS, shard_of, split_by_shard
from components.log_example_gen.slate import slate_relative
from components.log_example_gen.spec import Window
from components.log_example_gen.splits import SPLIT
from components.log_example_gen.table_store import TableStore
from components.log_example_gen.time_index import TimeIndex, entity_codes
from models.spec.errors import ConfigError, DataError, PolyrankError, Refused
from models.spec.feature import SlateRelative
from models.spec.ranking import RankingSpec
from tests.reference import small_logs

# Shards ----------------------------------------------------------------------------------------


def test_shards_are_the_same_on_every_machine() -> None:
    """Pinned: another value would scatter what must meet, between machines or versions."""
    keys = [pl.Series(["a", "b", None, "", "ä", "long" * 100]), pl.Series([1, 2, 3, 4, None, 6])]
    assert shard_of(keys, 1000).tolist() == [306, 211, 942, 38, 894, 439]


def test_keys_of_other_types_meet() -> None:
    numbers, texts = pl.Series([1, 22, 333]), pl.Series(["1", "22", "333"])
    assert shard_of([numbers], 97).tolist() == shard_of([texts], 97).tolist()
    flags = shard_of([pl.Series([True, False])], 97).tolist()
    assert flags == shard_of([pl.Series(["true", "false"])], 97).tolist()


def test_a_slice_hashes_like_its_rows() -> None:
    texts = pl.Series([f"key{i}" for i in range(100)])
    assert shard_of([texts[40:60]], 97).tolist() == shard_of([texts], 97)[40:60].tolist()


def test_a_row_has_the_same_shard_in_tables_of_any_length() -> None:
    """Rows are hashed in chunks, and long texts beyond the powers that are kept."""
    texts = pl.Series([f"k{i}" * (1 + i % 3) for i in range(20_000)])
    texts[8_191] = "x" * 300_000
    whole = shard_of([texts, texts], 1000)
    for begin in (0, 8_190, 8_191, 8_192, 16_384, 19_999):
        part = texts[begin : begin + 3]
        assert shard_of([part, part], 1000).tolist() == whole[begin : begin + 3].tolist()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    pairs=st.lists(st.tuples(st.one_of(st.none(), st.text(max_size=5)), st.text(max_size=5))),
    num_shards=st.integers(1, 5),
)
def test_equal_keys_meet_and_no_row_is_lost(
    pairs: list[tuple[str | None, str]], num_shards: int
) -> None:
    frame = pl.DataFrame(pairs, schema={"a": pl.String, "b": pl.String}, orient="row")
    found = list(split_by_shard(frame, [frame["a"], frame["b"]], num_shards))
    assert sorted(repr(r) for _, part in found for r in part.rows()) == sorted(map(repr, pairs))
    shard_of_pair: dict[Any, int] = {}
    for shard, part in found:
        for row in part.rows():
            assert shard_of_pair.setdefault(row, shard) == shard


def test_shards_are_even_and_tables_bounded() -> None:
    frame = pl.DataFrame({"a": np.arange(5 * MAX_TABLE_ROWS)})
    sizes = [0] * 3
    for shard, part in split_by_shard(frame, [frame["a"]], 3):
        assert len(part) <= MAX_TABLE_ROWS
        sizes[shard] += len(part)
    assert sum(sizes) == len(frame)
    assert max(sizes) < 1.02 * min(sizes)


@pytest.mark.parametrize("where", ["elements", "files"])
def test_tables_survive_their_wait(where: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": ["x", None], "l": [[1, None], None], "f": [0.5, None]})
    store = TableStore(None if where == "elements" else str(tmp_path))
    # A copy, as Beam makes one for every worker, writes a file of its own.
    first = store.put(frame)
    copy: TableStore = pickle.loads(pickle.dumps(store))
    tables = [first, store.put(frame.clear()), copy.put(frame)]
    assert isinstance(first, bytes) == (where == "elements")
    assert len(list(tmp_path.iterdir())) == (0 if where == "elements" else 2)
    assert store.get(tables).equals(pl.concat([frame, frame]))


def test_a_table_file_cut_short_is_no_table(tmp_path: Path) -> None:
    table = TableStore(str(tmp_path)).put(pl.DataFrame({"a": np.arange(1000)}))
    path = Path(str(table[0]))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(EOFError, match="shorter than its tables"):
        TableStore(str(tmp_path)).get([table])


# Search ----------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    events=st.lists(st.tuples(st.integers(0, 3), st.integers(-9, 9))).map(sorted),
    queries=st.lists(st.tuples(st.integers(0, 3), st.integers(-20, 20)), min_size=1),
)
def test_time_index_counts_what_is_strictly_before(
    events: list[tuple[int, int]], queries: list[tuple[int, int]]
) -> None:
    codes, times = np.array(events, dtype=np.int64).reshape(-1, 2).T
    index = TimeIndex(codes, times, 4)
    asked = np.array(queries)
    expected = [sum((c, t) < query for c, t in events) for query in queries]
    assert index.before(asked[:, 0], asked[:, 1]).tolist() == expected


def test_time_index_refuses_what_does_not_fit_in_63_bits() -> None:
    with pytest.raises(DataError, match=r"raise beam\.num_shards"):
        TimeIndex(np.array([0, 1]), np.array([0, 2**50]), 2**14)


def test_entity_codes_tell_combinations_apart() -> None:
    left = [pl.Series(["a", "a", "b", None]), pl.Series(["x", "y", "x", "x"])]
    right = [pl.Series(["b", "a", "c"]), pl.Series(["x", "y", None])]
    (one, other), num_codes = entity_codes([left, right])
    assert one[0] != one[1] != one[2]
    assert (other[0], other[1]) == (one[2], one[1])
    assert one[3] == other[2] == -1
    assert num_codes > max(one.max(), other.max())


# Slates ----------------------------------------------------------------------------------------


def relative(values: list[float | None], relation: str, groups: list[int] | None = None) -> Any:
    spec = SlateRelative.model_validate({"of": "x", "relation": relation})
    series = pl.Series("x", values, dtype=pl.Float64)
    numbers = np.array(groups or [0] * len(values))
    return slate_relative(series, numbers, spec).to_list()


def test_slate_relations() -> None:
    values = [2.0, 8.0, None, 2.0, 0.0]
    assert relative(values, "rank") == [0.2, 0.0, 0.8, 0.2, 0.6]
    assert relative(values, "share") == pytest.approx([2 / 12, 8 / 12, 0, 2 / 12, 0])
    assert relative(values, "ratio_to_max") == [0.25, 1.0, 0.0, 0.25, 0.0]
    assert relative(values, "count") == [4.0] * 5
    for relation in ("share", "ratio_to_max"):
        assert relative([0.0, 0.0, None], relation) == [0.0, 0.0, 0.0]
        assert relative([None], relation) == [0.0]
    assert relative([-4.0, -2.0], "ratio_to_max") == [2.0, 1.0]
    assert relative([1.0, -1.0], "share") == [0.0, 0.0]


def test_slates_do_not_mix() -> None:
    assert relative([1.0, 2.0, 3.0, 4.0], "rank", [1, 0, 1, 0]) == [0.5, 0.5, 0.0, 0.0]
    assert relative([None, 2.0, 3.0, 4.0], "count", [1, 0, 1, 0]) == [1.0, 2.0, 1.0, 2.0]


def test_ranks_do_not_depend_on_digits_that_serving_lacks() -> None:
    assert relative([0.1, 0.1 + 1e-12], "rank") == [0.0, 0.0]


def test_slates_of_one_and_of_many() -> None:
    assert relative([3.0], "rank") == [0.0]
    ranks = relative([float(i) for i in range(500)], "rank")
    assert ranks == [(499 - i) / 500 for i in range(500)]


# Expressions -----------------------------------------------------------------------------------

ROWS = pl.DataFrame({"a": [1, 2, None], "s": ["x", "10", None]})


def test_expressions_are_typed_and_ordered() -> None:
    ordered = in_order(
        [
            Expression("c", "string", "b || '!'"),
            Expression("b", "float", "a / 2"),
            Expression("d", "bool", "a > 1"),
        ]
    )
    assert [e.name for e in ordered] == ["b", "c", "d"]
    rows = evaluate(ROWS, ordered)
    assert rows["b"].to_list() == [0.5, 1.0, None]
    assert rows["c"].to_list() == ["0.5!", "1.0!", None]
    assert rows["d"].to_list() == [False, True, None]
    assert evaluate(ROWS.clear(), ordered).schema == rows.schema


def test_what_is_not_a_number_is_missing() -> None:
    rows = evaluate(ROWS, (Expression("b", "float", "'nan'::DOUBLE + a"),))
    assert rows["b"].to_list() == [None, None, None]


def test_null_conditions_are_false() -> None:
    assert holds(ROWS, "a > 1", "where").to_list() == [False, True, False]


@pytest.mark.parametrize(
    ("text", "kind", "match"),
    [
        ("CAST(s AS BIGINT)", "int", "expression of 'b' fails.*TRY_CAST"),
        ("s", "float", "Could not convert string '...' to DOUBLE"),
        ("a + 'x'::DATE", "int", "fails"),
        ("unnest([1, 2])", "int", "not row by row|fails"),
    ],
)
def test_failing_expressions_say_which_and_why(text: str, kind: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        evaluate(ROWS, (Expression("b", kind, text),))


def test_expressions_cannot_read_files() -> None:
    with pytest.raises(Exception, match=r"disabled|Permission"):
        sql.query("SELECT * FROM read_text('/etc/hostname')", ROWS)


# Labels ----------------------------------------------------------------------------------------

WINDOW = Window(
    train_start=0, validation_start=10, test_start=20, test_end=30, train_cutoff=10, cutoff=30
)


def label_rows(**tasks: dict[str, Any]) -> RankingSpec:
    outcome = {"availability": "future", "role": "target", "type": "float"}
    return RankingSpec.model_validate(
        {
            "user": "u",
            "item": "u",
            "columns": {
                "u": {"type": "string", "availability": "request"},
                "y": outcome,
                "z": outcome,
            },
            "tasks": {n: {"gates": {}, "role": "served"} | t for n, t in tasks.items()},
        }
    )


def test_impossible_labels_are_masked_and_counted_not_trained_on() -> None:
    spec = label_rows(
        y={"kind": "binary", "target": "y", "gates": {"auc": {"min": 0}}},
        z={"kind": "duration", "target": "z", "gates": {"mae": {"max": 1}}},
    )
    rows = pl.DataFrame(
        {
            "impression__timestamp": [1, 2, 3],
            SPLIT: ["train"] * 3,
            "y": [1.0, 2.0, None],
            "z": [-1.0, 1e39, 3.0],
        }
    )
    found = labels(rows, spec, WINDOW)
    assert found["y__mask"].to_list() == [1.0, 0.0, 0.0]
    assert found["y__impossible"].to_list() == [False, True, False]
    assert found["z__mask"].to_list() == [0.0, 0.0, 1.0]
    assert found["z__label"].to_list() == [0.0, 0.0, 3.0]
    assert found["z__impossible"].to_list() == [True, True, False]


def test_impossible_labels_outside_the_sample_space_are_not_counted() -> None:
    z = {"kind": "duration", "target": "z", "gates": {"mae": {"max": 1}}}
    rows = pl.DataFrame(
        {
            "impression__timestamp": [1, 2, 3],
            SPLIT: ["train"] * 3,
            "y": [1.0, 0.0, None],
            "z": [-1.0, -1.0, -1.0],
        }
    )
    masked = label_rows(z=z | {"mask": "y"})
    assert labels(rows, masked, WINDOW)["z__impossible"].to_list() == [True, False, False]


# Plan ------------------------------------------------------------------------------------------


def plan_with(text: str, *changes: tuple[str, str]) -> Plan:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return Plan(small_logs.dataset(text, WINDOW))


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("key: [request_id, item_id]", "key: []", "key is empty"),
        (
            "praised: {type: bool, availability: future, role: auxiliary_target",
            "praised: {type: bool, availability: future, role: [auxiliary_target, group]",
            "column 'praised' is a key, a group or a slice",
        ),
        ("where: is_new", "where: clicked", "'new_clicks' reads column 'clicked'"),
        (
            "aggregate: sum, value: seconds, window: 8ms",
            "aggregate: sum, value: note, window: 8ms",
            "column 'watch_seconds' takes the sum of a string",
        ),
        (
            "aggregate: mean, value: seconds",
            "aggregate: mean, value: note",
            "'item_mean' takes the mean of a string",
        ),
    ],
)
def test_plans_that_cannot_be_carried_out(old: str, new: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        plan_with(small_logs.SLATES, (old, new))


# Accounts --------------------------------------------------------------------------------------


def test_accounts_that_do_not_add_up_are_an_error() -> None:
    plan = Plan(small_logs.dataset(small_logs.WIDE, WINDOW))
    tally = {("rows", "impressions", "read"): 5.0, ("rows", "impressions", "used"): 4.0}
    with pytest.raises(PolyrankError, match="'impressions' do not add up"):
        accounts(tally, plan)
    tally[("rows", "impressions", "read")] = 4
    with pytest.raises(PolyrankError, match="'examples' do not add up"):
        accounts(tally, plan)


def test_useless_data_are_refused() -> None:
    counts = {"mature": 0, "impossible": 7}
    found: dict[str, Any] = {
        "examples": {
            "exploded": 9,
            "dead": {"malformed": 9},
            "outside": 0,
            "train": 0,
            "validation": 0,
            "test": 0,
        },
        "misfits": {"impressions": {"price": 7, "id": 2}},
        "labels": {"click": {"by_split": {"train": counts}}},
    }
    told = "no example.*dead: 9 malformed; values that do not fit their column: 7 price, 2 id"
    with pytest.raises(UselessData, match=f"the train split has {told}") as caught:
        refuse_useless(found)
    assert caught.value.accounts is found
    found["examples"] |= {"train": 7, "validation": 7, "test": 7}
    with pytest.raises(DataError, match="no label of 'click' is possible.*7 other values"):
        refuse_useless(found)
    counts["mature"] = 1
    refuse_useless(found)


# Faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [PolyrankError, ConfigError, DataError, Refused])
def test_faults_survive_as_text(kind: type[PolyrankError]) -> None:
    error = kind("what 'x'", constraint='a "b"', received="ü\n", remedy="do it")
    text = f"Traceback ... {faults.WorkerFault(error)!r} [while running 'Read']"
    found = faults.find_fault(RuntimeError(text))
    assert type(found) is kind
    assert str(found) == str(error)
    assert faults.find_fault(RuntimeError("other")) is None


# Imports ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_reading_logs_needs_no_tensorflow() -> None:
    code = (
        "import sys; import components.log_example_gen.window, components.log_example_gen.build;"
        "assert not {'tensorflow', 'tfx', 'apache_beam'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
