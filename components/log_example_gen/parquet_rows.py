"""Reads the wanted columns of a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from components.log_example_gen.raw_rows import RawRows, UnreadableRows, decode_utf8, numbered
from components.log_example_gen.source_files import LogFile
from models.spec.errors import DataError

_BATCH_ROWS = 262_144
"""Rows read at a time: a file may be larger than memory."""


def read_parquet(file: LogFile, wanted: tuple[str, ...]) -> Iterator[RawRows]:
    """Reads a Parquet file in parts.

    Args:
        file: The file.
        wanted: Source columns; absent ones are reported, not raised.

    Yields:
        At least one part, with or without rows.

    Raises:
        DataError: The file is damaged or not Parquet.
    """
    try:
        opened = pq.ParquetFile(file.path)
        present = tuple(opened.schema_arrow.names)
        columns = [name for name in wanted if name in present]
        absent = frozenset(wanted) - set(present)
        first = 1
        # A file without row groups is a file without rows; the library takes it for a fault.
        batches = opened.iter_batches(_BATCH_ROWS, columns=columns) if opened.num_row_groups else ()
        for batch in batches:
            if batch.num_rows:
                yield _part(pa.Table.from_batches([batch]), first, absent, present)
            first += batch.num_rows
        if first == 1:
            yield _part(opened.schema_arrow.empty_table().select(columns), 1, absent, present)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"file {file.name!r} cannot be read",
            constraint="a whole Parquet file",
            received=str(error).split("\n", 1)[0],
            remedy="write it again, or take it out of the folder: it is damaged or cut short"
            if _begins_as_parquet(file)
            else "set the source's `format` to what it is, or take it out of the folder",
        ) from error


def _begins_as_parquet(file: LogFile) -> bool:
    try:
        with open(file.path, "rb") as stream:
            return stream.read(4) == b"PAR1"
    except OSError:
        return False


def _part(table: pa.Table, first: int, absent: frozenset[str], present: tuple[str, ...]) -> RawRows:
    undecodable = pl.repeat(False, table.num_rows, dtype=pl.Boolean, eager=True)
    series = []
    for name in table.column_names:
        decoded, bad = _decoded(table[name])
        undecodable = undecodable | bad
        series.append(decoded.alias(name))
    frame = pl.DataFrame(series) if series else pl.DataFrame(height=table.num_rows)
    numbers = pl.int_range(first, first + table.num_rows, dtype=pl.Int64, eager=True)
    return RawRows(numbered(frame, numbers), UnreadableRows(), undecodable, absent, present)


def _decoded(values: pa.ChunkedArray) -> tuple[pl.Series, pl.Series]:
    """Checks all text: the format's own strings are not checked when they are read."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if _is_text(values.type):
        return decode_utf8(values)
    is_list = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
    if not is_list or not _is_text(values.type.value_type):
        return pl.Series(values), pl.repeat(False, len(values), dtype=pl.Boolean, eager=True)
    lists = values.cast(pa.large_list(pa.large_binary())).combine_chunks()
    text, bad = decode_utf8(lists.values)
    decoded = pl.Series(pa.LargeListArray.from_arrays(lists.offsets, text.to_arrow()))
    flags = pl.Series(pa.LargeListArray.from_arrays(lists.offsets, bad.to_arrow()))
    is_null = pl.Series(lists.is_null())
    return (
        decoded.set(is_null, None) if is_null.any() else decoded,
        flags.list.any().fill_null(False) & ~is_null,
    )


def _is_text(dtype: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(dtype)
        or pa.types.is_large_string(dtype)
        or pa.types.is_binary(dtype)
        or pa.types.is_large_binary(dtype)
    )
