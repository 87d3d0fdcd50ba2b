"""More requests than the server takes: refused at once, with UNAVAILABLE; health answers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from serving.api import messages, services
from serving.api.tensors import encode
from serving.client import RankingClient
from serving.server.request_pool import RequestPool
from serving.server.server import EmbeddedServer

ROOT = Path(__file__).resolve().parents[2]


def test_the_pool_counts_what_it_has_not_finished() -> None:
    pool = RequestPool(num_threads=1, max_queued=1)
    may_end = threading.Event()
    first = pool.submit(may_end.wait, 30)
    assert not pool.is_full
    second = pool.submit(lambda: 1 / 0)
    assert pool.is_full
    may_end.set()
    first.result(30)
    assert isinstance(second.exception(30), ZeroDivisionError)
    pool.shutdown()
    assert not pool.is_full
    with pytest.raises(RuntimeError):
        pool.submit(print)
    assert not pool.is_full


def test_cancelled_requests_are_finished() -> None:
    pool = RequestPool(num_threads=1, max_queued=0)
    may_end = threading.Event()
    pool.submit(may_end.wait, 30)
    assert pool.submit(print).cancel()
    may_end.set()
    pool.shutdown()
    assert not pool.is_full


def said_by_grpc(experiments: str | None) -> str:
    """What gRPC writes when a process that imports the server's package first makes a server."""
    environment = {k: v for k, v in os.environ.items() if k != "GRPC_EXPERIMENTS"}
    if experiments is not None:
        environment["GRPC_EXPERIMENTS"] = experiments
    code = "import serving.server, grpc; grpc.server(None)"
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True
    )
    return made.stderr.decode()


def test_grpc_knows_what_the_server_turns_off() -> None:
    assert "Unknown experiment" in said_by_grpc("-no_such_thing")  # the operator's word counts
    assert "Unknown experiment" not in said_by_grpc(None)


def test_callers_of_reflection_take_no_room(tmp_path, export, server_options) -> None:
    export(tmp_path, 1)
    may_end = threading.Event()

    def ask_and_stay() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        may_end.wait(60)

    options = server_options(tmp_path, num_threads=1, max_queued_requests=1)
    with (
        EmbeddedServer(options) as server,
        RankingClient(server.target, "ranker", timeout_seconds=20) as client,
        grpc.insecure_channel(server.target) as channel,
    ):
        client.wait_until_available(30)
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        streams = [reflect(ask_and_stay()) for _ in range(5)]
        assert next(streams[0]).list_services_response.service
        assert client.metadata().version == 1
        for stream in streams:
            stream.cancel()
        may_end.set()
        with contextlib.suppress(grpc.RpcError):
            list(streams[-1])
        answered = next(reflect(ask_and_stay()))
        assert answered.list_services_response.service


@pytest.mark.slow
def test_a_full_server_refuses_at_once(tmp_path, export, server_options) -> None:
    export(tmp_path, 1)
    slow = messages.PredictRequest()
    slow.model_spec.name = "ranker"
    slow.model_spec.signature_name = "slow"
    slow.inputs["num_steps"].CopyFrom(encode(np.array([10**12])))
    options = server_options(tmp_path, num_threads=2, max_queued_requests=2, rest_port=0)
    with (
        EmbeddedServer(options) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        with RankingClient(server.target, "ranker") as client:
            client.wait_until_available(30)
        predict = channel.unary_unary(
            services.PREDICT.path, request_serializer=services.PREDICT.request.SerializeToString
        )
        busy = [predict.future(slow, timeout=4) for _ in range(4)]
        end = time.monotonic() + 30
        while not server._pool.is_full:
            assert time.monotonic() < end
            time.sleep(0.005)
        refused = [predict.future(slow, timeout=2.5) for _ in range(20)]
        for call in refused:
            error = call.exception(30)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "overloaded" in error.details()
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=2).status == 1
        status = messages.GetModelStatusRequest()
        status.model_spec.name = "ranker"
        assert services.GET_MODEL_STATUS.bind(channel)(status, timeout=2).model_version_status
        rest = f"http://127.0.0.1:{server.rest_port}/v1/models/ranker"
        with urllib.request.urlopen(rest, timeout=2) as answer:
            assert json.load(answer)["model_version_status"][0]["state"] == "AVAILABLE"
        with pytest.raises(urllib.error.HTTPError) as no_room:
            urllib.request.urlopen(f"{rest}:predict", data=b"{}", timeout=2)
        assert no_room.value.code == 503 and b"overloaded" in no_room.value.read()
        count = server.metrics.registry.get_sample_value
        labels = {"model_name": "", "version": "", "API": "Predict", "status": "UNAVAILABLE"}
        assert count(":tensorflow:serving:request_count", labels) == 20 + 1
        assert not any(call.done() for call in busy)
        codes = {call.exception(30).code() for call in busy}
        # Two ran until their deadline, two had it pass in the queue.
        assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
        end = time.monotonic() + 30
        while server._pool.is_full:
            assert time.monotonic() < end
            time.sleep(0.005)
