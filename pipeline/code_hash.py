"""Hashes of what determines a run besides data: code, lock file, configuration.

TFX keys its cache by parameters and artifacts, not by the code of functions named by import path.
Every node whose code is ours therefore carries the hash of the packages it runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_DIGEST_CHARACTERS = 16


@lru_cache(maxsize=64)
def code_hash(*packages: str) -> str:
    """Hashes the Python files of packages, or of single modules, and the lock file.

    Args:
        *packages: Paths relative to the project, e.g. ``models`` or ``components/champion``.

    Returns:
        A short hexadecimal digest that changes with any byte of any file.
    """
    digest = hashlib.sha256()
    for file in sorted({file for package in packages for file in _files(ROOT / package)}):
        digest.update(str(file.relative_to(ROOT)).encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    digest.update(lock_hash().encode())
    return digest.hexdigest()[:_DIGEST_CHARACTERS]


def lock_hash() -> str:
    """Hashes the lock file, or the installed versions where there is none (an installed wheel)."""
    lock = ROOT / "requirements.lock"
    if lock.exists():
        return hashlib.sha256(lock.read_bytes()).hexdigest()[:_DIGEST_CHARACTERS]
    from importlib.metadata import distributions

    return value_hash(sorted(f"{d.name}=={d.version}" for d in distributions()))


def value_hash(value: Any) -> str:
    """Hashes a JSON-able value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]


def _files(path: Path) -> Iterable[Path]:
    if path.is_file():
        return [path]
    return (f for f in path.rglob("*") if f.suffix in (".py", ".html", ".j2", ".css", ".pb"))
