"""Reads one file into canonical rows, with a dead letter for every row that does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from components.log_example_gen.csv_rows import read_csv
from components.log_example_gen.dead_letters import Reason, cut_text, dead_letters, no_dead_letters
from components.log_example_gen.json_lines_rows import read_json_lines
from components.log_example_gen.parquet_rows import read_parquet
from components.log_example_gen.raw_rows import RawRows
from components.log_example_gen.row_names import SOURCE_FILE, SOURCE_ROW
from components.log_example_gen.row_source import RowSource
from components.log_example_gen.source_files import LogFile
from components.log_example_gen.values import convert, parse_lists, time_ms
from models.spec.errors import DataError, PolyrankError, nearest
from models.spec.ranking import IMPRESSIONS

_UNDECODABLE = "row__undecodable"
_PLACE = (SOURCE_FILE, SOURCE_ROW)


@dataclass(frozen=True)
class FileRows:
    """Rows of one part of a file.

    Attributes:
        frame: Canonical rows: time, declared columns, file and row number.
        dead: Dead letters of the others.
        num_read: Rows read, counted after exploding; an unexplodable row counts once.
        misfits: Rows whose value does not fit the declared type, or lacks in a key, by column.
        absent: Declared columns of which a file without header (JSON Lines) had no trace.
        present: Names the file has.
    """

    frame: pl.DataFrame
    dead: pl.DataFrame
    num_read: int
    misfits: dict[str, int]
    absent: frozenset[str]
    present: tuple[str, ...]


def read_parts(file: LogFile, index: int, wanted: RowSource) -> Iterator[FileRows]:
    """Reads one file into canonical rows and dead letters, in parts that fit into memory.

    Parquet comes in batches of rows; CSV and JSON Lines files are read whole. A row with several
    faults gets the first of erased, malformed, oversized, bad_timestamp. People's data leave this
    function as keyed hashes, in rows, dead letters and errors alike.

    Args:
        file: The file.
        index: Its number, kept in the rows.
        wanted: What to read.

    Yields:
        At least one part.

    Raises:
        DataError: The file is damaged, lacks a column, or a column's type does not fit.
    """
    try:
        for raw in _read_raw(file, wanted):
            yield _named_rows(raw, file, index, wanted)
    except PolyrankError:
        raise
    except Exception as error:
        if not wanted.is_private:
            raise
        # A library's message may quote the row it failed on, and messages are logged.
        raise DataError(
            f"file {file.name!r} of {wanted.stream_name!r} cannot be read",
            received=f"{type(error).__name__}; its text is withheld, the log holds people's data",
            remedy="look into the file",
        ) from None


def _named_rows(raw: RawRows, file: LogFile, index: int, wanted: RowSource) -> FileRows:
    try:
        return _rows(raw, index, wanted)
    except DataError as error:
        raise DataError(
            f"file {file.name!r} of {wanted.stream_name!r}: {error.what}",
            constraint=error.constraint,
            received=error.received,
            remedy=error.remedy,
        ) from error


def missing_columns(
    where: str, missing: frozenset[str], present: set[str], *, time: str, withheld: bool
) -> DataError:
    """Says which columns a file or log lacks, and which names come nearest.

    Args:
        where: The file or log.
        missing: Columns it lacks.
        present: Names that it has.
        time: The name of the time column, which another key of the configuration sets.
        withheld: Do not tell these: where a header is missing they are somebody's data.
    """
    if withheld:
        return DataError(
            f"{where} lacks {', '.join(repr(name) for name in sorted(missing))}",
            constraint=f"the columns {', '.join(sorted(missing))}",
            received=f"{len(present)} columns, their names withheld because the log holds people's "
            "data",
            remedy="look whether the file has a header, and correct `source`, `timestamp`, "
            "`delimiter` or the column's name in the configuration",
        )
    if not present:
        remedy = "set the source's `format` to what the files are: no line is a JSON object"
    elif len(present) == 1:
        remedy = "correct the source's `delimiter`"
    else:
        keys = ["the source's `timestamp`"] * (time in missing)
        keys += ["`source` (or the column's name)"] * bool(missing - {time})
        remedy = f"correct {' and '.join(keys)} in the configuration, or the file"
    hints = "".join(nearest(name, sorted(present)) for name in sorted(missing))
    return DataError(
        f"{where} lacks {', '.join(repr(name) for name in sorted(missing))}{hints}",
        constraint=f"the columns {', '.join(sorted(missing))}",
        received=f"the columns {', '.join(sorted(present)) or 'none'}",
        remedy=remedy,
    )


def source_times(file: LogFile, wanted: RowSource) -> pl.Series:
    """Reads the time column of a file as it is, for messages; missing values left out."""
    only_time = RowSource(wanted.stream_name, wanted.source, {})
    parts = [
        _exploded(raw, wanted.source.explode)[0][wanted.source.timestamp]
        for raw in _read_raw(file, only_time)
    ]
    return pl.concat(parts).drop_nulls()


def _read_raw(file: LogFile, wanted: RowSource) -> Iterator[RawRows]:
    if file.format == "parquet":
        parts = read_parquet(file, wanted.wanted)
    elif file.format == "csv":
        parts = iter([read_csv(file, wanted.wanted, wanted.source.delimiter)])
    else:
        yield read_json_lines(file, wanted.wanted)
        return
    for raw in parts:
        if raw.absent:
            raise missing_columns(
                f"file {file.name!r} of {wanted.stream_name!r}",
                raw.absent,
                set(raw.present),
                time=wanted.source.timestamp,
                withheld=wanted.is_private,
            )
        yield raw


def _rows(raw: RawRows, index: int, wanted: RowSource) -> FileRows:
    number = pl.lit(index, pl.Int32).alias(SOURCE_FILE)
    exploded, refused = _exploded(raw, wanted.source.explode)
    frame = exploded.with_columns(number)
    unit = wanted.source.time_unit
    times = time_ms(frame[wanted.source.timestamp], unit).alias(wanted.time)
    values: list[pl.Series] = []
    malformed = frame[_UNDECODABLE]
    misfits: dict[str, int] = {}
    hidden = wanted.hidden()
    for name, source_name in wanted.names.items():
        converted = convert(frame[source_name], wanted.columns[name].type, unit)
        values.append(converted.values.alias(name))
        misfit = converted.impossible
        if name in wanted.required:
            misfit = misfit | converted.values.is_null()
        if misfit.any():
            misfits[name] = int(misfit.sum())
        malformed = malformed | misfit
    rows = pl.DataFrame([times, *values, frame[SOURCE_ROW], frame[SOURCE_FILE]])
    oversized = _oversized(rows, wanted.limits.max_string_bytes)
    faults: dict[Reason, pl.Series] = {}
    if hidden is not None:
        pii = [name for name, column in wanted.columns.items() if column.pii]
        rows = rows.with_columns(hidden.hashed(rows[name]) for name in pii)
        faults["erased"] = hidden.is_erased(rows)
    faults |= {
        "malformed": malformed,
        "oversized": oversized,
        "bad_timestamp": ~wanted.limits.is_valid_time(times),
    }
    reason = (
        pl.DataFrame(faults)
        .select(pl.coalesce(pl.when(name).then(pl.lit(name)) for name in faults))
        .to_series()
    )
    is_dead = reason.is_not_null()
    dead = [_unreadable(raw, wanted).with_columns(number)]
    for why, part in [(reason.filter(is_dead), frame.filter(is_dead)), *refused]:
        part = part.select(SOURCE_ROW, *wanted.wanted).with_columns(number)
        dead.append(_refused(part, why, wanted))
    kept = rows.filter(~is_dead)
    if wanted.source.explode and wanted.stream_name == IMPRESSIONS:
        # Two equal elements of one slate are a fault of the slate. Equal rows of different slates
        # are duplicates, and so are equal events of a history: these are dropped where they meet.
        lists = [frame[name].alias(f"list__{name}") for name in wanted.source.explode]
        alive = rows.with_columns(lists).filter(~is_dead)
        is_new = alive.select(pl.struct(pl.all()).is_first_distinct()).to_series()
        again = frame.filter(~is_dead).filter(~is_new)
        again = again.select(*_PLACE, *wanted.wanted)
        dead.append(_refused(again, "repeated", wanted))
        kept = kept.filter(is_new)
    letters = pl.concat(dead)
    return FileRows(
        frame=kept,
        dead=letters,
        num_read=len(kept) + len(letters),
        misfits=misfits,
        absent=raw.absent,
        present=raw.present,
    )


def _exploded(
    raw: RawRows, lists: tuple[str, ...]
) -> tuple[pl.DataFrame, list[tuple[Reason | pl.Series, pl.DataFrame]]]:
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
    refused: list[tuple[Reason | pl.Series, pl.DataFrame]] = [
        ("malformed", frame.filter(impossible)),
        ("empty", frame.filter(empty)),
    ]
    return frame.filter(~(impossible | empty)).explode(lists), refused


def _refused(rows: pl.DataFrame, reason: Reason | pl.Series, wanted: RowSource) -> pl.DataFrame:
    """Makes dead letters of source columns; of people's data they show hashes or nothing."""
    hidden = wanted.hidden()
    if hidden is not None:
        rows = hidden.withheld(rows)
    letters = dead_letters(rows, reason, stream_name=wanted.stream_name, shown=list(wanted.wanted))
    is_erased = pl.col("reason") == "erased"
    return letters.with_columns(
        pl.when(is_erased).then(pl.lit("{}")).otherwise(pl.col("raw")).alias("raw")
    )


def _unreadable(raw: RawRows, wanted: RowSource) -> pl.DataFrame:
    if raw.unreadable.number.is_empty():
        return no_dead_letters()
    rows = pl.DataFrame({SOURCE_ROW: raw.unreadable.number}).with_columns(
        pl.lit(0, pl.Int32).alias(SOURCE_FILE)
    )
    letters = dead_letters(rows, "malformed", stream_name=wanted.stream_name, shown=[])
    hidden = wanted.hidden()
    text = cut_text(raw.unreadable.raw)
    return letters.with_columns((text if hidden is None else hidden.hashed(text)).alias("raw"))


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
