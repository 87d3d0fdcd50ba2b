"""Which version serves: policy, swap, failures and handles, without TensorFlow."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path

import grpc
import pytest

from serving.contract import VersionState as State
from serving.server import versions as versions_module
from serving.server.base_path import fingerprint, version_directories
from serving.server.errors import StatusError
from serving.server.versions import ModelVersions


class FakeRuntime:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


class Loader:
    """Refuses directories that hold a file named `broken`."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def __call__(self, path: Path) -> FakeRuntime:
        self.loaded.append(path.name)
        if (path / "broken").exists():
            raise StatusError(grpc.StatusCode.DATA_LOSS, "broken on purpose")
        return FakeRuntime(path)


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def versions(tmp_path, loader):
    watched = ModelVersions("m", tmp_path, loader)
    yield watched
    watched.stop()


def push(base: Path, name: str, *, broken: bool = False) -> Path:
    (base / name).mkdir()
    if broken:
        (base / name / "broken").touch()
    return base / name


def states(versions) -> dict[int, State]:
    return {status.version: status.state for status in versions.statuses()}


def serving(versions) -> int:
    with versions.acquire() as handle:
        return handle.version


def test_only_numbered_directories_are_versions(tmp_path) -> None:
    for name in ("1", "007", "x", ".staging-9", "-3", "1.5", "٣", "8.tmp", "9" * 30):
        push(tmp_path, name)
    (tmp_path / "12").touch()
    found = version_directories(tmp_path)
    assert {version: path.name for version, path in found.items()} == {1: "1", 7: "007"}


def test_of_two_names_of_one_number_the_last_wins(tmp_path) -> None:
    push(tmp_path, "01")
    push(tmp_path, "1")
    assert version_directories(tmp_path)[1].name == "1"


def test_the_newest_is_served_by_number_not_by_name(tmp_path, versions) -> None:
    push(tmp_path, "9")
    push(tmp_path, "10")
    versions.poll()
    assert serving(versions) == 10
    assert states(versions) == {10: State.AVAILABLE}


def test_nothing_is_served_before_the_first_version(tmp_path, versions) -> None:
    versions.poll()
    assert not versions.is_available
    with pytest.raises(StatusError, match=r"Latest\(m\)"):
        serving(versions)


def test_a_new_version_takes_over_and_the_old_one_is_freed(tmp_path, versions) -> None:
    push(tmp_path, "1")
    versions.poll()
    with versions.acquire() as handle:
        old = handle.runtime
    push(tmp_path, "2")
    versions.poll()
    assert serving(versions) == 2
    assert old.is_closed
    assert states(versions) == {1: State.END, 2: State.AVAILABLE}
    with pytest.raises(StatusError, match=r"Specific\(m, 1\)"), versions.acquire(1):
        pass


def test_a_handle_keeps_its_version_until_it_is_released(tmp_path, versions) -> None:
    push(tmp_path, "1")
    versions.poll()
    with versions.acquire() as handle:
        push(tmp_path, "2")
        versions.poll()
        assert states(versions)[1] is State.UNLOADING
        versions.poll()
        assert not handle.runtime.is_closed
        assert serving(versions) == 2
    versions.poll()
    assert handle.runtime.is_closed
    assert states(versions)[1] is State.END


def test_the_old_version_serves_while_the_new_one_loads(tmp_path, loader) -> None:
    during = []

    def load(path: Path) -> FakeRuntime:
        if path.name == "2":
            during.append((serving(versions), states(versions)[2]))
        return loader(path)

    versions = ModelVersions("m", tmp_path, load)
    push(tmp_path, "1")
    versions.poll()
    push(tmp_path, "2")
    versions.poll()
    assert during == [(1, State.LOADING)]
    versions.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")
def test_a_swap_steps_back_behind_requests_and_the_first_load_does_not(tmp_path) -> None:
    priorities = []

    def load(path: Path) -> FakeRuntime:
        priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        if path.name == "2":
            raise StatusError(grpc.StatusCode.DATA_LOSS, "broken on purpose")
        return FakeRuntime(path)

    watched = ModelVersions("m", tmp_path, load)
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    for name in ("1", "2", "3"):
        push(tmp_path, name)
        watched.poll()
    assert serving(watched) == 3
    watched.stop()
    assert priorities == [own, min(own + 10, 19), min(own + 10, 19)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def test_a_failed_load_leaves_the_old_version_and_is_reported(tmp_path, versions) -> None:
    push(tmp_path, "1")
    versions.poll()
    push(tmp_path, "2", broken=True)
    versions.poll()
    assert serving(versions) == 1
    newest = versions.statuses()[0]
    assert (newest.version, newest.state) == (2, State.END)
    assert newest.error is not None
    assert newest.error.code is grpc.StatusCode.DATA_LOSS
    assert "broken on purpose" in newest.error.message


def test_a_failed_load_is_retried_only_when_its_files_change(tmp_path, versions, loader) -> None:
    path = push(tmp_path, "1", broken=True)
    for _ in range(3):
        versions.poll()
    assert loader.loaded == ["1"]
    (path / "broken").unlink()
    versions.poll()
    assert loader.loaded == ["1", "1"]
    assert serving(versions) == 1


def test_a_corrected_version_takes_over_from_the_fallback(tmp_path, versions) -> None:
    push(tmp_path, "1")
    path = push(tmp_path, "2", broken=True)
    versions.poll()
    assert serving(versions) == 1
    (path / "broken").unlink()
    versions.poll()
    assert serving(versions) == 2


def test_at_the_start_older_versions_are_tried(tmp_path, versions, loader) -> None:
    for version in ("1", "2"):
        push(tmp_path, version)
    push(tmp_path, "3", broken=True)
    versions.poll()
    assert loader.loaded == ["3", "2"]
    assert states(versions) == {3: State.END, 2: State.AVAILABLE}


def test_a_failed_newest_does_not_send_the_server_back_in_time(tmp_path, versions, loader) -> None:
    push(tmp_path, "1")
    push(tmp_path, "2")
    versions.poll()
    shutil.rmtree(tmp_path / "2")
    push(tmp_path, "3", broken=True)
    versions.poll()
    assert serving(versions) == 2
    assert "1" not in loader.loaded


def test_removing_the_newest_goes_back_to_the_one_before(tmp_path, versions) -> None:
    push(tmp_path, "1")
    push(tmp_path, "2")
    versions.poll()
    shutil.rmtree(tmp_path / "2")
    versions.poll()
    assert serving(versions) == 1
    assert states(versions) == {2: State.END, 1: State.AVAILABLE}


def test_a_vanished_base_path_unloads_nothing(tmp_path, loader) -> None:
    base = tmp_path / "base"
    base.mkdir()
    versions = ModelVersions("m", base, loader)
    push(base, "1")
    versions.poll()
    shutil.rmtree(base)
    versions.poll()
    assert serving(versions) == 1
    versions.stop()


def test_an_emptied_base_path_unloads_all(tmp_path, versions) -> None:
    push(tmp_path, "1")
    versions.poll()
    shutil.rmtree(tmp_path / "1")
    versions.poll()
    assert states(versions) == {1: State.END}
    assert not versions.is_available


def test_a_version_wanted_back_while_it_unloads_is_loaded_anew(tmp_path, versions) -> None:
    push(tmp_path, "1")
    push(tmp_path, "2")
    versions.poll()
    with versions.acquire() as handle:
        shutil.rmtree(tmp_path / "2")
        versions.poll()
        assert serving(versions) == 1
        push(tmp_path, "2")
        versions.poll()
        assert serving(versions) == 1
    versions.poll()
    assert handle.runtime.is_closed
    assert serving(versions) == 2
    with versions.acquire() as again:
        assert again.runtime is not handle.runtime


def test_on_change_tells_of_availability(tmp_path, loader) -> None:
    seen = []
    versions = ModelVersions(
        "m", tmp_path, loader, on_change=lambda: seen.append(versions.is_available)
    )
    push(tmp_path, "1")
    versions.poll()
    shutil.rmtree(tmp_path / "1")
    versions.poll()
    assert seen == [True, False]


def test_an_unforeseen_failure_of_a_load_is_reported_without_its_text(tmp_path) -> None:
    def load(path: Path) -> FakeRuntime:
        raise RuntimeError("SECRET")

    versions = ModelVersions("m", tmp_path, load)
    push(tmp_path, "1")
    versions.poll()
    (status,) = versions.statuses()
    assert status.error is not None
    assert status.error.message == "the server failed with RuntimeError"


def test_the_watcher_survives_a_failing_poll(tmp_path, loader, monkeypatch) -> None:
    monkeypatch.setattr(
        versions_module, "version_directories", lambda path: (_ for _ in ()).throw(TypeError())
    )
    versions = ModelVersions("m", tmp_path, loader, poll_seconds=0.01)
    versions.start()
    monkeypatch.undo()
    push(tmp_path, "1")
    for _ in range(500):
        if versions.is_available:
            break
        versions._thread.join(0.01)
    assert versions.is_available
    versions.stop()
    assert states(versions) == {1: State.END}


def test_history_of_ended_versions_is_bounded(tmp_path, versions, monkeypatch) -> None:
    monkeypatch.setattr(versions_module, "_MAX_ENDED_VERSIONS", 3)
    for version in range(1, 8):
        push(tmp_path, str(version))
        versions.poll()
    assert sorted(states(versions)) == [4, 5, 6, 7]


def test_fingerprints_change_with_the_files(tmp_path) -> None:
    first = fingerprint(tmp_path)
    (tmp_path / "a").write_text("x")
    second = fingerprint(tmp_path)
    (tmp_path / "a").write_text("xy")
    assert len({first, second, fingerprint(tmp_path)}) == 3
    assert fingerprint(tmp_path / "absent") == fingerprint(tmp_path / "absent")
