"""Reads any log into one canonical form, whole: for validation, audits and traces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from components.log_example_gen.file_rows import missing_columns, read_parts, source_times
from components.log_example_gen.pseudonyms import Pseudonyms
from components.log_example_gen.row_names import SOURCE_FILE, SOURCE_ROW
from components.log_example_gen.row_source import Limits, RowSource
from components.log_example_gen.source_files import LogFile, list_files
from components.log_example_gen.spec import Source, StreamColumn, TimeUnit
from components.log_example_gen.values import time_ms
from models.spec.errors import DataError

__all__ = [
    "Limits",
    "ReadResult",
    "check_absent",
    "no_valid_time",
    "read_source",
    "scan_times",
    "with_file_names",
]


@dataclass(frozen=True)
class ReadResult:
    """A whole log.

    Attributes:
        table: Time column (`row_names.time_column`), declared columns in canonical types
            (string, int64, double, bool, timestamp[ms], lists of these), `source__file` (index
            into `files`) and `source__row` (from 1), in file and row order.
        dead: Columns `stream`, `file`, `row`, `reason`, `raw`.
        num_read: Rows read, counted after exploding: rows of `table` plus rows of `dead`.
        misfits: Rows whose value does not fit the declared type, by column.
        files: Names of the files, relative to the folder of the logs.
    """

    table: pa.Table
    dead: pa.Table
    num_read: int
    misfits: dict[str, int]
    files: tuple[str, ...]


def read_source(
    root: Path,
    source: Source,
    columns: Mapping[str, StreamColumn],
    *,
    stream_name: str,
    required: tuple[str, ...] = (),
    limits: Limits | None = None,
    pseudonyms: Pseudonyms | None = None,
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
        pseudonyms: Hides people's data; needed where a column is that.

    Raises:
        DataError: No file matches; a file is damaged, lacks a column or has another type; a
            JSON Lines log has a column in none of its files.
    """
    wanted = RowSource(stream_name, source, columns, required, limits or Limits(), pseudonyms)
    files = list_files(root, source, stream_name=stream_name)
    parts = [part for i, file in enumerate(files) for part in read_parts(file, i, wanted)]
    check_absent(wanted, [(part.num_read, part.absent, part.present) for part in parts])
    names = tuple(file.name for file in files)
    return ReadResult(
        table=pl.concat([part.frame for part in parts]).to_arrow(),
        dead=with_file_names(pl.concat([part.dead for part in parts]), names).to_arrow(),
        num_read=sum(part.num_read for part in parts),
        misfits=dict(sum((Counter(part.misfits) for part in parts), Counter())),
        files=names,
    )


def scan_times(
    root: Path,
    source: Source,
    *,
    stream_name: str,
    limits: Limits | None = None,
    withheld: bool = False,
) -> NDArray[np.int64]:
    """Reads the times of a log, and nothing else that its format can leave out.

    Args:
        root: Folder of the logs.
        source: Files, format, time column, lists to explode.
        stream_name: `impressions` or the stream's name.
        limits: Valid times.
        withheld: The log holds people's data: errors must not quote it.

    Returns:
        Valid times after exploding, ascending, in milliseconds since 1970 UTC, [rows].

    Raises:
        DataError: The log cannot be read, or it has rows but no valid time: the remedy says
            which unit would make them valid.
    """
    wanted = RowSource(stream_name, source, {}, (), limits or Limits(), withheld=withheld)
    files = list_files(root, source, stream_name=stream_name)
    times: list[pl.Series] = []
    found: list[tuple[int, frozenset[str], tuple[str, ...]]] = []
    num_bad = 0
    for index, file in enumerate(files):
        for part in read_parts(file, index, wanted):
            times.append(part.frame[wanted.time])
            found.append((part.num_read, part.absent, part.present))
            num_bad += int((part.dead["reason"] == "bad_timestamp").sum())
    check_absent(wanted, found)
    ascending: NDArray[np.int64] = pl.concat(times).sort().to_numpy()
    if len(ascending) == 0 and num_bad:
        raise no_valid_time(wanted, files[0])
    return ascending


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
        raise missing_columns(
            f"log {wanted.stream_name!r}",
            nowhere,
            {n for _, names in filled for n in names},
            time=wanted.source.timestamp,
            withheld=wanted.is_private,
        )


def no_valid_time(wanted: RowSource, file: LogFile) -> DataError:
    """Says that no row has a valid time, and which time unit would help.

    Args:
        wanted: The log.
        file: One of its files, for an example.
    """
    source = wanted.source
    column = source.timestamp
    values = source_times(file, wanted)
    remedy = f"check `timestamp: {column}` and its values"
    units: tuple[TimeUnit, ...] = ("s", "ms", "us")
    for unit in units:
        is_valid = wanted.limits.is_valid_time(time_ms(values, unit))
        if unit != source.time_unit and is_valid.any():
            remedy = f"set `time_unit: {unit}` on the source: they look like that"
            break
    if len(values) == 0:
        received = "nothing"
    elif wanted.is_private:
        received = f"values of {file.name}, withheld because the log holds people's data"
    else:
        received = f"for example {values[0]!r} in {file.name}"
    return DataError(
        f"no row of {wanted.stream_name!r} has a valid time in column {column!r}",
        constraint=f"times in {wanted.limits.span}, integers in {source.time_unit}",
        received=received,
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
