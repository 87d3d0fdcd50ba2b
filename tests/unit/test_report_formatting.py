from __future__ import annotations

import math

import pytest

from components.report import formatting as f
from components.report.formatting import ABSENT, MINUS


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.74213, ".7421"),
        (1.03449, "1.0345"),
        (-0.0031, f"{MINUS}.0031"),
        (0.0, ".0000"),
        (-0.00001, ".0000"),
        (12.3456, "12.35"),
        (352.71, "352.7"),
        (10021.4, "10021"),
        (None, ABSENT),
        (math.nan, ABSENT),
        (math.inf, ABSENT),
        ("0.5", ABSENT),
    ],
)
def test_number(value: object, text: str) -> None:
    assert f.number(value) == text


def test_interval_is_written_with_three_decimals() -> None:
    assert f.interval({"value": 0.7421, "low": 0.735, "high": 0.749}) == ".7421 [.735, .749]"


def test_bounds_get_decimals_until_they_differ() -> None:
    assert f.bounds({"low": 0.74201, "high": 0.74236}) == "[.7420, .7424]"


def test_interval_without_bounds_is_the_value() -> None:
    assert f.interval({"value": 0.7421, "low": None, "high": None}) == ".7421"
    assert f.interval({}) == ABSENT


def test_differences_carry_their_sign() -> None:
    assert f.signed(0.0031) == "+.0031"
    assert f.signed(-0.0031) == f"{MINUS}.0031"
    assert f.signed(0.00001) == ".0000"
    assert f.signed(None) == ABSENT
    assert f.signed_bounds({"low": -0.0012, "high": 0.0048}) == f"[{MINUS}.001, +.005]"


@pytest.mark.parametrize(("value", "text"), [(0.65, ".65"), (1.25, "1.25"), (30, "30"), (0, "0")])
def test_threshold_has_no_trailing_zeros(value: float, text: str) -> None:
    assert f.threshold(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.42, "0.42 s"), (9.61, "9.6 s"), (41.2, "41 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"),
     (3900, "1 h 05 min"), (None, ABSENT)],
)  # fmt: skip
def test_seconds(value: object, text: str) -> None:
    assert f.seconds(value) == text


def test_times_are_utc() -> None:
    assert f.moment(1_772_668_800_000) == "2026-03-05 00:00"
    assert f.moment("2026-03-05T02:00:00+02:00") == "2026-03-05 00:00"
    assert f.moment("some day") == "some day"


@pytest.mark.parametrize(("value", "text"), [(0.657, "65.7 %"), (0.0078, "0.78 %"), (0, "0.0 %")])
def test_share(value: float, text: str) -> None:
    assert f.share(value) == text


def test_units_follow_the_kind() -> None:
    assert f.metric_unit("mae", "duration") == "s"
    assert f.metric_unit("mae", "count") == "target units"
    assert f.metric_unit("log_loss", "binary") == "nats"
    assert f.metric_unit("auc", "binary") == ""


def test_long_text_is_cut() -> None:
    assert f.clipped("x" * 1_000_000, 60) == "x" * 59 + "…"
    assert f.clipped("short", 60) == "short"
