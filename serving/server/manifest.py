"""The push manifest: a version's files are the ones that were pushed, or it does not load."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from serving.contract import MANIFEST_FILE
from serving.server import errors

_CHUNK_BYTES = 1 << 20


def verify_manifest(directory: Path) -> bool:
    """Compares the files of a version with its manifest, ``{"files": {path: sha256}}``.

    Files that the manifest does not list are refused as well, and links to directories, whose
    files it cannot list: what is planted would otherwise take part in the model.

    Args:
        directory: Directory of the version.

    Returns:
        Whether there is a manifest.

    Raises:
        StatusError: DATA_LOSS if a file is missing, differs or is not listed, or the manifest
            does not parse.
    """
    path = directory / MANIFEST_FILE
    if not path.is_file():
        return False
    listed = _listed_files(path)
    present = {
        file.relative_to(directory).as_posix()
        for file in directory.rglob("*")
        if (file.is_symlink() or not file.is_dir()) and file != path
    }
    for name in sorted(listed.keys() - present):
        raise errors.manifest_mismatch(f"file {name} is missing")
    for name in sorted(present - listed.keys()):
        raise errors.manifest_mismatch(f"file {name} is not listed")
    for name, expected in sorted(listed.items()):
        if _sha256(directory / name) != expected:
            raise errors.manifest_mismatch(f"file {name} is not what was pushed (sha256 differs)")
    return True


def _listed_files(path: Path) -> dict[str, str]:
    try:
        content: Any = json.loads(path.read_bytes())
        files = content["files"]
        return {str(name): str(digest).lower() for name, digest in files.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise errors.manifest_mismatch(
            f'{path.name} does not hold {{"files": {{path: sha256}}}}'
        ) from None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
