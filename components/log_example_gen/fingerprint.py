"""A hash of everything the logs contain, for cache keys."""

from __future__ import annotations

import hashlib
from pathlib import Path

from components.log_example_gen.source_files import list_files
from components.log_example_gen.spec import Logs
from models.spec.errors import DataError
from models.spec.ranking import IMPRESSIONS

_CHUNK_BYTES = 1 << 20


def fingerprint_logs(logs: Logs, root: Path) -> str:
    """Hashes the names and bytes of every file of every source.

    Sizes and modification times do not matter: a changed byte is always seen, a copied folder has
    the same fingerprint.

    Args:
        logs: The sources.
        root: Folder of the logs.

    Returns:
        64 hexadecimal digits.

    Raises:
        DataError: A source has no file, or one that cannot be read.
    """
    total = hashlib.blake2b(digest_size=32)
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    for stream_name, source in [(IMPRESSIONS, logs.impressions), *sorted(logs.streams.items())]:
        for file in list_files(root, source, stream_name=stream_name):
            content = hashlib.blake2b(digest_size=32)
            try:
                with open(file.path, "rb", buffering=0) as opened:
                    while count := opened.readinto(buffer):
                        content.update(buffer[:count])
            except OSError as error:
                raise DataError(
                    f"file {file.name!r} of {stream_name!r} cannot be read",
                    received=error.strerror or str(error),
                    remedy="mend its permissions, or take it out of the folder",
                ) from error
            # Digests have a fixed length and names end with NUL: no two lists of files collide.
            total.update(stream_name.encode() + b"\0" + file.name.encode() + b"\0")
            total.update(content.digest())
    return total.hexdigest()
