"""What a file holds before anything is known about its values: rows of source columns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.log_example_gen import sql
from components.log_example_gen.row_names import SOURCE_ROW


@dataclass(frozen=True)
class UnreadableRows:
    """Rows that the format itself refuses: lines that do not parse.

    Attributes:
        number: Row number in the file, from 1, [rows].
        raw: Their text, invalid UTF-8 replaced by hexadecimal digits, [rows].
    """

    number: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.Int64))
    raw: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.String))


@dataclass(frozen=True)
class RawRows:
    """Contents of one file.

    Attributes:
        frame: The wanted source columns and `SOURCE_ROW`. Typed where the format is (Parquet),
            else text; lists in text formats are JSON text; bytes that are not UTF-8 are null and
            flagged in `undecodable`.
        unreadable: Rows that are not in the frame.
        undecodable: True where a text was not UTF-8, [rows of frame].
        absent: Wanted columns that no row has (JSON Lines, which has no header).
        present: Names of the columns that the file has, for messages.
    """

    frame: pl.DataFrame
    unreadable: UnreadableRows
    undecodable: pl.Series
    absent: frozenset[str] = frozenset()
    present: tuple[str, ...] = ()


def decode_utf8(values: pa.Array | pa.ChunkedArray) -> tuple[pl.Series, pl.Series]:
    """Decodes bytes.

    Args:
        values: Arrow binary or string values, [rows].

    Returns:
        The text, null where the bytes are not UTF-8, and a flag that says where they are not.
    """
    binary = values.cast(pa.large_binary())
    try:
        text = pl.Series(binary.cast(pa.large_string()))
        return text, pl.repeat(False, len(text), dtype=pl.Boolean, eager=True)
    except pa.ArrowInvalid:
        frame = pl.DataFrame({"bytes": pl.Series(binary)})
        decoded = sql.query("SELECT try(decode(bytes)) AS text FROM rows", frame)["text"]
        return decoded, decoded.is_null() & frame["bytes"].is_not_null()


def split_lines(content: bytes) -> pa.Array:
    """Splits bytes at line feeds without copying them.

    Args:
        content: A file.

    Returns:
        Large binary values, each with its line feed, blank last line left out, [lines].
    """
    feeds = np.flatnonzero(np.frombuffer(content, np.uint8) == 10) + 1
    ends = feeds if len(feeds) and feeds[-1] == len(content) else np.append(feeds, len(content))
    if not content:
        ends = ends[:0]
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(content)]
    )


def line_offsets(lines: pa.Array) -> NDArray[np.int64]:
    """Returns where each line begins in its buffer, and where the last one ends, [lines + 1]."""
    if len(lines) == 0:
        return np.zeros(1, dtype=np.int64)
    offsets = np.frombuffer(lines.buffers()[1], np.int64)
    return offsets[lines.offset : lines.offset + len(lines) + 1]


def blank_lines(lines: pa.Array) -> NDArray[np.bool_]:
    """Returns which lines hold nothing but their line break, [lines]."""
    if len(lines) == 0:
        return np.zeros(0, dtype=bool)
    offsets = line_offsets(lines)
    lengths = np.diff(offsets)
    first = np.frombuffer(lines.buffers()[2], np.uint8)[offsets[:-1]]
    blank: NDArray[np.bool_] = ((lengths == 1) & (first == ord("\n"))) | (
        (lengths == 2) & (first == ord("\r"))
    )
    return blank


def unreadable_lines(lines: pa.Array, numbers: pl.Series) -> UnreadableRows:
    """Keeps lines for the dead letters."""
    head = pc.binary_slice(lines, 0, 1024)
    text, undecodable = decode_utf8(head)
    raw = (
        pl.DataFrame({"text": text, "bad": undecodable, "bytes": pl.Series(head)})
        .select(
            pl.when("bad")
            .then(pl.col("bytes").bin.encode("hex"))
            .otherwise(pl.col("text").str.strip_chars_end("\r\n"))
        )
        .to_series()
    )
    return UnreadableRows(numbers, raw)


def numbered(frame: pl.DataFrame, numbers: pl.Series | None = None) -> pl.DataFrame:
    """Adds the row numbers: the given ones, or 1, 2, 3, ..."""
    if numbers is None:
        numbers = pl.int_range(1, len(frame) + 1, dtype=pl.Int64, eager=True)
    return frame.with_columns(numbers.alias(SOURCE_ROW))
