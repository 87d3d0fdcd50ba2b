"""The adapter of the Census-Income example, on rows of the same shape."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import numpy as np
import pandas as pd

from examples.census.convert import COLUMNS, DAY_MS, FIRST_DAY_MS, convert


def line(education: str, marital: str, income: str) -> str:
    values = {name: "1" for name in COLUMNS} | {
        "education": education, "marital_status": marital, "income": income,
    }  # fmt: skip
    return ", ".join(values[name] for name in COLUMNS)


def test_rows_labels_and_days(tmp_path: Path) -> None:
    people = [
        line("Bachelors degree(BA AB BS)", "Never married", "50000+."),
        line("Some college but no degree", "Divorced", "- 50000."),
        line("Associates degree-occup /vocational", "Widowed", "- 50000."),
    ]
    (tmp_path / "census-income.data.bz2").write_bytes(bz2.compress("\n".join(people).encode()))
    rest = "\n".join(people * 4).encode()
    (tmp_path / "census-income.test.gz").write_bytes(gzip.compress(rest))
    assert convert(tmp_path, tmp_path / "out") == {"train": 3, "validation": 6, "test": 6}
    table = pd.read_parquet(tmp_path / "out" / "people.parquet")
    train = table[:3]
    assert train["is_college"].tolist() == [1, 0, 1]
    assert train["is_never_married"].tolist() == [1, 0, 0]
    assert train["is_over_50k"].tolist() == [1, 0, 0]
    day = (table["time_ms"] - FIRST_DAY_MS) // DAY_MS
    assert day.tolist() == [0] * 3 + [1] * 6 + [2] * 6
    assert table["time_ms"].max() == FIRST_DAY_MS + 3 * DAY_MS - 1
    assert table["person_id"].is_unique
    # Both halves together are the file.
    counts = table[3:].groupby("education").size()
    assert np.array_equal(counts.to_numpy(), [4, 4, 4])
