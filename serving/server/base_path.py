"""A TF Serving base path: one numbered directory per version."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

_MAX_VERSION = (1 << 63) - 1


def version_directories(base_path: Path) -> dict[int, Path]:
    """Lists the versions under a base path.

    Directories whose names are decimal numbers count, leading zeros accepted; of two names of
    one number the later in alphabetical order wins. Everything else is ignored.

    Args:
        base_path: The base path.

    Raises:
        OSError: It cannot be listed.
    """
    found = {}
    for entry in sorted(base_path.iterdir()):
        name = entry.name
        if name.isascii() and name.isdigit() and int(name) <= _MAX_VERSION and entry.is_dir():
            found[int(name)] = entry
    return found


def fingerprint(directory: Path) -> Hashable:
    """Returns a value that changes when files of a version appear, grow or are rewritten.

    Args:
        directory: Directory of the version; it may be changing, or gone.
    """
    seen = []
    try:
        for file in sorted(directory.rglob("*")):
            state = file.stat()
            seen.append((file.relative_to(directory).as_posix(), state.st_size, state.st_mtime_ns))
    except OSError:
        seen.append(("incomplete", 0, 0))
    return tuple(seen)
