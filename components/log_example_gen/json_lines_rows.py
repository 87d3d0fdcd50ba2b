"""Reads the wanted keys of a JSON Lines file as text."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pyarrow as pa

from components.log_example_gen import sql
from components.log_example_gen.raw_rows import (
    RawRows,
    blank_lines,
    decode_utf8,
    numbered,
    split_lines,
    unreadable_lines,
)
from components.log_example_gen.source_files import LogFile
from components.log_example_gen.text_file import read_bytes

_ROWS_LOOKED_AT_FOR_NAMES = 100


def read_json_lines(file: LogFile, wanted: tuple[str, ...]) -> RawRows:
    """Reads a file with one JSON object a line.

    Strings are taken as they are, other values as their JSON text; a JSON null and an absent key
    are null. Lines that are not a JSON object are unreadable, blank ones are no rows.

    Args:
        file: The file.
        wanted: Top-level keys.

    Raises:
        DataError: The file cannot be read.
    """
    lines = split_lines(read_bytes(file))
    numbers = np.arange(1, len(lines) + 1)
    text, _ = decode_utf8(lines)
    kinds = sql.query("SELECT try(json_type(line)) AS kind FROM rows", pl.DataFrame({"line": text}))
    is_object = (kinds["kind"] == "OBJECT").fill_null(False)
    is_bad = ~is_object.to_numpy() & ~blank_lines(lines)
    objects = pl.DataFrame({"line": text.filter(is_object)})
    frame = _values(objects, wanted)
    return RawRows(
        numbered(frame, pl.Series(numbers).filter(is_object)),
        unreadable_lines(lines.filter(pa.array(is_bad)), pl.Series(numbers[is_bad])),
        pl.repeat(False, len(frame), dtype=pl.Boolean, eager=True),
        _absent(objects, frame),
        _names(objects),
    )


def _values(objects: pl.DataFrame, wanted: tuple[str, ...]) -> pl.DataFrame:
    if not wanted:
        return pl.DataFrame(height=len(objects))
    structure = json.dumps(dict.fromkeys(wanted, "VARCHAR")).replace("'", "''")
    columns = ", ".join(f"object[{sql.quoted_text(n)}] AS {sql.quoted(n)}" for n in wanted)
    return sql.query(
        f"SELECT {columns} FROM (SELECT json_transform(line, '{structure}') AS object FROM rows)",
        objects,
    )


def _absent(objects: pl.DataFrame, frame: pl.DataFrame) -> frozenset[str]:
    """Returns wanted keys that no row has; a key whose every value is null is not absent."""
    empty = [name for name in frame.columns if frame[name].null_count() == len(frame)]
    if not empty or objects.is_empty():
        return frozenset(empty)
    has = ", ".join(
        f"bool_or(list_contains(keys, {sql.quoted_text(name)})) AS {sql.quoted(name)}"
        for name in empty
    )
    row = sql.query(f"SELECT {has} FROM (SELECT json_keys(line) AS keys FROM rows)", objects)
    return frozenset(name for name in empty if not row[name][0])


def _names(objects: pl.DataFrame) -> tuple[str, ...]:
    head = objects.head(_ROWS_LOOKED_AT_FOR_NAMES)
    keys = sql.query("SELECT DISTINCT unnest(json_keys(line)) AS name FROM rows", head)
    return tuple(keys["name"].sort().to_list())
