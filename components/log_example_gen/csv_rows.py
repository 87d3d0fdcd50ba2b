"""Reads the wanted columns of a CSV file as text."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from components.log_example_gen.raw_rows import (
    RawRows,
    UnreadableRows,
    decode_utf8,
    numbered,
    split_lines,
    unreadable_lines,
)
from components.log_example_gen.source_files import LogFile
from components.log_example_gen.text_file import read_bytes
from models.spec.errors import DataError

_QUOTE = ord('"')


def read_csv(file: LogFile, wanted: tuple[str, ...], delimiter: str) -> RawRows:
    """Reads a CSV file with a header line.

    Every value is text, an empty one null; nothing is inferred. A row is a line: quotes protect
    delimiters and doubled quotes, not line breaks, so that one stray quote costs one row. Rows
    with a wrong number of fields or an open quote are unreadable.

    Args:
        file: The file.
        wanted: Source columns; absent ones are reported, not raised.
        delimiter: Field separator, one character.

    Raises:
        DataError: There is no header, or a name occurs twice in it.
    """
    content = read_bytes(file)
    lines = split_lines(content)
    if len(lines) == 0:
        raise DataError(
            f"file {file.name!r} is empty",
            constraint=f"a header with the columns {', '.join(wanted)}",
            remedy="write the header, or take the file out of the folder",
        )
    parse = pacsv.ParseOptions(delimiter=delimiter)
    present = _header(file, lines[0].as_py(), parse)
    body = lines.slice(1)
    filled = pc.greater(pc.binary_length(_stripped(body)), 0)
    closed = pc.and_(filled, pa.array(_closed_quotes(body)))
    num_fields = _count_fields(body.filter(closed), delimiter, parse)
    numbers = np.arange(1, len(body) + 1)
    good = np.zeros(len(body), dtype=bool)
    good[np.flatnonzero(closed.to_numpy(zero_copy_only=False))] = num_fields == len(present)
    bad = filled.to_numpy(zero_copy_only=False) & ~good
    columns = [name for name in wanted if name in present]
    frame, undecodable = _parse(body if good.all() else body.filter(pa.array(good)), present, columns, parse)
    unreadable = (
        unreadable_lines(body.filter(pa.array(bad)), pl.Series(numbers[bad]))
        if bad.any()
        else UnreadableRows()
    )
    return RawRows(
        numbered(frame, pl.Series(numbers[good])),
        unreadable,
        undecodable,
        frozenset(wanted) - set(present),
        present,
    )
