"""LogExampleGen against independent SQL on hard logs: every column of every row, and every byte."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import polars as pl
import pytest

from components.log_example_gen.executor import generate_examples
from components.log_example_gen.spec import DatasetSpec
from tests.reference.duckdb_reference import write_expected
from tests.reference.exactness import assert_accounts, compare, digest, hard_dataset, make_logs
from tests.reference.hard_logs import HOT_USER, Layout, write_shuffled

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Hard:
    """Hard logs and what the SQL makes of them."""

    logs: dict[str, pl.DataFrame]
    examples: Path
    accounts: dict[str, dict[str, int]]


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Hard:
    folder = tmp_path_factory.mktemp("hard")
    logs = make_logs(folder / "simulated", impressions=8_000, hot_events=2_000)
    write_shuffled(logs, folder / "logs", Layout(num_files=1, seed=9))
    window = hard_dataset(folder / "logs", 1).window
    accounts = write_expected(folder / "logs", window.model_dump(), folder)
    return Hard(logs, folder / "examples.parquet", accounts)


def generate(
    hard: Hard, folder: Path, num_shards: int, num_files: int, *arguments: str
) -> DatasetSpec:
    write_shuffled(hard.logs, folder / "logs", Layout(num_files, seed=num_shards))
    spec = hard_dataset(folder / "logs", num_shards)
    pipeline = beam.Pipeline(argv=["--runner=FnApiRunner", *arguments])
    generate_examples(spec, str(folder / "examples"), str(folder / "accounts"), pipeline)
    return spec


@pytest.fixture(scope="module")
def written(hard: Hard, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DatasetSpec]:
    folder = tmp_path_factory.mktemp("written")
    return folder, generate(hard, folder, 1, 1)


def test_every_row_equals_the_sql_and_no_byte_depends_on_the_layout(
    hard: Hard, written: tuple[Path, DatasetSpec], tmp_path: Path
) -> None:
    threads = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
    ranking = written[1].ranking
    folders = [written[0], tmp_path / "7", tmp_path / "12"]
    generate(hard, folders[1], 7, 5, *threads)
    generate(hard, folders[2], 12, 2)
    found: list[dict[str, Any]] = []
    for folder in folders:
        counts = compare(folder, hard.examples, ranking)
        assert min(counts.values()) > 500
        assert_accounts(folder, hard.accounts)
        assert not list((folder / "accounts").glob(".*")), "scratch tables are removed"
        found.append(digest(folder))
    assert found[0] == found[1] == found[2]


def test_the_logs_are_hard(hard: Hard) -> None:
    """Otherwise the comparison shows little."""
    expected = pl.read_parquet(hard.examples)
    for stream in ("clicks", "conversions", "dwell", "scroll", "returns"):
        reasons = set(hard.accounts[stream])
        assert {"after_cutoff", "orphan", "before_impression", "late", "duplicates"} <= reasons
    assert hard.accounts["impressions"]["conflicting_key"] > 30
    assert (expected["user_id"] == HOT_USER).sum() > 200
    assert expected["user_id"].null_count() > 5
    for name in ("click", "conversion_given_click", "watch_seconds", "scroll_depth", "returned"):
        for split in ("train", "validation"):
            rows = expected.filter((pl.col("split") == split) & (pl.col(f"{name}__mask") == 1))
            assert rows[f"{name}__label"].n_unique() > 1, f"{name} in {split}"
    immature = expected.filter(pl.col("conversion__mask") == 0).group_by("split").len()
    assert set(immature["split"]) == {"train", "test", "validation"}
    for name in ("user_seconds_1d", "item_seconds_mean", "item_outcomes", "category_outcomes"):
        assert (expected[name].fill_null(0) > 0).sum() > 100, name


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("click__label", pl.lit(1.0)),
        ("item_clicks_24h", pl.col("item_clicks_24h") + 1),
        ("user_recent_items", pl.col("user_recent_items").list.reverse()),
    ],
)
def test_a_difference_in_one_row_is_found(
    hard: Hard, written: tuple[Path, DatasetSpec], tmp_path: Path, column: str, change: pl.Expr
) -> None:
    folder, spec = written
    expected = pl.read_parquet(hard.examples)
    chosen = expected.with_row_index("row").filter(
        (pl.col("click__label") == 0) & (pl.col("user_recent_items").list.get(1) != "")
    )
    (row,) = chosen["row"].head(1)
    number = pl.int_range(pl.len())
    altered = expected.with_columns(
        pl.when(number == row).then(change).otherwise(pl.col(column)).alias(column)
    )
    altered.cast({column: expected.schema[column]}).write_parquet(tmp_path / "altered.parquet")
    with pytest.raises(AssertionError, match=f"{column}: 1 rows differ"):
        compare(folder, tmp_path / "altered.parquet", spec.ranking)
