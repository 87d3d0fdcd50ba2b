"""Reads the wanted columns of a CSV file as text."""

from __future__ import annotations

import csv
import functools
import re

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from components.log_example_gen.raw_rows import (
    RawRows,
    blank_lines,
    decode_utf8,
    line_offsets,
    numbered,
    split_lines,
    unreadable_lines,
)
from components.log_example_gen.source_files import LogFile
from components.log_example_gen.text_file import read_bytes
from models.spec.errors import DataError

_MAX_BLOCK_BYTES = 1 << 30


def read_csv(file: LogFile, wanted: tuple[str, ...], delimiter: str) -> RawRows:
    """Reads a CSV file with a header line.

    Every value is text, an empty one null; nothing is inferred. A row is a line: quotes protect
    delimiters, not line breaks, so that one stray quote costs one row and not the rest of the
    file. Lines with a wrong number of fields, an open quote or a carriage return between fields
    are unreadable; blank ones are no rows.

    Args:
        file: The file.
        wanted: Source columns; absent ones are reported, not raised.
        delimiter: Field separator, one character.

    Raises:
        DataError: There is no readable header, or a name occurs twice in it.
    """
    lines = split_lines(read_bytes(file))
    present = _header(file, lines, delimiter)
    body = lines.slice(1)
    is_blank = blank_lines(body)
    is_whole = ~is_blank & _whole_rows(body, delimiter)
    numbers = np.arange(1, len(body) + 1)
    parsed, refused = _parse(
        body if is_whole.all() else body.filter(pa.array(is_whole)),
        present,
        [name for name in wanted if name in present],
        delimiter,
    )
    is_good = is_whole.copy()
    is_good[np.flatnonzero(is_whole)[refused]] = False
    is_bad = ~is_good & ~is_blank
    undecodable = pl.repeat(False, parsed.num_rows, dtype=pl.Boolean, eager=True)
    series = []
    for name in parsed.column_names:
        text, bad = decode_utf8(parsed[name])
        undecodable = undecodable | bad
        series.append(text.alias(name))
    frame = pl.DataFrame(series) if series else pl.DataFrame(height=parsed.num_rows)
    return RawRows(
        numbered(frame, pl.Series(numbers[is_good])),
        unreadable_lines(body.filter(pa.array(is_bad)), pl.Series(numbers[is_bad])),
        undecodable,
        frozenset(wanted) - set(present),
        present,
    )


def _header(file: LogFile, lines: pa.Array, delimiter: str) -> tuple[str, ...]:
    line = lines[0].as_py().decode("utf-8", "replace").rstrip("\r\n") if len(lines) else ""
    try:
        names = tuple(next(csv.reader([line], delimiter=delimiter), []))
    except csv.Error as error:
        raise DataError(
            f"file {file.name!r} has no readable header",
            constraint="the column names in its first line",
            received=f"{len(line)} characters ({error})",
            remedy="write the header, or take the file out of the folder: it may not be CSV",
        ) from error
    if not names:
        raise DataError(
            f"file {file.name!r} has no header",
            constraint="the column names in its first line",
            received="an empty line" if len(lines) else "an empty file",
            remedy="write the header, or take the file out of the folder",
        )
    if len(set(names)) < len(names):
        # A file without header has somebody's data here: tell places, not names.
        twice = [i for i, name in enumerate(names, start=1) if names.count(name) > 1]
        raise DataError(
            f"file {file.name!r} names a column twice",
            constraint="different column names",
            received=f"the same name in columns {', '.join(map(str, twice))}",
            remedy="rename one of them",
        )
    return names


def _whole_rows(lines: pa.Array, delimiter: str) -> NDArray[np.bool_]:
    """Returns which lines the parser takes for one row, of whatever number of fields, [lines].

    An even number of quotes is not enough: inside an unquoted field a quote is a character like any
    other, so that in ``a"b,"c`` the second one opens a field and never closes it. A carriage return
    outside quotes ends a row like a line feed.
    """
    if len(lines) == 0:
        return np.zeros(0, dtype=bool)
    offsets = line_offsets(lines)
    content = np.frombuffer(lines.buffers()[2], np.uint8)[: offsets[-1]]
    quotes = np.flatnonzero(content == ord('"'))
    first = np.searchsorted(quotes, offsets)
    counts = np.diff(first)
    whole: NDArray[np.bool_] = counts % 2 == 0
    quotes = quotes[first[0] :]
    line = np.repeat(np.arange(len(lines)), counts)
    opens = (np.arange(len(quotes)) - (first[:-1] - first[0])[line]) % 2 == 0
    line, quotes = line[opens], quotes[opens]
    before = content[np.maximum(quotes - 1, 0)]
    # Usually a quote opens a field, or is the second one of a pair inside it.
    usual = (quotes == offsets[line]) | (before == ord(delimiter)) | (before == ord('"'))
    returns = np.flatnonzero(content[:-1] == ord("\r"))
    returns = returns[(content[returns + 1] != ord("\n")) & (returns >= offsets[0])]
    broken = np.searchsorted(offsets, returns, side="right") - 1
    row = _one_row(delimiter)
    for index in np.unique(np.concatenate([line[~usual], broken])).tolist():
        text = lines[index].as_py().rstrip(b"\r\n")
        whole[index] &= bool(text) and row.fullmatch(text) is not None
    return whole


@functools.lru_cache(maxsize=8)
def _one_row(delimiter: str) -> re.Pattern[bytes]:
    """Matches what the parser takes for one row; text may follow the quote that closes a field."""
    end = re.escape(delimiter.encode())
    rest = rb"[^\r%b]*" % end
    field = rb'(?:"(?:[^"]|"")*"(?!")%b|[^"\r%b]%b|)' % (rest, end, rest)
    return re.compile(rb"%b(?:%b%b)*" % (field, end, field))


def _parse(
    lines: pa.Array, present: tuple[str, ...], columns: list[str], delimiter: str
) -> tuple[pa.Table, NDArray[np.int64]]:
    """Parses lines; returns the columns as bytes and which lines had a wrong number of fields."""
    columns = columns or [present[0]]
    try:
        lines.cast(pa.large_string())
    except pa.ArrowInvalid:
        # The library decodes a refused line before it tells, and gives up where it cannot. In
        # Latin-1 all bytes are characters, and the fields are the same.
        refused = _read(lines, present, columns[:1], delimiter, "latin-1")[1]
        is_whole = np.ones(len(lines), dtype=bool)
        is_whole[refused] = False
        lines = lines.filter(pa.array(is_whole))
        return _read(lines, present, columns, delimiter, "utf8")[0], refused
    return _read(lines, present, columns, delimiter, "utf8")


def _read(
    lines: pa.Array, present: tuple[str, ...], columns: list[str], delimiter: str, encoding: str
) -> tuple[pa.Table, NDArray[np.int64]]:
    if len(lines) == 0:
        empty = {name: pa.array([], pa.large_binary()) for name in columns}
        return pa.table(empty), np.zeros(0, dtype=np.int64)
    offsets = line_offsets(lines)
    content = lines.buffers()[2].slice(offsets[0], offsets[-1] - offsets[0])
    refused: list[int] = []

    def refuse(row: pacsv.InvalidRow) -> str:
        refused.append(row.number - 1)
        return "skip"

    table = pacsv.read_csv(
        pa.BufferReader(content),
        read_options=pacsv.ReadOptions(
            use_threads=False,
            block_size=min(content.size + 1, _MAX_BLOCK_BYTES),
            column_names=list(present),
            encoding=encoding,
        ),
        parse_options=pacsv.ParseOptions(delimiter=delimiter, invalid_row_handler=refuse),
        convert_options=pacsv.ConvertOptions(
            check_utf8=False,
            column_types=dict.fromkeys(columns, pa.large_binary()),
            include_columns=columns,
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    return table, np.array(refused, dtype=np.int64)
