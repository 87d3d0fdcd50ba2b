"""Writes files that appear whole or not at all, on any file system that Beam knows."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems


def write_whole(path: str, content: Iterable[bytes]) -> None:
    """Writes a file under a hidden name, then renames it.

    Hidden names are no part of a file pattern; a retried bundle writes under another one.

    Args:
        path: Where the file shall be; its folder is created. An earlier file is replaced.
        content: Its bytes, in parts.
    """
    folder, _, name = path.rpartition("/")
    staged = f"{folder}/.{name}-{uuid.uuid4().hex}"
    with FileSystems.create(staged, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        for part in content:
            file.write(part)
    FileSystems.rename([staged], [path])
