"""Which files a log consists of, and in which format each is."""

from __future__ import annotations

import glob
import math
import os
from dataclasses import dataclass
from pathlib import Path

from components.log_example_gen.spec import FileFormat, Logs, Source
from models.spec.errors import DataError, nearest
from models.spec.ranking import IMPRESSIONS

_FORMAT_BY_SUFFIX: dict[str, FileFormat] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
_COMPRESSIONS = {".gz", ".bz2", ".zst", ".lz4"}
_BYTES_PER_SHARD = 32 * 2**20
"""About 400,000 impressions with their events, of which a worker holds one shard at a time."""


@dataclass(frozen=True)
class LogFile:
    """One file of a log.

    Attributes:
        path: Where it is.
        name: Its path relative to the folder of the logs, for messages and dead letters.
        format: How it is read.
    """

    path: str
    name: str
    format: FileFormat


def num_shards_needed(logs: Logs, root: Path) -> int:
    """Returns how many shards keep each small enough for a worker, from the size of the files.

    Args:
        logs: The sources.
        root: Folder of the logs.

    Returns:
        One for every 32 MiB of Parquet or compressed files, or 128 MiB of plain text.

    Raises:
        DataError: A source has no file.
    """
    sources = [(IMPRESSIONS, logs.impressions), *logs.streams.items()]
    num_bytes = sum(
        os.path.getsize(file.path)
        // (1 if file.format == "parquet" or Path(file.name).suffix in _COMPRESSIONS else 4)
        for name, source in sources
        for file in list_files(root, source, stream_name=name)
    )
    return math.ceil(num_bytes / _BYTES_PER_SHARD)


def list_files(root: Path, source: Source, *, stream_name: str) -> tuple[LogFile, ...]:
    """Lists the files that a source's globs match, in name order.

    Hidden files and those whose name starts with an underscore (markers of other tools) are not
    logs.

    Args:
        root: Folder of the logs.
        source: Globs and format.
        stream_name: For messages.

    Raises:
        DataError: No file matches, or a file's format is unknown.
    """
    if not root.is_dir():
        raise DataError(
            f"folder of the logs {str(root)!r} does not exist",
            remedy="set logs.root to the folder that holds them",
        )
    names = {
        name
        for pattern in source.path
        for name in glob.glob(pattern, root_dir=root, recursive=True)
        if not os.path.basename(name).startswith((".", "_")) and (root / name).is_file()
    }
    if not names:
        raise _no_match(root, source, stream_name)
    return tuple(
        LogFile(str(root / name), Path(name).as_posix(), source.format or _format_of(name))
        for name in sorted(names)
    )


def _format_of(name: str) -> FileFormat:
    path = Path(name)
    suffix = path.suffix.lower()
    if suffix in _COMPRESSIONS:
        suffix = path.with_suffix("").suffix.lower()
    found = _FORMAT_BY_SUFFIX.get(suffix)
    if found is None:
        raise DataError(
            f"file {name!r} has an unknown extension",
            constraint="one of " + ", ".join(_FORMAT_BY_SUFFIX),
            received=suffix or "none",
            remedy="set `format: parquet`, `csv` or `jsonl` on the source, or narrow its `path`",
        )
    return found


def _no_match(root: Path, source: Source, stream_name: str) -> DataError:
    present = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    shown = ", ".join(present[:8]) + (", ..." if len(present) > 8 else "")
    firsts = [pattern.split("/", 1)[0] for pattern in source.path]
    hint = next((text for first in firsts if (text := nearest(first, present))), "")
    return DataError(
        f"no file of {stream_name!r} matches {', '.join(source.path)} under {root}",
        received=f"a folder with {shown}" if present else "an empty folder",
        remedy=f"correct logs.root or the source's path{hint}",
    )
