"""Plants faults one at a time and checks that the tests notice: ``python -m tests.mutation.run``.

Each fault goes into a copy of the tree, never into the tree itself. Before the faults, all their
tests must pass on an unchanged copy. Writes `docs/benchmarks/mutations.md`; exits 1 if a fault
was missed.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.mutation.faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks" / "mutations.md"
FOLDERS = ("models", "tests")

HEADER = """# Planted faults

Made by `python -m tests.mutation.run`: each of these mistakes was planted alone in a copy of the
code, and the tests meant for it were run. A test fails when this list is stale or a fault no longer
fits the code.

| fault | file | noticed | by |
|---|---|---|---|
"""


def main() -> int:
    """Runs every fault."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in FOLDERS:
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        failed = failures(copy, sorted({test for fault in FAULTS for test in fault.tests}))
        if failed:
            print(f"the tests fail without any fault: {failed}", file=sys.stderr)
            return 1
        noticed = [_noticed(copy, fault) for fault in FAULTS]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(noticed), encoding="utf-8")
    return 0 if all(noticed) else 1


def page(noticed: list[list[str]]) -> str:
    """Returns the page for the failing tests of every fault."""
    rows = [
        f"| {fault.name} | `{fault.path}` | {'yes' if names else '**no**'} "
        f"| {', '.join(f'`{name}`' for name in names)} |\n"
        for fault, names in zip(FAULTS, noticed, strict=True)
    ]
    caught = sum(bool(names) for names in noticed)
    return HEADER + "".join(rows) + f"\n{caught} of {len(FAULTS)} noticed.\n"


def _noticed(copy: Path, fault: Fault) -> list[str]:
    path = copy / fault.path
    right = path.read_text(encoding="utf-8")
    assert right.count(fault.right) == 1, f"{fault.name}: does not fit {fault.path}"
    path.write_text(right.replace(fault.right, fault.wrong), encoding="utf-8")
    try:
        names = failures(copy, fault.tests)
    finally:
        path.write_text(right, encoding="utf-8")
    print(f"{'noticed' if names else 'MISSED '}  {fault.name}", flush=True)
    return names


def failures(copy: Path, tests: Sequence[str]) -> list[str]:
    """Returns the names of the tests that fail in a copy of the tree, each once."""
    # Every fault needs a fresh process, and none needs to import TensorFlow again.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "tensorflow", "tensorflow_recommenders"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_tests, args=(str(copy), list(tests), sender))
    process.start()
    sender.close()
    try:
        code, names = receiver.recv()
    except EOFError as error:
        raise RuntimeError(f"the process of {', '.join(tests)} died") from error
    finally:
        process.join()
    if code not in (0, 1):
        raise RuntimeError(f"pytest could not run {', '.join(tests)}: exit code {code}")
    return sorted(names)


def _run_tests(copy: str, tests: list[str], sender: Connection) -> None:
    import pytest

    os.chdir(copy)
    sys.path.insert(0, copy)
    sys.dont_write_bytecode = True
    found = _Failures()
    with open(os.devnull, "w") as silence:
        sys.stdout = sys.stderr = silence
        code = pytest.main(["-p", "no:cacheprovider", "-q", "--tb=no", *tests], plugins=[found])
    import models

    assert str(Path(next(iter(models.__path__))).parent) == copy
    sender.send((int(code), found.names))


class _Failures:
    """A pytest plugin that keeps the names of failed tests."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.names.add(report.nodeid.rpartition("::")[2].partition("[")[0])


if __name__ == "__main__":
    os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    sys.exit(main())
