"""Reads any source into one canonical form, with a dead letter for every row that does not fit."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from components.log_example_gen.csv_rows import read_csv
from components.log_example_gen.dead_letters import Reason, cut_text, dead_letters, no_dead_letters
from components.log_example_gen.json_lines_rows import read_json_lines
from components.log_example_gen.parquet_rows import read_parquet
from components.log_example_gen.raw_rows import RawRows
from components.log_example_gen.row_names import SOURCE_FILE, SOURCE_ROW, time_column
from components.log_example_gen.source_files import LogFile, list_files
from components.log_example_gen.spec import Logs, Source, StreamColumn, TimeUnit
from components.log_example_gen.values import convert, parse_lists, time_ms
from models.spec.errors import ConfigError, DataError, nearest

_UNDECODABLE = "row__undecodable"
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


@dataclass(frozen=True)
class RowSource:
    """What is wanted of a log, and how to read it.

    Attributes:
        stream_name: Name of the log: `impressions` or a stream's.
        source: Files, format, time column, lists to explode.
        columns: Wanted columns by declared name.
        required: Declared names that must not be null in any row: keys.
        limits: What a row may hold.
    """

    stream_name: str
    source: Source
    columns: Mapping[str, StreamColumn]
    required: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

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


@dataclass(frozen=True)
class FileRows:
    """Rows of one file.

    Attributes:
        frame: Canonical rows: time, declared columns, file and row number.
        dead: Dead letters of the others.
        num_read: Rows read, counted after exploding; an unexplodable row counts once.
        absent: Declared columns of which a file without header (JSON Lines) had no trace.
        present: Names the file has.
    """

    frame: pl.DataFrame
    dead: pl.DataFrame
    num_read: int
    absent: frozenset[str]
    present: tuple[str, ...]


@dataclass(frozen=True)
class ReadResult:
    """A whole log.

    Attributes:
        table: Time column (`row_names.time_column`), declared columns in canonical types
            (string, int64, double, bool, timestamp[ms], lists of these), `source__file` (index
            into `files`) and `source__row` (from 1), in file and row order.
        dead: Columns `stream`, `file`, `row`, `reason`, `raw`.
        num_read: Rows read, counted after exploding: rows of `table` plus rows of `dead`.
        files: Names of the files, relative to the folder of the logs.
    """

    table: pa.Table
    dead: pa.Table
    num_read: int
    files: tuple[str, ...]


def read_source(
    root: Path,
    source: Source,
    columns: Mapping[str, StreamColumn],
    *,
    stream_name: str,
    required: tuple[str, ...] = (),
    limits: Limits | None = None,
) -> ReadResult:
    """Reads a log whole.

    Duplicates are kept; nothing is joined, and expressions are not evaluated.

    Args:
        root: Folder of the logs.
        source: Files, format, time column, lists to explode.
        columns: Wanted columns by declared name.
        stream_name: `impressions` or the stream's name.
        required: Declared names that must not be null: keys.
        limits: What a row may hold; the defaults of `Logs` if None.

    Raises:
        DataError: No file matches; a file is damaged, lacks a column or has another type; a
            JSON Lines log has a column in none of its files.
    """
    wanted = RowSource(stream_name, source, columns, required, limits or Limits())
    files = list_files(root, source, stream_name=stream_name)
    parts = [read_file(file, index, wanted) for index, file in enumerate(files)]
    check_absent(wanted, [(part.num_read, part.absent, part.present) for part in parts])
    names = tuple(file.name for file in files)
    return ReadResult(
        table=pl.concat([part.frame for part in parts]).to_arrow(),
        dead=with_file_names(pl.concat([part.dead for part in parts]), names).to_arrow(),
        num_read=sum(part.num_read for part in parts),
        files=names,
    )


def scan_times(
    root: Path, source: Source, *, stream_name: str, limits: Limits | None = None
) -> NDArray[np.int64]:
    """Reads the times of a log, and nothing else that its format can leave out.

    Args:
        root: Folder of the logs.
        source: Files, format, time column, lists to explode.
        stream_name: `impressions` or the stream's name.
        limits: Valid times.

    Returns:
        Valid times after exploding, ascending, in milliseconds since 1970 UTC, [rows].

    Raises:
        DataError: The log cannot be read, or it has rows but no valid time: the remedy says
            which unit would make them valid.
    """
    wanted = RowSource(stream_name, source, {}, (), limits or Limits())
    files = list_files(root, source, stream_name=stream_name)
    parts = [read_file(file, index, wanted) for index, file in enumerate(files)]
    times = pl.concat([part.frame.select(wanted.time) for part in parts])[wanted.time]
    num_bad = sum(int((part.dead["reason"] == "bad_timestamp").sum()) for part in parts)
    if len(times) == 0 and num_bad:
        raise no_valid_time(wanted, files[0])
    ascending: NDArray[np.int64] = times.sort().to_numpy()
    return ascending


def read_file(file: LogFile, index: int, wanted: RowSource) -> FileRows:
    """Reads one file into canonical rows and dead letters.

    A row with several faults gets the first of malformed, oversized, bad_timestamp.

    Args:
        file: The file.
        index: Its number, kept in the rows.
        wanted: What to read.

    Raises:
        DataError: The file is damaged, lacks a column, or a column's type does not fit.
    """
    raw = _read_raw(file, wanted)
    try:
        return _rows(raw, index, wanted)
    except DataError as error:
        raise DataError(
            f"file {file.name!r} of {wanted.stream_name!r}: {error.what}",
            constraint=error.constraint,
            received=error.received,
            remedy=error.remedy,
        ) from error


def check_absent(
    wanted: RowSource, files: list[tuple[int, frozenset[str], tuple[str, ...]]]
) -> None:
    """Refuses a log without header of which no file has some declared column.

    Args:
        wanted: What was read.
        files: Rows read, absent source columns and present names of every file.

    Raises:
        DataError: Names the column and the nearest name that exists.
    """
    filled = [(absent, present) for num_read, absent, present in files if num_read]
    if not filled:
        return
    nowhere = frozenset.intersection(*(absent for absent, _ in filled))
    if nowhere:
        raise _missing_columns(
            f"log {wanted.stream_name!r}", nowhere, {n for _, names in filled for n in names}
        )


def no_valid_time(wanted: RowSource, file: LogFile) -> DataError:
    """Says that no row has a valid time, and which time unit would help.

    Args:
        wanted: The log.
        file: One of its files, for an example.
    """
    source, limits = wanted.source, wanted.limits
    column = source.timestamp
    plain = RowSource(wanted.stream_name, source, {}, (), limits)
    values = _exploded(_read_raw(file, plain), source.explode)[0][column].drop_nulls()
    span = f"[{_as_text(limits.min_time_ms)}, {_as_text(limits.max_time_ms)})"
    remedy = f"check `timestamp: {column}` and its values"
    units: tuple[TimeUnit, ...] = ("s", "ms", "us")
    for unit in units:
        times = time_ms(values, unit)
        if unit != source.time_unit and _within(times, limits).any():
            remedy = f"set `time_unit: {unit}` on the source: they look like that"
            break
    return DataError(
        f"no row of {wanted.stream_name!r} has a valid time in column {column!r}",
        constraint=f"times in {span}, integers in {source.time_unit}",
        received=f"for example {values[0]!r} in {file.name}" if len(values) else "nothing",
        remedy=remedy,
    )


def with_file_names(dead: pl.DataFrame, files: tuple[str, ...]) -> pl.DataFrame:
    """Gives dead letters their public columns: stream, file, row, reason, raw."""
    names = pl.DataFrame(
        {SOURCE_FILE: range(len(files)), "file": files},
        schema={SOURCE_FILE: pl.Int32, "file": pl.String},
    )
    return dead.join(names, on=SOURCE_FILE, how="left", maintain_order="left").select(
        "stream", "file", pl.col(SOURCE_ROW).alias("row"), "reason", "raw"
    )


def _read_raw(file: LogFile, wanted: RowSource) -> RawRows:
    if file.format == "parquet":
        raw = read_parquet(file, wanted.wanted)
    elif file.format == "csv":
        raw = read_csv(file, wanted.wanted, wanted.source.delimiter)
    else:
        return read_json_lines(file, wanted.wanted)
    if raw.absent:
        raise _missing_columns(
            f"file {file.name!r} of {wanted.stream_name!r}", raw.absent, set(raw.present)
        )
    return raw


def _rows(raw: RawRows, index: int, wanted: RowSource) -> FileRows:
    frame, dead_lists = _exploded(raw, wanted.source.explode)
    number = pl.lit(index, pl.Int32).alias(SOURCE_FILE)
    undecodable = frame[_UNDECODABLE]
    values: list[pl.Series] = []
    malformed = undecodable
    for name, source_name in wanted.names.items():
        converted = convert(frame[source_name], wanted.columns[name].type, wanted.source.time_unit)
        values.append(converted.values.alias(name))
        malformed = malformed | converted.impossible
        if name in wanted.required:
            malformed = malformed | converted.values.is_null()
    times = time_ms(frame[wanted.source.timestamp], wanted.source.time_unit).alias(wanted.time)
    rows = pl.DataFrame(
        [times, *values, frame[SOURCE_ROW]],
    ).with_columns(number)
    reason = (
        pl.DataFrame(
            {
                "malformed": malformed,
                "oversized": _oversized(rows, wanted.limits.max_string_bytes),
                "bad_timestamp": ~_within(times, wanted.limits),
            }
        )
        .select(
            pl.coalesce(
                pl.when(name).then(pl.lit(name))
                for name in ("malformed", "oversized", "bad_timestamp")
            )
        )
        .to_series()
    )
    is_dead = reason.is_not_null()
    source_rows = frame.with_columns(number)
    dead = [
        _unreadable(raw, index, wanted.stream_name),
        *(
            dead_letters(
                part.with_columns(number),
                why,
                stream_name=wanted.stream_name,
                shown=list(wanted.wanted),
            )
            for why, part in dead_lists
        ),
        dead_letters(
            source_rows.filter(is_dead),
            reason.filter(is_dead),
            stream_name=wanted.stream_name,
            shown=list(wanted.wanted),
        ),
    ]
    letters = pl.concat(dead)
    kept = rows.filter(~is_dead)
    return FileRows(kept, letters, len(kept) + len(letters), raw.absent, raw.present)


def _exploded(
    raw: RawRows, lists: tuple[str, ...]
) -> tuple[pl.DataFrame, list[tuple[Reason, pl.DataFrame]]]:
    """Makes one row per element; also returns the rows that cannot be exploded."""
    frame = raw.frame.with_columns(raw.undecodable.alias(_UNDECODABLE))
    if not lists:
        return frame, []
    impossible = pl.repeat(False, len(frame), dtype=pl.Boolean, eager=True)
    for name in lists:
        if frame[name].dtype == pl.String:
            parsed = parse_lists(frame[name])
            frame = frame.with_columns(parsed.values)
            impossible = impossible | parsed.impossible
        elif isinstance(frame[name].dtype, pl.Array):
            frame = frame.with_columns(frame[name].arr.to_list())
        elif frame[name].dtype == pl.Null:
            frame = frame.with_columns(frame[name].cast(pl.List(pl.String)))
        elif not isinstance(frame[name].dtype, pl.List):
            raise DataError(
                f"column {name!r} holds {frame[name].dtype}",
                constraint="lists, as it is named in `explode`",
                remedy="take it out of `explode`",
            )
    lengths = [pl.col(name).list.len().fill_null(0) for name in lists]
    unequal = frame.select(
        pl.any_horizontal(pl.lit(False), *(length != lengths[0] for length in lengths[1:]))
    ).to_series()
    impossible = impossible | unequal
    empty = frame.select(lengths[0] == 0).to_series() & ~impossible
    refused: list[tuple[Reason, pl.DataFrame]] = [
        ("malformed", frame.filter(impossible)),
        ("empty", frame.filter(empty)),
    ]
    return frame.filter(~(impossible | empty)).explode(lists), refused


def _unreadable(raw: RawRows, index: int, stream_name: str) -> pl.DataFrame:
    count = len(raw.unreadable.number)
    if count == 0:
        return no_dead_letters()
    rows = pl.DataFrame({SOURCE_ROW: raw.unreadable.number}).with_columns(
        pl.lit(index, pl.Int32).alias(SOURCE_FILE)
    )
    letters = dead_letters(rows, "malformed", stream_name=stream_name, shown=[])
    return letters.with_columns(cut_text(raw.unreadable.raw).alias("raw"))


def _oversized(rows: pl.DataFrame, max_bytes: int) -> pl.Series:
    tests = [
        pl.col(name).str.len_bytes() > max_bytes
        if dtype == pl.String
        else pl.col(name).list.eval(pl.element().str.len_bytes()).list.max() > max_bytes
        for name, dtype in rows.schema.items()
        if dtype in (pl.String, pl.List(pl.String))
    ]
    found = rows.select(pl.any_horizontal(pl.lit(False), *(t.fill_null(False) for t in tests)))
    return found.to_series() if tests else pl.repeat(False, len(rows), dtype=pl.Boolean, eager=True)


def _within(times: pl.Series, limits: Limits) -> pl.Series:
    return ((times >= limits.min_time_ms) & (times < limits.max_time_ms)).fill_null(False)


def _missing_columns(where: str, missing: frozenset[str], present: set[str]) -> DataError:
    hints = "".join(nearest(name, sorted(present)) for name in sorted(missing))
    return DataError(
        f"{where} lacks {', '.join(repr(name) for name in sorted(missing))}{hints}",
        constraint=f"the columns {', '.join(sorted(missing))}",
        received=f"the columns {', '.join(sorted(present)) or 'none'}",
        remedy="correct the source's `delimiter`"
        if len(present) == 1 and missing
        else "correct `source` (or the column's name) in the configuration, or the file",
    )


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


def _as_text(ms: int) -> str:
    return (_EPOCH + datetime.timedelta(milliseconds=ms)).date().isoformat()
