"""Seeds that depend on names, so that adding one thing leaves the start of the others alone."""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, *names: str | int) -> int:
    """Derives the seed of one named thing.

    Args:
        seed: The declared seed.
        names: What the seed is for, e.g. the path of a variable, or an epoch.

    Returns:
        A seed in [0, 2^31), the same on every machine.
    """
    text = "/".join(str(part) for part in (seed, *names))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % (1 << 31)
