"""Bytes of a text file, decompressed."""

from __future__ import annotations

import pyarrow as pa

from components.log_example_gen.source_files import LogFile
from models.spec.errors import DataError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_bytes(file: LogFile) -> bytes:
    """Reads a file whole; .gz, .bz2, .zst and .lz4 are decompressed by their extension.

    Raises:
        DataError: It cannot be read or is cut short.
    """
    try:
        with pa.input_stream(file.path, compression="detect") as stream:
            content: bytes = stream.read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"file {file.name!r} cannot be read",
            constraint="a readable, whole file",
            received=str(error).split("\n", 1)[0],
            remedy="write it again, or take it out of the folder",
        ) from error
    return content.removeprefix(_BYTE_ORDER_MARK)
