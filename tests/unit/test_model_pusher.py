"""The push is atomic, idempotent per run, and strictly increasing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.model_pusher.push import (
    MANIFEST,
    Newer,
    checksums,
    find_newer,
    push,
    read_manifest,
    versions,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph" * 1000)
    (folder / "variables" / "variables.data-00000-of-00001").write_bytes(os.urandom(100_000))
    return folder


def test_versions_increase_and_carry_a_manifest(tmp_path: Path, model: Path) -> None:
    base = tmp_path / "serving" / "m"
    first = push(model, base, run_id="a", provenance={"code_hash": "c"})
    second = push(model, base, run_id="b", provenance={"code_hash": "c"})
    assert (first.version, second.version) == (1, 2)
    manifest = read_manifest(second.path)
    assert manifest is not None
    assert manifest["run_id"] == "b"
    assert manifest["code_hash"] == "c"
    assert manifest["files"] == checksums(model)
    assert sorted(p.name for p in base.iterdir()) == ["1", "2"]


def test_a_retry_never_pushes_a_second_version(tmp_path: Path, model: Path) -> None:
    base = tmp_path / "m"
    first = push(model, base, run_id="a", provenance={})
    again = push(model, base, run_id="a", provenance={})
    assert again.version == first.version
    assert first.new and not again.new
    assert list(versions(base)) == [1]


def test_a_version_removed_by_hand_is_not_reused_below_the_newest(
    tmp_path: Path, model: Path
) -> None:
    base = tmp_path / "m"
    (base / "0017").mkdir(parents=True)
    (base / "not-a-version").mkdir()
    assert push(model, base, run_id="a", provenance={}).version == 18


def test_files_added_before_the_checksums_are_in_them(tmp_path: Path, model: Path) -> None:
    def complete(staged: Path) -> None:
        (staged / "assets.extra").mkdir()
        (staged / "assets.extra" / "warm").write_bytes(b"x")

    pushed = push(model, tmp_path / "m", run_id="a", provenance={}, complete=complete)
    manifest = json.loads((pushed.path / MANIFEST).read_text())
    assert "assets.extra/warm" in manifest["files"]
    assert not (model / "assets.extra").exists()


def test_a_fault_while_staging_leaves_the_old_state(tmp_path: Path, model: Path) -> None:
    base = tmp_path / "m"
    push(model, base, run_id="a", provenance={})

    def broken(staged: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        push(model, base, run_id="b", provenance={}, complete=broken)
    assert list(versions(base)) == [1]
    assert push(model, base, run_id="b", provenance={}).version == 2


# Run by a Python of its own: a fork of the test process would inherit the locks of whatever
# threads TensorFlow, gRPC or DuckDB left there.
PUSH_AND_DIE = """
import os, signal, sys
import components.model_pusher.push as module

model, base, point = sys.argv[1:]

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

real_rename = os.rename

def rename_and_die(source, target):
    real_rename(source, target)
    die()

if point == "copy":
    module.shutil.copytree = die
elif point == "sync":
    module._sync = die
elif point == "rename":
    module.os.rename = die
elif point == "renamed":
    module.os.rename = rename_and_die
module.push(module.Path(model), module.Path(base), run_id="b", provenance={})
"""


@pytest.mark.parametrize(
    ("point", "pushed"), [("copy", False), ("sync", False), ("rename", False), ("renamed", True)]
)
def test_a_kill_leaves_the_old_or_the_new_state(
    tmp_path: Path, model: Path, point: str, pushed: bool
) -> None:
    base = tmp_path / "m"
    push(model, base, run_id="a", provenance={})
    process = subprocess.run(
        [sys.executable, "-c", PUSH_AND_DIE, str(model), str(base), point],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    after = versions(base)
    assert sorted(after) == ([1, 2] if pushed else [1])
    for path in after.values():
        manifest = read_manifest(path)
        assert manifest is not None
        assert manifest["files"] == checksums(path)
    retried = push(model, base, run_id="b", provenance={})
    assert retried.version == 2
    assert retried.new != pushed


def test_the_served_version_tells_whether_a_window_is_older(tmp_path: Path, model: Path) -> None:
    base_path = tmp_path / "m"

    def newer_than(test_end: int, run_id: str = "asks") -> Newer | None:
        return find_newer(base_path, run_id=run_id, test_end=test_end)

    assert newer_than(5) is None  # nothing is served
    for run_id, test_end in (("a", 10), ("b", 30)):
        push(model, base_path, run_id=run_id, provenance={"window": {"test_end": test_end}})
    assert newer_than(29) == Newer(version=2, run_id="b", test_end=30)
    assert newer_than(30) is None and newer_than(31) is None
    assert newer_than(10, run_id="a") is None  # a retry finds what it pushed
    # Rolled back on purpose: the window that is served now is the one to beat.
    push(model, base_path, run_id="c", provenance={"window": {"test_end": 10}})
    assert newer_than(20) is None
    assert newer_than(9) == Newer(version=3, run_id="c", test_end=10)
    (base_path / "4").mkdir()  # somebody else's
    assert newer_than(1) is None
