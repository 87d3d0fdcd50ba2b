"""Where tables wait between Beam's stages.

Beam copies, counts and holds every element; an object it does not know it pickles several times.
Compressed Arrow streams cost one pass each way and a fraction of the memory. Distributed runners
keep them on their own disks. The runner in this process keeps every collection in memory, so there
the streams lie in files and elements only say where: memory then holds the shards in work, however
many impressions there are.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator

import apache_beam as beam
import polars as pl
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

StoredTable = tuple[str, int, int]
"""File, offset and length in bytes of an Arrow stream."""

Table = bytes | StoredTable
"""A table as Beam's elements hold it."""


class TableStore:
    """Puts tables into elements and takes them out again.

    Every instance appends to a file of its own, so that workers do not meet. What a failed attempt
    has written is never read, for the elements that name it are dropped with the attempt.
    """

    def __init__(self, folder: str | None) -> None:
        """Chooses the form.

        Args:
            folder: A folder that all workers share; None keeps tables inside the elements.
        """
        self._folder = folder
        self._file: io.FileIO | None = None

    def __getstate__(self) -> dict[str, object]:
        """Leaves the open file behind: a copy writes its own."""
        return {"_folder": self._folder, "_file": None}

    def put(self, frame: pl.DataFrame) -> Table:
        """Writes a frame down."""
        buffer = io.BytesIO()
        frame.write_ipc_stream(buffer, compression="lz4")
        if self._folder is None:
            return buffer.getvalue()
        if self._file is None:
            self._file = open(f"{self._folder}/{uuid.uuid4().hex}", "xb", buffering=0)  # noqa: SIM115
        offset, content = self._file.tell(), buffer.getbuffer()
        while content:
            content = content[self._file.write(content) :]
        return self._file.name, offset, self._file.tell() - offset

    def get(self, tables: Iterable[Table]) -> pl.DataFrame:
        """Reads tables of one schema into one frame.

        Args:
            tables: At least one table.
        """
        return pl.concat([pl.read_ipc_stream(_content(table)) for table in tables], rechunk=True)


@contextlib.contextmanager
def table_store(pipeline: beam.Pipeline, folder: str) -> Iterator[TableStore]:
    """Makes the store that suits a pipeline's runner, and removes its files in the end.

    Args:
        pipeline: The pipeline.
        folder: A folder on a local disk; it is created.
    """
    if not isinstance(pipeline.runner, FnApiRunner):
        yield TableStore(None)
        return
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tables-", dir=folder) as tables:
        yield TableStore(tables)


def _content(table: Table) -> bytes:
    if isinstance(table, bytes):
        return table
    path, offset, length = table
    descriptor = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while length > 0:
            # One call reads at most 2 GiB.
            part = os.pread(descriptor, length, offset)
            if not part:
                raise EOFError(f"table file {path} is shorter than its tables")
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
    finally:
        os.close(descriptor)
    return parts[0] if len(parts) == 1 else b"".join(parts)
