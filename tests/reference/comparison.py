"""Writes small logs to files and compares what LogExampleGen makes of them with the reference."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from components.log_example_gen.plan import Plan
from components.log_example_gen.spec import DatasetSpec
from components.log_example_gen.values import CANONICAL
from tests.reference.naive import Reference
from tests.reference.small_logs import Row


def write_logs(
    spec: DatasetSpec,
    logs: Mapping[str, list[Row]],
    *,
    num_files: int = 1,
    seed: int = 0,
    file_format: str = "parquet",
) -> None:
    """Writes logs under the dataset's root, rows shuffled over files."""
    for name, wanted in Plan(spec).sources.items():
        shuffled = random.Random(seed).sample(logs[name], len(logs[name]))
        schema: dict[str, Any] = {"timestamp": pl.Int64}
        schema |= {n: CANONICAL[column.type] for n, column in wanted.columns.items()}
        folder = Path(spec.root, name)
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(num_files):
            part = [
                {"timestamp": row["time"]} | {n: row[n] for n in wanted.columns}
                for row in shuffled[number::num_files]
            ]
            path = folder / f"part-{number}.{file_format}"
            frame = pl.DataFrame(part, schema=schema)
            if file_format == "parquet":
                frame.write_parquet(path)
            elif file_format == "jsonl":
                path.write_text("".join(json.dumps(row) + "\n" for row in part))
            else:
                lists = [n for n, dtype in frame.schema.items() if isinstance(dtype, pl.List)]
                texts = {
                    n: [None if v is None else json.dumps(v.to_list()) for v in frame[n]]
                    for n in lists
                }
                columns = [pl.Series(n, v, dtype=pl.String) for n, v in texts.items()]
                frame.with_columns(columns).write_csv(path)


def assert_equal(
    expected: Reference,
    examples: Mapping[str, list[Row]],
    accounts: Mapping[str, Any],
    snapshots: Mapping[tuple[str, ...], pl.DataFrame],
) -> None:
    """Compares everything; numbers to the precision of float32."""
    assert accounts["rows"] == expected.rows
    assert {k: accounts["examples"][k] for k in expected.counts} == expected.counts
    for split, rows in expected.examples.items():
        found = examples[split]
        assert len(found) == len(rows)
        for actual, wanted in zip(found, rows, strict=True):
            assert set(actual) == set(wanted)
            for name, value in wanted.items():
                assert_same(actual[name], value, f"{split} {name} of {wanted}")
    for entity, rows_by_entity in expected.snapshots.items():
        frame = snapshots[entity]
        assert len(frame) == len(rows_by_entity)
        for row in frame.iter_rows(named=True):
            wanted_row = rows_by_entity[tuple(row[name] for name in entity)]
            assert set(row) == set(wanted_row) | set(entity)
            for name, value in wanted_row.items():
                assert_same(row[name], value, f"snapshot {name} of {row}")


def assert_same(actual: Any, wanted: Any, what: str) -> None:
    """Compares values; NaN equals NaN, a missing value only a missing one."""
    if isinstance(wanted, list):
        assert actual is not None, what
        assert len(actual) == len(wanted), what
        for one, other in zip(actual, wanted, strict=True):
            assert_same(one, other, what)
    elif isinstance(wanted, float):
        assert actual is not None, what
        if math.isnan(wanted):
            assert math.isnan(actual), what
        else:
            assert actual == pytest.approx(wanted, rel=1e-6, abs=1e-9), what
    else:
        assert actual == wanted, what
