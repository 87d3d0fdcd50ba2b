"""What tests that kill processes share."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.model_pusher.push import checksums, read_manifest, versions

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def serving(
    model: str, base_path: Path, folder: Path
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Runs a server and says its address; whatever is left of it in the end is killed.

    Args:
        model: Name to serve the model under.
        base_path: Where its versions are.
        folder: Where the server's port and log go.
    """
    port_file = folder / "port"
    port_file.unlink(missing_ok=True)
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.server", f"--model={model}={base_path}", "--port=0",
             f"--port-file={port_file}", "--poll-seconds=0.05"],
            cwd=ROOT, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            end = time.monotonic() + 120
            while not port_file.exists():
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.02)
            yield process, f"127.0.0.1:{port_file.read_text().strip()}"
        finally:
            process.kill()
            process.wait()


def assert_whole(base_path: Path) -> None:
    """Every numeric directory holds exactly what was pushed."""
    for path in versions(base_path).values():
        manifest = read_manifest(path)
        assert manifest is not None, path
        assert manifest["files"] == checksums(path)
