"""Several models on one server: each is found by its name and lives its own life."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving import errors
from serving.client import RankingClient
from serving.contract import VersionState
from serving.retry import RetryPolicy
from serving.server import server as server_module
from serving.server.health import health_service
from serving.server.loading import load_version
from serving.server.server import EmbeddedServer

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
NAMES = ("first", "second")
ROWS = {"user_id": ["u"], "item_id": ["hat"], "price": [1.0], "history": [["hat"]]}


@dataclass(frozen=True)
class Pair:
    """A server of two models, and a client of each."""

    server: EmbeddedServer
    base_paths: dict[str, Path]
    clients: dict[str, RankingClient]
    channel: grpc.Channel

    def health(self, service: str) -> int:
        request = health_pb2.HealthCheckRequest(service=service)
        return health_pb2_grpc.HealthStub(self.channel).Check(request, timeout=5).status

    def states(self, name: str) -> dict[int, VersionState]:
        """Returns the state of each version; none before the server has seen the first."""
        try:
            return {status.version: status.state for status in self.clients[name].status()}
        except errors.NotFoundError:
            return {}

    def generation(self, name: str) -> float:
        """Returns the version whose variables computed an answer."""
        return float(self.clients[name].predict(ROWS)["generation"][0])


@pytest.fixture
def pair(tmp_path, server_options) -> Iterator[Pair]:
    base_paths = {name: tmp_path / name for name in NAMES}
    for base_path in base_paths.values():
        base_path.mkdir()
    with running(base_paths, server_options) as found:
        yield found


@contextmanager
def running(base_paths: dict[str, Path], server_options) -> Iterator[Pair]:
    options = server_options(Path(), models=base_paths)
    with EmbeddedServer(options) as server, grpc.insecure_channel(server.target) as channel:
        once = RetryPolicy(max_retries=0)
        clients = {
            name: RankingClient(server.target, name, timeout_seconds=30, retry=once)
            for name in base_paths
        }
        yield Pair(server, base_paths, clients, channel)
        for client in clients.values():
            client.close()


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.02)


def test_each_model_answers_under_its_name(pair, export) -> None:
    export(pair.base_paths["first"], 1)
    export(pair.base_paths["second"], 7)
    for name, version in zip(NAMES, (1, 7), strict=True):
        client = pair.clients[name]
        assert client.wait_until_available(30) == version
        assert pair.generation(name) == version
        assert client.metadata().version == version
        assert pair.states(name) == {version: VersionState.AVAILABLE}
    with RankingClient(pair.server.target, "first", version=7) as mistaken:
        with pytest.raises(errors.NotFoundError, match=r"Specific\(first, 7\)"):
            mistaken.predict(ROWS)
        with pytest.raises(errors.NotFoundError, match="Could not find version 7 of model first"):
            mistaken.status()
    with (
        RankingClient(pair.server.target, "third") as stranger,
        pytest.raises(errors.NotFoundError, match=r"Latest\(third\)"),
    ):
        stranger.predict(ROWS)


def test_health_is_of_all_models_and_of_each(pair, export) -> None:
    overall = ("", "tensorflow.serving.PredictionService")
    each = tuple(health_service(name) for name in NAMES)

    def health() -> list[int]:
        return [pair.health(service) for service in (*overall, *each)]

    assert health() == [NOT_SERVING] * 4
    export(pair.base_paths["first"], 1)
    pair.clients["first"].wait_until_available(30)
    wait_until(lambda: pair.health(each[0]) == SERVING)
    assert health() == [NOT_SERVING, NOT_SERVING, SERVING, NOT_SERVING]
    path = export(pair.base_paths["second"], 1)
    wait_until(lambda: pair.health("") == SERVING)
    assert health() == [SERVING] * 4
    path.rename(pair.base_paths["second"] / "moved-away")
    wait_until(lambda: pair.health("") == NOT_SERVING)
    assert health() == [NOT_SERVING, NOT_SERVING, SERVING, NOT_SERVING]
    with pytest.raises(grpc.RpcError) as failure:
        pair.health(health_service("third"))
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_model_that_does_not_load_leaves_the_other_alone(pair, export) -> None:
    export(pair.base_paths["first"], 1)
    export(pair.base_paths["second"], 1, change=lambda path: (path / "saved_model.pb").unlink())
    pair.clients["first"].wait_until_available(30)
    wait_until(lambda: pair.states("second") == {1: VersionState.END})
    assert pair.generation("first") == 1
    with pytest.raises(errors.NotFoundError, match=r"Latest\(second\)"):
        pair.clients["second"].predict(ROWS)
    assert pair.health("") == NOT_SERVING


@pytest.mark.slow
def test_while_one_loads_the_other_answers_and_swaps(
    tmp_path, export, server_options, monkeypatch
) -> None:
    may_load = threading.Event()

    def load(directory: Path, on_warmup, **options) -> object:
        if directory.parent.name == "second":
            assert may_load.wait(60)
        return load_version(directory, on_warmup, **options)

    monkeypatch.setattr(server_module, "load_version", load)
    base_paths = {name: tmp_path / name for name in NAMES}
    for base_path in base_paths.values():
        base_path.mkdir()
        export(base_path, 1)
    with running(base_paths, server_options) as pair:
        try:
            assert pair.clients["first"].wait_until_available(30) == 1
            export(base_paths["first"], 2)
            wait_until(lambda: pair.generation("first") == 2)
            # Nothing was waited for: the second model has been loading all along.
            assert pair.states("second") == {1: VersionState.LOADING}
            with pytest.raises(errors.NotFoundError, match=r"Latest\(second\)"):
                pair.clients["second"].predict(ROWS)
        finally:
            may_load.set()
        assert pair.clients["second"].wait_until_available(30) == 1
        assert pair.generation("second") == 1


def test_a_stopped_server_has_freed_all_models(pair, export) -> None:
    for name in NAMES:
        export(pair.base_paths[name], 1)
        pair.clients[name].wait_until_available(30)
    runtimes = []
    for name in NAMES:
        with pair.server._models._models[name].acquire() as handle:
            runtimes.append(handle.runtime)
    pair.server.stop()
    for name, runtime in zip(NAMES, runtimes, strict=True):
        versions = pair.server._models._models[name]
        assert [status.state for status in versions.statuses()] == [VersionState.END]
        with pytest.raises(RuntimeError, match="closed"):
            runtime._session.run([])


def test_options_do_not_follow_the_callers_mapping(tmp_path, server_options) -> None:
    models = {"first": tmp_path}
    options = server_options(tmp_path, models=models)
    models[""] = tmp_path
    assert options.models == {"first": tmp_path}
