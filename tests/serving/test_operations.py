"""What operators see: health, reflection, metrics, ports."""

from __future__ import annotations

import threading
import time
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from models.spec.errors import ConfigError
from serving import errors
from serving.api import messages, services
from serving.api.tensors import encode
from serving.client import RankingClient
from serving.retry import RetryPolicy
from serving.server.call import Call
from serving.server.health import Health, health_service
from serving.server.metrics import ServerMetrics
from serving.server.options import ServerOptions
from serving.server.server import EmbeddedServer

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health(channel: grpc.Channel, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status


def test_health_follows_the_model(tmp_path, export, server_options) -> None:
    with (
        EmbeddedServer(server_options(tmp_path)) as server,
        grpc.insecure_channel(server.target) as channel,
        RankingClient(server.target, "ranker") as client,
    ):
        names = ("", "tensorflow.serving.PredictionService")
        assert [health(channel, name) for name in names] == [NOT_SERVING] * 2
        assert health(channel, "tensorflow.serving.ModelService") == SERVING
        path = export(tmp_path, 1)
        client.wait_until_available(30)
        assert [health(channel, name) for name in names] == [SERVING] * 2
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watch).status == SERVING
        path.rename(tmp_path / "moved-away")
        assert next(watch).status == NOT_SERVING
        with pytest.raises(errors.NotFoundError):
            client.predict({"x": [1]})
        watch.cancel()


def test_health_is_that_of_the_last_change() -> None:
    """One model's thread reads, another's changes and reports; the first one reports last."""
    is_available = {"ranker": False}
    has_read, may_report = threading.Event(), threading.Event()

    def read_slowly_once() -> dict[str, bool]:
        seen = dict(is_available)
        if threading.current_thread().name == "early":
            has_read.set()
            may_report.wait(30)
        return seen

    service = Health(read_slowly_once)
    early = threading.Thread(target=service.refresh, name="early")
    late = threading.Thread(target=service.refresh)
    early.start()
    assert has_read.wait(30)
    is_available["ranker"] = True
    late.start()
    late.join(0.2)  # it would get through here if nothing held it back
    may_report.set()
    for thread in (early, late):
        thread.join(30)
    for name in ("", health_service("ranker")):
        request = health_pb2.HealthCheckRequest(service=name)
        assert service._servicer.Check(request, None).status == SERVING


def test_reflection_describes_the_services(channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
    } <= set(database.get_services())
    pool = descriptor_pool.DescriptorPool(database)
    service = pool.FindServiceByName("tensorflow.serving.PredictionService")
    method = service.methods_by_name["Predict"]
    request = message_factory.GetMessageClass(method.input_type)()
    request.model_spec.name = "ranker"
    assert request.model_spec.name == "ranker"
    assert pool.FindServiceByName("grpc.health.v1.Health").methods_by_name["Check"]
    with pytest.raises(KeyError):
        pool.FindServiceByName("tensorflow.serving.Absent")


def test_metrics_count_by_model_version_method_and_code(tmp_path, export, server_options) -> None:
    export(tmp_path, 4)
    with (
        EmbeddedServer(server_options(tmp_path, metrics_port=0)) as server,
        RankingClient(server.target, "ranker") as client,
        RankingClient(server.target, "made-up-name") as stranger,
    ):
        client.wait_until_available(30)
        rows = {"user_id": ["u"], "item_id": ["hat"], "price": [1.0], "history": [["hat"]]}
        for _ in range(3):
            client.predict(rows)
        with pytest.raises(errors.InvalidRequestError):
            client.predict_examples([b"nonsense"])
        with pytest.raises(errors.NotFoundError):
            stranger.predict(rows)
        url = f"http://127.0.0.1:{server.metrics_port}/monitoring/prometheus/metrics"
        text = urllib.request.urlopen(url, timeout=5).read().decode()
    lines = text.splitlines()
    ok = '{API="Predict",model_name="ranker",status="OK",version="4"}'
    assert f":tensorflow:serving:request_count{ok} 3.0" in lines
    grpc_calls = '{API="Predict",entrypoint="GRPC",model_name="ranker",version="4"}'
    assert f":tensorflow:serving:request_latency_count{grpc_calls} 4.0" in lines
    runs = '{API="Predict",model_name="ranker",runtime="TF1",version="4"}'
    assert f":tensorflow:serving:runtime_latency_count{runs} 3.0" in lines
    rows_asked = '{model="ranker",version="4"}'
    assert f":tensorflow:serving:request_example_counts_sum{rows_asked} 3.0" in lines
    warm = '{model_name="ranker",status="OK",version="4"}'
    assert f":tensorflow:serving:model_warmup_latency_count{warm} 1.0" in lines
    bad = '{API="Predict",model_name="ranker",status="INVALID_ARGUMENT",version="4"}'
    assert f":tensorflow:serving:request_count{bad} 1.0" in lines
    unknown = '{API="GetModelMetadata",model_name="",status="NOT_FOUND",version=""}'
    assert f":tensorflow:serving:request_count{unknown} 1.0" in lines
    assert "made-up-name" not in text


def test_latency_is_in_microseconds() -> None:
    metrics = ServerMetrics()
    call = Call(model="m", version="1")
    metrics.observe(call, method="Predict", code="OK", seconds=0.0015)
    labels = {"model_name": "m", "version": "1", "API": "Predict", "entrypoint": "GRPC"}
    value = metrics.registry.get_sample_value
    assert value(":tensorflow:serving:request_latency_sum", labels) == 1500.0
    bucket = ":tensorflow:serving:request_latency_bucket"
    assert value(bucket, {**labels, "le": "1000.0"}) == 0.0
    assert value(bucket, {**labels, "le": "2000.0"}) == 1.0


def test_a_taken_port_is_an_error_not_a_shared_port(server, tmp_path, server_options) -> None:
    second = EmbeddedServer(server_options(tmp_path, port=server.port))
    with pytest.raises(errors.UnavailableError, match="cannot listen"):
        second.start()
    third = EmbeddedServer(server_options(tmp_path, metrics_port=server.port))
    with pytest.raises(errors.UnavailableError, match="cannot listen"):
        third.start()


def test_a_port_file_that_cannot_be_written(tmp_path, server_options) -> None:
    server = EmbeddedServer(server_options(tmp_path, port_file=tmp_path / "absent" / "port"))
    with pytest.raises(ConfigError, match="port file"):
        server.start()
    with (
        RankingClient(server.target, "ranker", retry=RetryPolicy(max_retries=0)) as client,
        pytest.raises(errors.UnavailableError),
    ):
        client.status()


def test_a_stopping_server_refuses_calls_and_waits_for_no_stream(
    tmp_path, export, server_options
) -> None:
    export(tmp_path, 1)
    server = EmbeddedServer(server_options(tmp_path, drain_seconds=60.0))
    with server, grpc.insecure_channel(server.target) as channel:
        with RankingClient(server.target, "ranker") as client:
            client.wait_until_available(30)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        request = messages.PredictRequest()
        request.model_spec.name = "ranker"
        request.model_spec.signature_name = "slow"
        request.inputs["num_steps"].CopyFrom(encode(np.array([1_000_000])))
        predict = channel.unary_unary(
            services.PREDICT.path, request_serializer=services.PREDICT.request.SerializeToString
        )
        under_way = predict.future(request)
        while server._pool.is_idle:
            time.sleep(0.001)
        start = time.monotonic()
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        while not server._pool.is_closing:
            time.sleep(0.001)
        with pytest.raises(grpc.RpcError, match="the server is stopping") as refused:
            predict(request, timeout=30)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        stopping.join(60)
        assert time.monotonic() - start < 40.0
        assert under_way.result(1)  # was answered
        assert next(watch).status == NOT_SERVING
        with pytest.raises(grpc.RpcError):
            next(watch)


def test_stop_cancels_what_does_not_end(tmp_path, export, server_options) -> None:
    export(tmp_path, 1)
    with EmbeddedServer(server_options(tmp_path)) as server:
        with RankingClient(server.target, "ranker") as client:
            client.wait_until_available(30)
        request = messages.PredictRequest()
        request.model_spec.name = "ranker"
        request.model_spec.signature_name = "slow"
        request.inputs["num_steps"].CopyFrom(encode(np.array([10**15])))
        with grpc.insecure_channel(server.target) as channel:
            predict = channel.unary_unary(
                services.PREDICT.path, request_serializer=services.PREDICT.request.SerializeToString
            )
            endless = predict.future(request)  # no deadline
            while server._models._models["ranker"]._servables[1].num_handles == 0:
                time.sleep(0.01)
            server.stop(drain_seconds=0.2)
            assert endless.exception(30).code() in (
                grpc.StatusCode.CANCELLED,
                grpc.StatusCode.UNAVAILABLE,
            )
        # Its thread has ended too, or the process could not.
        waiter = threading.Thread(target=server._pool.shutdown, daemon=True)
        waiter.start()
        waiter.join(30)
        assert not waiter.is_alive()


@pytest.mark.parametrize(
    "change",
    [
        {"models": {}},
        {"models": {"": Path("base")}},
        {"port": -1},
        {"port": 65536},
        {"metrics_port": 70000},
        {"num_threads": 0},
        {"rest_port": 70000},
        {"max_queued_requests": -1},
        {"poll_seconds": 0.0},
        {"poll_seconds": float("inf")},
        {"poll_seconds": float("nan")},
        {"drain_seconds": -1.0},
        {"drain_seconds": float("nan")},
        {"drain_seconds": float("inf")},
    ],
)
def test_options_out_of_range(tmp_path, change) -> None:
    (name,) = change
    with pytest.raises(ConfigError, match=name):
        ServerOptions(**{"models": {"m": tmp_path}, **change})
