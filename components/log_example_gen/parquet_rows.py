"""Reads the wanted columns of a Parquet file."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from components.log_example_gen.raw_rows import RawRows, UnreadableRows, decode_utf8, numbered
from components.log_example_gen.source_files import LogFile
from models.spec.errors import DataError


def read_parquet(file: LogFile, wanted: tuple[str, ...]) -> RawRows:
    """Reads a Parquet file.

    Args:
        file: The file.
        wanted: Source columns; absent ones are reported, not raised.

    Raises:
        DataError: The file is damaged or not Parquet.
    """
    try:
        opened = pq.ParquetFile(file.path)
        present = tuple(opened.schema_arrow.names)
        columns = [name for name in wanted if name in present]
        # A file without row groups is a file without rows; the library takes it for a fault.
        table = (
            opened.read(columns=columns)
            if opened.num_row_groups
            else opened.schema_arrow.empty_table().select(columns)
        )
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"file {file.name!r} cannot be read",
            constraint="a whole Parquet file",
            received=str(error).split("\n", 1)[0],
            remedy="write it again, or take it out of the folder: it is damaged or cut short",
        ) from error
    undecodable = pl.repeat(False, table.num_rows, dtype=pl.Boolean, eager=True)
    series = []
    for name in columns:
        values = table[name]
        if _is_text(values.type):
            text, bad = decode_utf8(values)
            undecodable = undecodable | bad
            series.append(text.alias(name))
        else:
            series.append(pl.Series(name, values))
    frame = numbered(pl.DataFrame(series) if series else pl.DataFrame(height=table.num_rows))
    return RawRows(frame, UnreadableRows(), undecodable, frozenset(wanted) - set(present), present)


def _is_text(dtype: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(dtype)
        or pa.types.is_large_string(dtype)
        or pa.types.is_binary(dtype)
        or pa.types.is_large_binary(dtype)
    )
