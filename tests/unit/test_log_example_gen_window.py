"""Windows of a run: cut-off, lengths, shares, ties, empty windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.log_example_gen.spec import Logs, Splits, Window
from components.log_example_gen.window import _cut, resolve_window
from models.spec.errors import ConfigError, DataError
from models.spec.ranking import RankingSpec

DAY = 86_400_000
START = 1_704_067_200_000
"""2024-01-01T00:00Z"""

RANKING = RankingSpec.model_validate(
    {
        "user": "user_id",
        "item": "item_id",
        "columns": {
            "user_id": {"type": "string", "availability": "request"},
            "item_id": {"type": "string", "availability": "request", "role": "feature"},
            "clicked": {
                "type": "bool",
                "availability": "future",
                "role": "target",
                "join": {"stream": "clicks", "aggregate": "any", "window": "2h"},
            },
            "rested": {
                "type": "bool",
                "availability": "future",
                "role": "auxiliary_target",
                "join": {"stream": "rests", "aggregate": "any", "window": "2d"},
            },
        },
        "tasks": {
            "click": {"kind": "binary", "target": "clicked", "gates": {"auc": {"min": 0.5}}},
            "rest": {"kind": "binary", "target": "rested", "role": "auxiliary"},
        },
    }
)
STREAM = {"columns": {"user_id": {"type": "string"}}, "on": ["user_id"]}
LOGS = Logs.model_validate(
    {
        "root": ".",
        "impressions": {"path": "impressions.parquet", "key": ["user_id"]},
        "streams": {
            "clicks": STREAM | {"path": "clicks.parquet"},
            "rests": STREAM | {"path": "rests.parquet"},
            "history": STREAM | {"path": "history.parquet", "on": []},
        },
    }
)


def write(root: Path, **times: list[int | None]) -> None:
    for name in ("impressions", "clicks", "rests", "history"):
        frame = pl.DataFrame({"timestamp": times.get(name, [])}, schema={"timestamp": pl.Int64})
        frame.write_parquet(root / f"{name}.parquet")


def resolve(root: Path, date: str | None = None, **splits: Any) -> Window:
    return resolve_window(LOGS, Splits.model_validate(splits), RANKING, root, date)


def test_lengths_end_before_labels_are_final(tmp_path: Path) -> None:
    hours = [START + h * 3_600_000 for h in range(24 * 5)]
    # A history event after everything else does not join, so it does not move the cut-off; the
    # auxiliary task's window of two days does not hold the test window back.
    write(
        tmp_path,
        impressions=[*hours[::-1], None, 5],
        clicks=[hours[-1] + 500],
        history=[START + 9 * DAY],
    )
    window = resolve(tmp_path, validation="1d", test="1d", label_cutoff="30m")
    cutoff = hours[-1] + 501
    test_end = cutoff - 2 * 3_600_000
    assert window == Window(
        train_start=START,
        validation_start=test_end - 2 * DAY,
        test_start=test_end - DAY,
        test_end=test_end,
        train_cutoff=test_end - 2 * DAY + 1_800_000,
        cutoff=cutoff,
    )
    assert resolve(tmp_path, validation="1d", test="1d", train="1d").train_start == (
        test_end - 3 * DAY
    )


def test_late_events_leave_every_impression_in_the_test_window(tmp_path: Path) -> None:
    write(tmp_path, impressions=[START, START + DAY, START + 2 * DAY], rests=[START + 9 * DAY])
    window = resolve(tmp_path, validation="1d", test="1d")
    assert window.test_end == START + 2 * DAY + 1
    assert window.cutoff == START + 9 * DAY + 1


def test_a_date_is_a_cut_off_at_midnight(tmp_path: Path) -> None:
    write(tmp_path, impressions=[START + h * 3_600_000 for h in range(24 * 9)])
    window = resolve(tmp_path, "2024-01-05", validation="1d", test="1d")
    assert window.cutoff == START + 5 * DAY
    assert window.test_end == START + 5 * DAY - 2 * 3_600_000
    with pytest.raises(DataError, match=r"before the cut-off 2023-12-31.*2024-01-01.*2024-01-09"):
        resolve(tmp_path, "2023-12-30", validation="1d", test="1d")
    with pytest.raises(ConfigError, match=r"--date is not a date.*'soon'"):
        resolve(tmp_path, "soon", validation="1d", test="1d")


def test_shares_never_cut_a_moment_in_two(tmp_path: Path) -> None:
    times = [START + t * 1000 for t in [0, 1, 2, 3, 4, 4, 4, 5, 6, 7]]
    write(tmp_path, impressions=times, clicks=[START + DAY])
    window = resolve(tmp_path, validation=0.2, test=0.4)
    # The last four of ten rows begin with one that shares its time with two others: all three go
    # to test, and validation is a fifth of all rows before them.
    assert window.test_start == START + 4000
    assert window.validation_start == START + 2000
    assert window.train_start == START


@pytest.mark.parametrize(
    ("splits", "name"),
    [
        ({"validation": "1d", "test": "9d"}, "train"),
        ({"validation": "3d", "test": "1d"}, "train"),
        ({"validation": "1ms", "test": "1d"}, "validation"),
        ({"validation": "1d", "test": "1ms"}, "test"),
    ],
)
def test_empty_windows_are_refused(tmp_path: Path, splits: dict[str, Any], name: str) -> None:
    hours = [START + h * 3_600_000 for h in range(24 * 3)]
    write(tmp_path, impressions=hours, rests=[hours[-1] + 1_800_000])
    with pytest.raises(DataError, match=f"the {name} window is empty") as raised:
        resolve(tmp_path, **splits)
    assert "impressions from 2024-01-01T00:00:00.000Z to 2024-01-03T23:00:00.000Z" in str(
        raised.value
    )
    assert "the last 2h are left out" in str(raised.value)


def test_no_rows_at_all(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(DataError, match="the impressions have no row"):
        resolve(tmp_path, validation="1d", test="1d")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    times=st.lists(st.integers(0, 60), min_size=1, max_size=40).map(sorted),
    validation=st.one_of(st.integers(1, 20), st.sampled_from([0.1, 0.3, 0.5])),
    test=st.one_of(st.integers(1, 20), st.sampled_from([0.1, 0.3, 0.5])),
    train=st.one_of(st.none(), st.integers(1, 30)),
    after=st.integers(1, 20),
    maturity=st.integers(0, 30),
)
def test_windows_partition_the_impressions(
    times: list[int],
    validation: int | float,
    test: int | float,
    train: int | None,
    after: int,
    maturity: int,
) -> None:
    import numpy as np

    splits = Splits(validation=validation, test=test, train=train)
    cutoff = times[-1] + after
    try:
        window = _cut(np.array(times), splits, cutoff, maturity)
    except DataError as error:
        assert "window is empty" in str(error)
        return
    assert window.train_start < window.validation_start < window.test_start < window.test_end
    assert window.test_end <= min(times[-1] + 1, cutoff - maturity)
    usable = [t for t in times if t < window.test_end]
    in_test = [t for t in usable if t >= window.test_start]
    in_validation = [t for t in usable if window.validation_start <= t < window.test_start]
    assert in_test and in_validation
    for wanted, found, start, end in (
        (test, in_test, window.test_start, window.test_end),
        (validation, in_validation, window.validation_start, window.test_start),
    ):
        if isinstance(wanted, int):
            assert end - start == wanted
            continue
        # At least the share; without the moment at the boundary, less than it.
        num_wanted = max(round(len(usable) * wanted), 1)
        assert len(found) >= num_wanted
        assert sum(t > start for t in found) < num_wanted
    if train is None:
        assert window.train_start == times[0]
    else:
        assert window.validation_start - window.train_start == train
