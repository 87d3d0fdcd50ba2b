"""Pushes under load: no request fails, and every answer is of one version."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest

from serving.api import messages, services
from serving.api.tensors import decode, encode
from serving.client import RankingClient
from serving.contract import VersionState
from serving.server.server import EmbeddedServer

NUM_SWAPS = 10
NUM_THREADS = 4


def request(model: str) -> object:
    built = messages.PredictRequest()
    built.model_spec.name = model
    built.model_spec.signature_name = "predict"
    for name, array in {
        "user_id": np.array([b"u"] * 50, object),
        "item_id": np.array([b"hat"] * 50, object),
        "price": np.arange(50, dtype=np.float32),
        "history": np.full((50, 2), b"shoe", object),
    }.items():
        built.inputs[name].CopyFrom(encode(array))
    return built


@dataclass
class Load:
    """What the load generator saw of one model."""

    model: str
    failures: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    by_version: dict[int, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    def send(self, target: str) -> None:
        with grpc.insecure_channel(target) as channel:
            predict = services.PREDICT.bind(channel)  # the raw stub: nothing retries
            message = request(self.model)
            while not self.stop.is_set():
                try:
                    response = predict(message, timeout=30)
                except grpc.RpcError as error:
                    with self.lock:
                        self.failures.append(f"{error.code()} {error.details()}")
                    continue
                version = response.model_spec.version.value
                generations = set(decode(response.outputs["generation"]).tolist())
                with self.lock:
                    self.by_version[version] = self.by_version.get(version, 0) + 1
                    if generations != {float(version)}:
                        self.mixed.append(f"version {version} answered {generations}")


@pytest.mark.slow
def test_swaps_under_load_drop_nothing(tmp_path, export, server_options) -> None:
    export(tmp_path, 1)
    load = Load("ranker")
    with (
        EmbeddedServer(server_options(tmp_path)) as server,
        RankingClient(server.target, "ranker", timeout_seconds=30) as client,
    ):
        client.wait_until_available(30)
        threads = [
            threading.Thread(target=load.send, args=(server.target,)) for _ in range(NUM_THREADS)
        ]
        for thread in threads:
            thread.start()
        try:
            for version in range(2, NUM_SWAPS + 2):
                export(tmp_path, version)
                wait_until_serving(client, version)
        finally:
            load.stop.set()
            for thread in threads:
                thread.join(60)
        states = {status.version: status.state for status in client.status()}
    assert not any(thread.is_alive() for thread in threads)
    assert load.failures == []
    assert load.mixed == []
    assert set(load.by_version) <= set(range(1, NUM_SWAPS + 2))
    # Some versions may live for less than a request, but the load was there throughout.
    assert len(load.by_version) > NUM_SWAPS // 2
    assert sum(load.by_version.values()) > 10 * NUM_SWAPS
    assert states[NUM_SWAPS + 1] is VersionState.AVAILABLE


@pytest.mark.slow
def test_swaps_of_one_model_do_not_disturb_another(tmp_path, export, server_options) -> None:
    swapped, steady = tmp_path / "swapped", tmp_path / "steady"
    for base_path, version in ((swapped, 1), (steady, 7)):
        base_path.mkdir()
        export(base_path, version)
    load = Load("steady")
    models = {"swapped": swapped, "steady": steady}
    with (
        EmbeddedServer(server_options(tmp_path, models=models)) as server,
        RankingClient(server.target, "swapped", timeout_seconds=30) as client,
        RankingClient(server.target, "steady", timeout_seconds=30) as steady_client,
    ):
        assert client.wait_until_available(30) == 1
        assert steady_client.wait_until_available(30) == 7
        with server._models._models["steady"].acquire() as handle:
            before = handle.runtime
        threads = [
            threading.Thread(target=load.send, args=(server.target,)) for _ in range(NUM_THREADS)
        ]
        for thread in threads:
            thread.start()
        try:
            for version in range(2, 5):
                num_before = load.by_version.get(7, 0)
                export(swapped, version)
                wait_until_serving(client, version)
                assert load.by_version.get(7, 0) > num_before
        finally:
            load.stop.set()
            for thread in threads:
                thread.join(60)
        with server._models._models["steady"].acquire() as handle:
            assert handle.runtime is before
        states = {status.version: status.state for status in steady_client.status()}
    assert load.failures == []
    assert load.mixed == []
    assert set(load.by_version) == {7}
    assert states == {7: VersionState.AVAILABLE}


def wait_until_serving(client: RankingClient, version: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if client.metadata().version == version:
            return
        time.sleep(0.02)
    raise AssertionError(f"version {version} did not take over")
