"""The look-up file of as-of features: equal to the tables, and to what rows at its time have."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from components.log_example_gen.build import build_examples, read_logs
from components.log_example_gen.lookup_file import write_lookup
from components.log_example_gen.plan import Plan
from components.log_example_gen.spec import DatasetSpec, Window
from components.log_example_gen.stages import looked_up
from models.spec.definition import computed_definitions
from models.spec.errors import DataError
from serving import snapshot_format
from serving.errors import InvalidRequestError
from serving.snapshot import FeatureSnapshot
from serving.snapshot_features import (
    FilledFeatures,
    OtherDefinitionError,
    SnapshotFeatures,
    StaleSnapshotError,
)
from serving.snapshot_format import (
    EntitySet,
    Lists,
    Numbers,
    RateOf,
    Texts,
    key_hashes,
    write_snapshot,
)
from tests.reference import small_logs
from tests.reference.comparison import write_logs
from tests.reference.small_logs import BASE, Row

FEW = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
TIME = 1_700_000_000_000


def opened(spec: DatasetSpec, tables: Mapping[tuple[str, ...], pl.DataFrame]) -> FeatureSnapshot:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, snapshot_format.FILE_NAME)
        write_lookup(Plan(spec), tables.items(), path)
        return FeatureSnapshot.open(folder)  # stays mapped when the file is gone


def as_float32(values: Any) -> Any:
    return np.asarray(values, dtype=np.float32)


# Against ingestion -----------------------------------------------------------------------------


@FEW
@given(seed=small_logs.seeds)
def test_every_value_of_the_tables_is_found(seed: int) -> None:
    window = small_logs.random_window(seed)
    logs = small_logs.random_logs(small_logs.SLATES_COLUMNS, seed, 1.5)
    with tempfile.TemporaryDirectory() as root:
        spec = small_logs.dataset(small_logs.SLATES, window, root=root)
        write_logs(spec, logs)
        built = build_examples(spec, read_logs(spec))
    snapshot = opened(spec, built.snapshots)
    assert snapshot.as_of_ms == window.cutoff
    compared = 0
    for entity, table in built.snapshots.items():
        assert snapshot.num_entities(*entity) == len(table)
        names = [n for n in table.columns if n not in entity]
        found = snapshot.look_up(names, {n: table[n].to_list() for n in entity})
        assert found.num_unknown == {entity: 0}
        for name in names:
            if table[name].dtype == pl.List:
                assert found.values[name] == table[name].to_list()
            else:
                expected = table[name].fill_null(float("nan")).to_numpy()
                np.testing.assert_array_equal(found.values[name], expected)
            compared += len(table)
    assert compared > 0


@FEW
@given(seed=small_logs.seeds)
def test_rows_at_the_time_of_a_snapshot_have_its_values(seed: int) -> None:
    """Features of impressions at T equal those of a run that looks at the world at T."""
    logs = small_logs.random_logs(small_logs.SLATES_COLUMNS, seed, 1.5)
    with tempfile.TemporaryDirectory() as root:
        whole = small_logs.dataset(small_logs.SLATES, _window(BASE + 30), root=root)
        write_logs(whole, logs)
        read = read_logs(whole)
        rows = pl.concat(build_examples(whole, read).examples.values())
        compared = 0
        for at in rows["impression__timestamp"].unique().sort()[3::4]:
            spec = small_logs.dataset(small_logs.SLATES, _window(at), root=root)
            snapshot = opened(spec, build_examples(spec, read).snapshots)
            compared += _compare(snapshot, rows.filter(pl.col("impression__timestamp") == at), at)
    assert compared > 0


def _window(cutoff: int) -> Window:
    return Window(
        train_start=BASE,
        validation_start=BASE + 1,
        test_start=BASE + 2,
        test_end=cutoff,
        train_cutoff=BASE + 1,
        cutoff=cutoff,
    )


def _compare(snapshot: FeatureSnapshot, rows: pl.DataFrame, at_ms: int) -> int:
    entities = {n: rows[n].to_list() for n in ("user_id", "item_id", "category")}
    names = [n for n in snapshot.features if n in rows.columns]
    assert "rate" in names and "item_age" in names and "user_items" in names
    found = snapshot.look_up(names, entities, at_ms=at_ms).values
    for name in names:
        if isinstance(rows.schema[name], pl.Array):
            expected = [[t for t in texts if t] for texts in rows[name].to_list()]
            assert found[name] == expected, name
        else:
            expected = rows[name].fill_null(float("nan")).to_numpy()
            np.testing.assert_array_equal(as_float32(found[name]), expected, err_msg=name)
    return len(rows)


def test_rows_a_little_later_have_older_ages() -> None:
    """No event lies between, so the snapshot of T serves a request at T + 4 as exactly."""
    impression: Row = dict.fromkeys(
        ("category", "price", "is_new", "tags", "sizes", "position", "rated")
    )
    rows = [
        {"time": BASE + t, "request_id": f"r{t}", "user_id": 1, "item_id": "a", **impression}
        for t in (0, 5, 29)
    ]
    clicks = [{"time": BASE + 7, "request_id": "r5", "item_id": "a", "seconds": 1.0, "note": None}]
    logs = {"impressions": rows, "clicks": clicks, "purchases": [], "returns": [], "history": []}
    with tempfile.TemporaryDirectory() as root:
        spec = small_logs.dataset(small_logs.SLATES, _window(BASE + 30), root=root)
        write_logs(spec, logs)
        read = read_logs(spec)
        late = pl.concat(build_examples(spec, read).examples.values())
        late = late.filter(pl.col("impression__timestamp") == BASE + 29)
        early = small_logs.dataset(small_logs.SLATES, _window(BASE + 25), root=root)
        snapshot = opened(early, build_examples(early, read).snapshots)
    assert late["user_recency"].to_list() == pytest.approx([0.022])
    assert late["item_age"].to_list() == pytest.approx([0.029])
    _compare(snapshot, late, BASE + 29)


# The file --------------------------------------------------------------------------------------

KEYS = ["", "a", "b", "ä" * 40, "x" * 3000, "a\x00", "ab", "ba", "\x00a"]


def write(path: Path, keys: list[str] = KEYS, as_of_ms: int = TIME) -> Path:
    """Item 'b' has 1.5 views and so on; a list of as many texts as its position."""
    count = len(keys)
    texts = Texts.of([b"p", "\u00e9".encode(), b""])
    codes = np.array([j % 3 for i in range(count) for j in range(i)], dtype=np.int64)
    features = (
        Numbers("views", "views/1", np.arange(count) - 0.5, default=0.0, elapses=False),
        Numbers("age", "age/1", np.arange(count) * 1.001, default=np.nan, elapses=True),
        Numbers(
            "holes", "holes/1", np.where(np.arange(count) % 2, np.nan, 0.1), np.nan, elapses=False
        ),
        Lists("seen", "seen/1", np.concatenate([[0], np.cumsum(np.arange(count))]), codes, texts),
    )
    users = EntitySet(
        ("user", "kind"),
        Texts.of([b"u\xffk", b"u\xff", b"\xffk", b"uk\xff"]),
        (
            Numbers(
                "user_views",
                "user_views/1",
                np.array([1.0, 2.0, 3.0, 4.0]),
                default=0.0,
                elapses=False,
            ),
        ),
    )
    items = EntitySet(("item",), Texts.of([k.encode() for k in keys]), features)
    rate = RateOf("rate", "rate/1", "user_views", "views", prior_rate=0.5, prior_strength=2.0)
    write_snapshot(path, as_of_ms, [items, users], [rate])
    return path


def test_batches_are_looked_up(tmp_path: Path) -> None:
    snapshot = FeatureSnapshot.open(write(tmp_path / "s"))
    asked = [*reversed(KEYS), "unseen", None, "b"]
    found = snapshot.look_up(["views", "age", "holes", "seen"], {"item": asked})
    places = [KEYS.index(k) if k in KEYS else None for k in asked]
    views = [0.0 if p is None else p - 0.5 for p in places]
    assert found.values["views"].tolist() == views
    ages = [np.nan if p is None else p * 1.001 for p in places]
    np.testing.assert_array_equal(found.values["age"], ages)
    texts = ["p", "\u00e9", ""]
    assert found.values["seen"] == [
        [texts[j % 3] for j in range(p)] if p is not None else [] for p in places
    ]
    assert found.num_unknown == {("item",): 2}
    nothing = snapshot.look_up(["views", "seen"], {"item": []})
    assert len(nothing.values["views"]) == 0 and nothing.values["seen"] == []


def test_parts_of_a_key_do_not_run_into_each_other(tmp_path: Path) -> None:
    snapshot = FeatureSnapshot.open(write(tmp_path / "s"))
    users, kinds = ["u", "u", "", "uk", "k", None], ["k", "", "k", "", "u", "k"]
    found = snapshot.look_up(["user_views"], {"user": users, "kind": kinds})
    assert found.values["user_views"].tolist() == [1.0, 2.0, 3.0, 4.0, 0.0, 0.0]


def test_rates_meet_across_entities(tmp_path: Path) -> None:
    snapshot = FeatureSnapshot.open(write(tmp_path / "s"))
    assert snapshot.columns_of("rate") == ("user", "kind", "item")
    found = snapshot.look_up(
        ["rate"], {"user": ["u", "v"], "kind": ["k", "k"], "item": ["b", "unseen"]}
    )
    assert found.values["rate"].tolist() == [(1.0 + 1.0) / (1.5 + 2.0), 0.5]


def test_hashes_are_the_published_ones() -> None:
    """Files outlive processes and versions: the hash is FNV-1a with SplitMix64's finaliser."""

    def plain(key: bytes) -> int:
        value = 0xCBF29CE484222325
        for byte in key:
            value = (value ^ byte) * 0x100000001B3 % 2**64
        assert key != b"foobar" or value == 0x85944171F73967E8  # Noll's own test vector
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
        return value ^ (value >> 31)

    keys = [b"foobar", b"", b"user\xffitem", *(k.encode() for k in KEYS)]
    assert key_hashes(Texts.of(keys), 0).tolist() == [plain(key) for key in keys]


def test_colliding_hashes_get_another_seed_and_strangers_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poor(keys: Texts, seed: int) -> Any:
        # Seed 0 sees lengths only; later seeds see 256 values, so strangers collide with keys.
        lengths = np.diff(keys.offsets.astype(np.int64)).astype(np.uint64)
        return lengths if seed == 0 else key_hashes(keys, seed) % np.uint64(256)

    monkeypatch.setattr(snapshot_format, "key_hashes", poor)
    monkeypatch.setattr("serving.snapshot.key_hashes", poor)
    names = [f"item{i}" for i in range(9)]
    snapshot = FeatureSnapshot.open(write(tmp_path / "s", names))
    found = snapshot.look_up(["views"], {"item": [*names, *(f"other{i}" for i in range(4000))]})
    assert found.values["views"].tolist() == [*(i - 0.5 for i in range(9)), *([0.0] * 4000)]


def test_the_same_entity_twice_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="twice"):
        write(tmp_path / "s", ["a", "a"])


@pytest.mark.parametrize("cut", [0, 7, 60, -1, -200])
def test_a_cut_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "s")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="snapshot"):
        FeatureSnapshot.open(path)


def test_a_changed_header_is_refused_and_so_is_no_file(tmp_path: Path) -> None:
    path = write(tmp_path / "s")
    content = bytearray(path.read_bytes())
    content[-60] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a whole feature snapshot"):
        FeatureSnapshot.open(path)
    with pytest.raises(DataError, match=r"runs/RUN_ID/features"):
        FeatureSnapshot.open(tmp_path)


def test_a_newer_file_in_its_place_leaves_the_open_one_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "s")
    old = FeatureSnapshot.open(path)
    write(path, [f"new{i}" for i in range(9)], TIME + 1)
    assert old.look_up(["views"], {"item": ["b"]}).values["views"].tolist() == [1.5]
    new = FeatureSnapshot.open(path)
    assert new.as_of_ms == TIME + 1
    assert new.look_up(["views"], {"item": ["new3"]}).values["views"].tolist() == [2.5]


def test_no_framework_is_imported() -> None:
    code = (
        "import sys, serving.snapshot_features; "
        "heavy = {'tensorflow', 'pyarrow', 'polars', 'pandas', 'pydantic', 'duckdb'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Requests --------------------------------------------------------------------------------------


@pytest.fixture
def snapshot(tmp_path: Path) -> FeatureSnapshot:
    return FeatureSnapshot.open(write(tmp_path / "s"))


def at(ms: int) -> Any:
    return lambda: ms


def test_a_request_is_completed(snapshot: FeatureSnapshot) -> None:
    features = SnapshotFeatures(snapshot, clock=at(TIME + 2500))
    context, candidates, filled = features.fill_slate(
        {"user": "u", "kind": ["k"], "device": "phone"},
        {"item": ["a", "b", "new"], "age": [9.0, 9.0, 9.0]},
        {"user_views", "views", "age", "rate", "device", "user"},
        snapshot.definitions,
    )
    assert context == {"user": "u", "device": "phone", "user_views": 1.0}
    assert candidates["views"].tolist() == [0.5, 1.5, 0.0]
    assert candidates["age"] == [9.0, 9.0, 9.0]  # the request's own
    assert candidates["rate"].tolist() == [2.0 / 2.5, 2.0 / 3.5, 1.0]
    assert set(candidates) == {"views", "age", "rate"}  # `item` is no input of this model
    assert (filled.age_seconds, filled.is_stale) == (2.5, False)
    assert filled.names == ("rate", "user_views", "views")
    assert filled.num_unknown == {("user", "kind"): 0, ("item",): 1}
    assert filled.as_of.startswith("2023-11-14T22:13:20")


def test_ages_go_on(snapshot: FeatureSnapshot) -> None:
    features = SnapshotFeatures(snapshot, clock=at(TIME + 2500))
    rows, filled = features.fill_rows(
        {"item": ["a", "b", "new"]}, {"age", "seen"}, snapshot.definitions
    )
    np.testing.assert_array_equal(rows["age"], [3.501, 4.502, np.nan])
    assert rows["seen"] == [["p"], ["p", "\u00e9"], []]
    assert filled.num_unknown == {("item",): 1}


def test_ages_are_told_in_words() -> None:
    ages = (93_784.4, "1 day, 2:03:04 before"), (-7200.0, "2:00:00 after")
    for seconds, text in ages:
        assert FilledFeatures(0, seconds, False, (), {}).age == text


def test_an_old_snapshot_is_refused_or_flagged(snapshot: FeatureSnapshot) -> None:
    late = at(TIME + 60_001)
    with pytest.raises(StaleSnapshotError, match=r"at most 60 s.*received 60\.001 s"):
        SnapshotFeatures(snapshot, 60.0, clock=late).fill_rows(
            {"item": ["a"]}, {"views"}, snapshot.definitions
        )
    flagging = SnapshotFeatures(snapshot, 60.0, "flag", clock=late)
    assert flagging.fill_rows({"item": ["a"]}, {"views"}, snapshot.definitions)[1].is_stale
    on_time = SnapshotFeatures(snapshot, 60.0, clock=at(TIME + 60_000))
    assert not on_time.fill_rows({"item": ["a"]}, {"views"}, snapshot.definitions)[1].is_stale


def test_requests_that_cannot_be_completed_say_why(snapshot: FeatureSnapshot) -> None:
    features = SnapshotFeatures(snapshot, clock=at(TIME))
    with pytest.raises(InvalidRequestError, match=r"'views'.*item.*received no item"):
        features.fill_slate({"user": "u"}, {"price": [1.0]}, {"views"}, snapshot.definitions)
    with pytest.raises(InvalidRequestError, match=r"entity column 'item'.*received float"):
        features.fill_rows({"item": [1.5]}, {"views"}, snapshot.definitions)


def test_a_feature_that_means_something_else_is_named(snapshot: FeatureSnapshot) -> None:
    features = SnapshotFeatures(snapshot, clock=at(TIME))
    for changed in ({"views": "views/2"}, {"rate": "rate/2"}):
        ((name, other),) = changed.items()
        with pytest.raises(OtherDefinitionError, match=rf"'{name}'.*{other}.*received.*{name}/1"):
            features.fill_slate(
                {"user": "u", "kind": "k"},
                {"item": ["a"]},
                {"views", "rate", "age"},
                {**snapshot.definitions, **changed},
            )


def test_the_file_knows_what_its_features_mean() -> None:
    spec = small_logs.dataset(small_logs.SLATES, _window(BASE + 30))
    empty = [
        (entity, looked_up(entity, None, {}, Plan(spec))[1]) for entity in Plan(spec).entity_sets
    ]
    assert opened(spec, dict(empty)).definitions == computed_definitions(spec.ranking)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(values=st.lists(st.one_of(st.integers(), st.booleans(), st.text(), st.none()), min_size=1))
def test_keys_are_formatted_as_ingestion_formats_them(values: list[Any]) -> None:
    from components.log_example_gen.time_index import as_key_text
    from serving.snapshot import key_texts

    for value in values:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            continue
        texts, present = key_texts([[value]], ["x"])
        expected = as_key_text(pl.Series([value]))[0]
        assert present.tolist() == [value is not None]
        assert texts.content.tobytes().decode() == (expected or "")
