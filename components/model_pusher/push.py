"""An atomic push: staged beside the target, checksummed, synced, then renamed.

A model server sees a directory only once its name is a number. Everything is therefore written
under a name that is not one, in the same file system, and renamed at the end: a kill at any moment
leaves the old state or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "polyrank_manifest.json"
_STAGING_PREFIX = ".staging-"


@dataclass(frozen=True)
class Pushed:
    """A version in a base path.

    Attributes:
        version: Its number; versions only increase.
        path: Its directory.
        new: False if an earlier attempt of the same run had pushed it.
    """

    version: int
    path: Path
    new: bool


@dataclass(frozen=True)
class Newer:
    """The served version, of a newer window than the one to push.

    Attributes:
        version: Its number.
        run_id: The run that pushed it.
        test_end: End of that run's window, in milliseconds since 1970.
    """

    version: int
    run_id: str
    test_end: int


def find_newer(base_path: Path, *, run_id: str, test_end: int) -> Newer | None:
    """Finds out whether a push would replace a model of a newer window.

    Servers take the highest version, so that is what a push replaces; a window that somebody asked
    to roll back to counts as much as any other. Versions without a manifest are not ours to judge.

    Args:
        base_path: TF Serving base path.
        run_id: The run that wants to push. One that has pushed replaces nothing by a retry.
        test_end: End of its window, in milliseconds since 1970.
    """
    found = versions(base_path)
    manifests = {version: read_manifest(path) for version, path in found.items()}
    if any(m is not None and m.get("run_id") == run_id for m in manifests.values()):
        return None
    served = max(found, default=None)
    manifest = manifests.get(served) if served is not None else None
    window = (manifest or {}).get("window") or {}
    if served is None or manifest is None or window.get("test_end", test_end) <= test_end:
        return None
    return Newer(served, manifest["run_id"], window["test_end"])


def push(
    model_dir: Path,
    base_path: Path,
    *,
    run_id: str,
    provenance: Mapping[str, Any],
    complete: Callable[[Path], None] = lambda staged: None,
) -> Pushed:
    """Copies a SavedModel into a base path as the next version, all or nothing.

    Args:
        model_dir: The exported SavedModel.
        base_path: TF Serving base path; made if missing.
        run_id: The run that pushes. A version that this run pushed before is returned as it is.
        provenance: Where the model comes from; written into the manifest.
        complete: Called with the staged copy to add files (warm-up requests) before checksums.

    Returns:
        The version.
    """
    base_path.mkdir(parents=True, exist_ok=True)
    for version, path in sorted(versions(base_path).items(), reverse=True):
        manifest = read_manifest(path)
        if manifest is not None and manifest.get("run_id") == run_id:
            return Pushed(version, path, new=False)
    staged = base_path / f"{_STAGING_PREFIX}{run_id}"
    if staged.exists():
        shutil.rmtree(staged)
    shutil.copytree(model_dir, staged)
    complete(staged)
    manifest = {**provenance, "run_id": run_id, "files": checksums(staged)}
    (staged / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
    _sync(staged)
    version = max(versions(base_path), default=0) + 1
    target = base_path / str(version)
    os.rename(staged, target)
    _sync_directory(base_path)
    return Pushed(version, target, new=True)


def versions(base_path: Path) -> dict[int, Path]:
    """Version directories of a base path by number, as TF Serving reads their names."""
    if not base_path.is_dir():
        return {}
    return {int(p.name): p for p in base_path.iterdir() if p.is_dir() and p.name.isdecimal()}


def read_manifest(version_dir: Path) -> dict[str, Any] | None:
    """Reads the manifest of a pushed version, or None if it has none."""
    try:
        return dict(json.loads((version_dir / MANIFEST).read_text()))
    except FileNotFoundError:
        return None


def checksums(directory: Path) -> dict[str, str]:
    """SHA-256 of every file, by path relative to the directory; the manifest itself left out."""
    return {
        file.relative_to(directory).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in _files(directory)
        if file.name != MANIFEST
    }


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file())


def _sync(directory: Path) -> None:
    for file in _files(directory):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for folder in [*(p for p in directory.rglob("*") if p.is_dir()), directory]:
        _sync_directory(folder)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
