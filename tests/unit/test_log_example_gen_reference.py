"""LogExampleGen in memory against plain loops, on random small logs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from components.log_example_gen.build import build_examples, read_logs
from components.log_example_gen.spec import Window
from tests.reference import small_logs
from tests.reference.comparison import assert_equal, write_logs
from tests.reference.naive import reference_examples
from tests.reference.small_logs import Row

FEW = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
MANY = settings(FEW, max_examples=150)


def compare(
    text: str,
    functions: Mapping[str, Any],
    logs: dict[str, list[Row]],
    window: Window,
    seed: int,
    file_format: str = "parquet",
) -> None:
    with tempfile.TemporaryDirectory() as root:
        spec = small_logs.dataset(text, window, root=root)
        write_logs(spec, logs, num_files=1 + seed % 3, seed=seed, file_format=file_format)
        built = build_examples(spec, read_logs(spec))
    assert_equal(
        reference_examples(spec, logs, functions),
        {split: list(frame.iter_rows(named=True)) for split, frame in built.examples.items()},
        built.accounts,
        built.snapshots,
    )


def compare_slates(
    logs: dict[str, list[Row]], window: Window, seed: int, file_format: str = "parquet"
) -> None:
    compare(small_logs.SLATES, small_logs.SLATES_FUNCTIONS, logs, window, seed, file_format)


def compare_wide(logs: dict[str, list[Row]], window: Window, seed: int) -> None:
    compare(small_logs.WIDE, small_logs.WIDE_FUNCTIONS, logs, window, seed)


slates = given(logs=small_logs.slates_logs, window=small_logs.windows, seed=st.integers(0, 5))
wide = given(logs=small_logs.wide_logs, window=small_logs.windows, seed=st.integers(0, 5))


@FEW
@slates
def test_slates_with_streams(logs: dict[str, list[Row]], window: Window, seed: int) -> None:
    compare_slates(logs, window, seed)


@pytest.mark.slow
@MANY
@slates
def test_many_slates_with_streams(logs: dict[str, list[Row]], window: Window, seed: int) -> None:
    compare_slates(logs, window, seed)


@FEW
@wide
def test_wide_logs(logs: dict[str, list[Row]], window: Window, seed: int) -> None:
    compare_wide(logs, window, seed)


@pytest.mark.slow
@MANY
@wide
def test_many_wide_logs(logs: dict[str, list[Row]], window: Window, seed: int) -> None:
    compare_wide(logs, window, seed)


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
@settings(FEW, max_examples=8)
@slates
def test_other_formats(
    file_format: str, logs: dict[str, list[Row]], window: Window, seed: int
) -> None:
    compare_slates(logs, window, seed, file_format)
