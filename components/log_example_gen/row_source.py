"""What is wanted of a log, and what its rows may hold."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from components.log_example_gen.pseudonyms import Pseudonyms
from components.log_example_gen.row_names import time_column
from components.log_example_gen.spec import Logs, Source, StreamColumn
from models.spec.errors import ConfigError

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


@dataclass(frozen=True)
class Limits:
    """What a row may hold.

    Attributes:
        min_time_ms: Earliest valid time, in milliseconds since 1970 UTC.
        max_time_ms: End of the valid times, exclusive.
        max_string_bytes: Longest valid string.
    """

    min_time_ms: int = 946_684_800_000
    max_time_ms: int = 4_102_444_800_000
    max_string_bytes: int = 10_000

    @classmethod
    def of(cls, logs: Logs) -> Limits:
        """Takes the limits from a configuration.

        Raises:
            ConfigError: `min_time` or `max_time` is not a date or time.
        """
        return cls(
            _parse_time_ms("logs.min_time", logs.min_time),
            _parse_time_ms("logs.max_time", logs.max_time),
            logs.max_string_bytes,
        )

    def is_valid_time(self, times_ms: pl.Series) -> pl.Series:
        """Tells which times are valid; a missing one is not, [rows]."""
        return ((times_ms >= self.min_time_ms) & (times_ms < self.max_time_ms)).fill_null(False)

    @property
    def span(self) -> str:
        """The valid times, for messages."""
        days = [
            (_EPOCH + datetime.timedelta(milliseconds=ms)).date().isoformat()
            for ms in (self.min_time_ms, self.max_time_ms)
        ]
        return f"[{days[0]}, {days[1]})"


@dataclass(frozen=True)
class RowSource:
    """What is wanted of a log, and how to read it.

    Attributes:
        stream_name: Name of the log: `impressions` or a stream's.
        source: Files, format, time column, lists to explode.
        columns: Wanted columns by declared name.
        required: Declared names that must not be null in any row: keys.
        limits: What a row may hold.
        pseudonyms: Hides people's data; needed where a column is that.
        withheld: The log holds people's data although `columns` has none.
    """

    stream_name: str
    source: Source
    columns: Mapping[str, StreamColumn]
    required: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    pseudonyms: Pseudonyms | None = None
    withheld: bool = False

    @property
    def time(self) -> str:
        """Name of the time column that rows get."""
        return time_column(self.stream_name)

    @cached_property
    def names(self) -> dict[str, str]:
        """The log's own name of every declared column."""
        return {name: column.source or name for name, column in self.columns.items()}

    @cached_property
    def wanted(self) -> tuple[str, ...]:
        """Source columns to read."""
        return tuple(
            dict.fromkeys([self.source.timestamp, *self.source.explode, *self.names.values()])
        )

    @property
    def is_private(self) -> bool:
        """Whether the log holds people's data: no message may then quote a row."""
        return self.withheld or any(column.pii for column in self.columns.values())

    def hidden(self) -> Pseudonyms | None:
        """What hides the columns, if one of them is people's data.

        Raises:
            AssertionError: One is, and nothing was given to hide it.
        """
        if not any(column.pii for column in self.columns.values()):
            return None
        if self.pseudonyms is None:
            raise AssertionError(f"{self.stream_name} has pii columns, and nothing hides them")
        return self.pseudonyms


def _parse_time_ms(key: str, text: str) -> int:
    try:
        parsed = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{key} is not a time",
            constraint="an ISO 8601 date or time, e.g. 2024-01-31",
            received=repr(text),
            remedy=f"correct {key}",
        ) from error
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=datetime.timezone.utc)
    return round((parsed - _EPOCH) / datetime.timedelta(milliseconds=1))
