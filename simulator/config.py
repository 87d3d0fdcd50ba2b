"""What a simulation is: size, span, format and fault rates, checked before anything is drawn."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Literal, get_args

from models.spec.errors import ConfigError, nearest
from simulator.time_units import DAY_MS

FileFormat = Literal["parquet", "csv", "jsonl"]

REFERENCE_IMPRESSIONS = 200_000
REFERENCE_USERS = 3_000
REFERENCE_ITEMS = 1_000

MAX_FAULT_RATE = 0.5
"""Above this a log would hold more faults than rows, and no join could be checked."""


@dataclass(frozen=True)
class SimulationConfig:
    """Settings of one simulated log; equal settings give byte-identical files.

    Attributes:
        days: Number of days with impressions. Events go on for some days after the last one.
        impressions: Number of shown items (rows of `impressions` before faults), exactly.
        seed: Non-negative seed of every random draw.
        start: First day, ``YYYY-MM-DD`` in UTC.
        file_format: ``parquet``, ``csv`` or ``jsonl``.
        duplicate_rate: Exact duplicate rows added to each stream, as a share of its clean rows.
        late_rate: Late events, as a share of an event stream's clean rows. Half of them arrive in
            a later day's folder; half are extra events that happen days after the impression.
        orphan_rate: Extra events whose impression does not exist, as a share of clean rows.
        malformed_rate: Extra damaged copies of rows, as a share of each stream's clean rows.
        num_users: Number of users; grows with `impressions` ** 0.7 if None.
        num_items: Number of items; grows with `impressions` ** 0.5 if None.
        slate_size: Mean number of items asked for per request.
        conversion_window_hours: Conversions count for the truth if they happen less than this
            after the impression. The logs hold later ones too.
        position_belief: How strongly slates are ordered by what the logging ranker believes of
            items, which has nothing to do with what they are worth; 0 is random order. Position
            then stands between an item and its clicks: a bias that a model should not learn.

    Raises:
        ConfigError: A value is outside its range.
    """

    days: int = 7
    impressions: int = REFERENCE_IMPRESSIONS
    seed: int = 0
    start: str = "2026-01-01"
    file_format: FileFormat = "parquet"
    duplicate_rate: float = 0.002
    late_rate: float = 0.005
    orphan_rate: float = 0.002
    malformed_rate: float = 0.001
    num_users: int | None = None
    num_items: int | None = None
    slate_size: float = 10.0
    conversion_window_hours: float = 48.0
    position_belief: float = 0.0

    def __post_init__(self) -> None:
        """Checks every value, so that a simulation that starts also ends."""
        _check_integer("days", self.days, low=1, high=3_660)
        _check_integer("impressions", self.impressions, low=20 * self.days, high=10**9)
        _check_integer("seed", self.seed, low=0, high=2**63 - 1)
        for name in ("duplicate_rate", "late_rate", "orphan_rate", "malformed_rate"):
            _check_number(name, getattr(self, name), low=0.0, high=MAX_FAULT_RATE)
        if self.num_users is not None:
            _check_integer("num_users", self.num_users, low=10, high=10**7)
        if self.num_items is not None:
            _check_integer("num_items", self.num_items, low=20, high=10**6)
        _check_number("slate_size", self.slate_size, low=1.0, high=500.0)
        _check_number("conversion_window_hours", self.conversion_window_hours, low=1.0, high=96.0)
        _check_number("position_belief", self.position_belief, low=0.0, high=10.0)
        if self.file_format not in get_args(FileFormat):
            allowed = get_args(FileFormat)
            raise ConfigError(
                "simulation setting 'file_format'",
                constraint=f"one of {', '.join(allowed)}",
                received=repr(self.file_format),
                remedy="choose one of them" + nearest(str(self.file_format), allowed),
            )
        if not _is_plain_date(self.start):
            raise ConfigError(
                "simulation setting 'start'",
                constraint="a date from 2000-01-01 to 2100-12-31 as YYYY-MM-DD",
                received=repr(self.start),
                remedy="write it as 2026-01-31",
            )

    @property
    def start_ms(self) -> int:
        """Midnight UTC of the first day, in milliseconds since 1970."""
        return (datetime.date.fromisoformat(self.start) - datetime.date(1970, 1, 1)).days * DAY_MS

    @property
    def resolved_num_users(self) -> int:
        """`num_users`, or the default that follows from `impressions`."""
        if self.num_users is not None:
            return self.num_users
        return max(50, _scaled(REFERENCE_USERS, self._relative_size, 0.7))

    @property
    def resolved_num_items(self) -> int:
        """`num_items`, or the default that follows from `impressions`."""
        if self.num_items is not None:
            return self.num_items
        return max(100, _scaled(REFERENCE_ITEMS, self._relative_size, 0.5))

    @property
    def max_slate_size(self) -> int:
        """Longest slate that is asked for."""
        return max(2, round(3 * self.slate_size))

    @property
    def _relative_size(self) -> float:
        return self.impressions / REFERENCE_IMPRESSIONS

    def date(self, day: int) -> str:
        """Returns the date of a day counted from the first, as ``YYYY-MM-DD``."""
        first = datetime.date.fromisoformat(self.start)
        return (first + datetime.timedelta(days=day)).isoformat()


def _scaled(reference: int, relative_size: float, exponent: float) -> int:
    return round(reference * float(relative_size**exponent))


def _is_plain_date(text: object) -> bool:
    try:
        date = datetime.date.fromisoformat(str(text))
    except ValueError:
        return False
    return date.isoformat() == text and 2000 <= date.year <= 2100


def _check_integer(name: str, value: object, *, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _out_of_range(name, "an integer", value, low, high)


def _check_number(name: str, value: object, *, low: float, high: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # type: ignore[operator]
        raise _out_of_range(name, "a number", value, low, high)


def _out_of_range(name: str, kind: str, value: object, low: float, high: float) -> ConfigError:
    return ConfigError(
        f"simulation setting {name!r}",
        constraint=f"{kind} from {low} to {high}",
        received=repr(value),
        remedy=f"pass a value of {name} in that range",
    )
