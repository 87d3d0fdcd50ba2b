"""What importing the client costs: ``python -m benchmarks.client_import``.

Each line is the median of fresh processes that ran in turn, so that a busy machine slows all alike.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 5
STATEMENTS = {
    "python alone": "pass",
    "numpy": "import numpy",
    "grpc": "import grpc",
    "serving.client": "import serving.client",
    "serving.async_client": "import serving.async_client",
    "tensorflow": "import tensorflow",
}


def seconds(statement: str) -> tuple[float, float]:
    """Runs a statement in a Python of its own; returns wall and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", statement],
        check=True,
        cwd=Path(__file__).resolve().parents[1],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        stderr=subprocess.DEVNULL,
    )
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Prints the table."""
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in STATEMENTS}
    for _ in range(ROUNDS):
        for name, statement in STATEMENTS.items():
            measured[name].append(seconds(statement))
    print(f"{'import':<22}{'wall s':>8}{'CPU s':>8}")
    for name, runs in measured.items():
        wall, cpu = (statistics.median(values) for values in zip(*runs, strict=True))
        print(f"{name:<22}{wall:>8.3f}{cpu:>8.3f}")


if __name__ == "__main__":
    main()
