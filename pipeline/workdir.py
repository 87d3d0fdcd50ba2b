"""Names of everything in a work directory, in one place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.spec.errors import ConfigError


@dataclass(frozen=True)
class Workdir:
    """The folder in which a pipeline's runs, models and metadata live.

    Attributes:
        root: Absolute path.
    """

    root: Path

    @classmethod
    def open(cls, path: str | Path, *, create: bool = False) -> Workdir:
        """Resolves a work directory.

        Args:
            path: Where it is.
            create: Make it if it does not exist.

        Raises:
            ConfigError: It does not exist, or is not a folder one can write in.
        """
        root = Path(path).expanduser().resolve()
        if create:
            try:
                root.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(
                    f"cannot make the work directory {root}",
                    received=error.strerror or str(error),
                    remedy="give a writable folder with --workdir",
                ) from error
        if not root.is_dir():
            raise ConfigError(
                f"no work directory at {root}", remedy="give the --workdir of an earlier run"
            )
        return cls(root)

    @property
    def metadata(self) -> Path:
        """The ML Metadata store (SQLite)."""
        return self.root / "metadata.db"

    @property
    def artifacts(self) -> Path:
        """Root of TFX's artifacts."""
        return self.root / "artifacts"

    @property
    def checkpoints(self) -> Path:
        """Training checkpoints: outside artifacts, which TFX deletes when a node fails."""
        return self.root / "checkpoints"

    @property
    def serving(self) -> Path:
        """Parent of the TF Serving base paths."""
        return self.root / "serving"

    def run(self, run_id: str) -> Path:
        """Folder of one run."""
        return self.root / "runs" / run_id

    def summary(self, run_id: str) -> Path:
        """The summary of one run."""
        return self.run(run_id) / "summary.json"

    def report(self, run_id: str) -> Path:
        """The report of one run."""
        return self.root / "reports" / run_id / "index.html"

    def read_summary(self, run_id: str) -> dict[str, Any] | None:
        """Returns a run's summary, or None while there is none."""
        try:
            return dict(json.loads(self.summary(run_id).read_text()))
        except FileNotFoundError:
            return None

    def summaries(self) -> Iterator[dict[str, Any]]:
        """Yields every run's summary, in run id order."""
        for path in sorted((self.root / "runs").glob("*/summary.json")):
            yield json.loads(path.read_text())


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file in one step, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
