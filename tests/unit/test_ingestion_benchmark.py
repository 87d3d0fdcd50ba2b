"""What the ingestion benchmark compares does the same work, or the ratios would mean nothing."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl
import pytest

from benchmarks.ingestion.floor_query import floor_query
from benchmarks.ingestion.measure import dataset
from components.log_example_gen.build import build_examples, read_logs
from simulator.simulate import SimulationConfig, simulate

KEYS = ["request_id__key", "item_id__key"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs with late and orphaned events, but neither duplicates nor rows that cannot be read."""
    folder = tmp_path_factory.mktemp("logs")
    simulate(
        SimulationConfig(impressions=4_000, seed=2, malformed_rate=0.0, duplicate_rate=0.0), folder
    )
    return folder


def test_the_floor_makes_the_same_examples(root: Path) -> None:
    spec = dataset(root, plain=True)
    ours = pl.concat(
        frame.with_columns(split=pl.lit(split))
        for split, frame in build_examples(spec, read_logs(spec)).examples.items()
    ).sort(KEYS)
    floor = duckdb.sql(floor_query(spec)).pl().sort(KEYS)
    assert set(floor.columns) == set(ours.columns)
    assert len(floor) == len(ours) > 3_900
    for name in ours.columns:
        assert floor[name].equals(ours[name], check_dtypes=True, null_equal=True), name
    # Enough happens in these logs to tell: every label varies, some are immature.
    for name in (n for n in ours.columns if n.endswith("__label")):
        assert ours[name].n_unique() > 1, name
    assert ours["conversion__mask"].n_unique() == 2


def test_hashing_changes_user_ids_and_nothing_else(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYRANK_BENCHMARK_PII_KEY", "a key that hides nobody at all, really")
    raw, hashed = (
        build_examples(spec, read_logs(spec)).examples["train"].sort(KEYS)
        for spec in (dataset(root, plain=True), dataset(root, plain=True, pii=True))
    )
    ids = {"user_id", "user_id__key"}
    changed = {n for n in raw.columns if not raw[n].equals(hashed[n], null_equal=True)}
    assert changed == ids
    assert raw["user_id"].n_unique() == hashed["user_id"].n_unique()
