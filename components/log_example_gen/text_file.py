"""Bytes of a text file, decompressed."""

from __future__ import annotations

import re

import pyarrow as pa

from components.log_example_gen.source_files import LogFile
from models.spec.errors import DataError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BINARY = {
    rb"\x1f\x8b": "add .gz to its name",
    rb"BZh[1-9]1AY&SY": "add .bz2 to its name",
    rb"\x28\xb5\x2f\xfd": "add .zst to its name",
    rb"\x04\x22\x4d\x18": "add .lz4 to its name",
    rb"PAR1.*PAR1\Z": "set `format: parquet` on the source",
}
"""What to do about a file that is no text, as a pattern of its bytes."""


def read_bytes(file: LogFile) -> bytes:
    """Reads a file whole; .gz, .bz2, .zst and .lz4 are decompressed by their extension.

    Raises:
        DataError: It cannot be read, is cut short, or is compressed or Parquet against its name.
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
    for pattern, remedy in _BINARY.items():
        if re.match(pattern, content, re.DOTALL):
            raise DataError(
                f"file {file.name!r} is no text",
                constraint="CSV or JSON Lines, or such a file compressed and named so",
                received=f"a file that begins with the bytes {content[:4].hex(' ')}",
                remedy=remedy,
            )
    return content.removeprefix(_BYTE_ORDER_MARK)
