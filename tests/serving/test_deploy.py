"""The deployment files: text protos, Kubernetes objects, the docker command and the probe."""

from __future__ import annotations

import http.server
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kubernetes.client.models as kubernetes_models
import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from kubernetes.client import Configuration
from pydantic import ValidationError
from ruamel.yaml import YAML
from tensorflow_serving.config import model_server_config_pb2

from models.spec.errors import ConfigError
from models.spec.problem import SpecProblems
from serving.client import RankingClient
from serving.deploy.kubernetes import object_name
from serving.deploy.render import render_beside_versions, render_deployment
from serving.deploy.spec import Deploy
from serving.server.base_path import version_directories
from serving.server.server import EmbeddedServer

FULL = Deploy.model_validate(
    {
        "replicas": 3,
        "gpus": 2,
        "gpu_memory_fraction": 0.5,
        "cpus": 7.5,
        "memory": "32GiB",
        "namespace": "ranking",
        "claim": "models",
        "tls_secret": "ranker-tls",
        "version_policy": {"kind": "specific", "versions": [3, 4]},
        "labels": {"stable": 3, "canary": 4},
        "batching": {"max_batch_size": 64, "allowed_batch_sizes": [8, 64]},
        "max_message_bytes": "16MiB",
        "drain": "20s",
    }
)
CPU = Deploy.model_validate({"gpus": 0})


def read_yaml(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path.read_text())


# Text protos ---------------------------------------------------------------------------------


def models_config(deploy: Deploy, out: Path) -> Any:
    render_beside_versions("ranker", deploy, out)
    text = (out / "config" / "models.config").read_text()
    parsed = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = parsed.model_config_list.config
    return model


def test_model_config_is_what_tf_serving_parses(tmp_path: Path) -> None:
    model = models_config(Deploy(), tmp_path / "latest")
    assert (model.name, model.base_path, model.model_platform) == (
        "ranker",
        "/models/ranker",
        "tensorflow",
    )
    assert model.model_version_policy.latest.num_versions == 1
    assert not model.version_labels
    full = models_config(FULL, tmp_path / "specific")
    assert list(full.model_version_policy.specific.versions) == [3, 4]
    assert dict(full.version_labels) == {"stable": 3, "canary": 4}
    every = Deploy.model_validate({"version_policy": {"kind": "all"}})
    policy = models_config(every, tmp_path / "all").model_version_policy
    assert policy.WhichOneof("policy_choice") == "all"


SCHEMA = {
    "BatchingParameters": {
        "max_batch_size": (1, ".google.protobuf.Int64Value", 1),
        "batch_timeout_micros": (2, ".google.protobuf.Int64Value", 1),
        "max_enqueued_batches": (3, ".google.protobuf.Int64Value", 1),
        "num_batch_threads": (4, ".google.protobuf.Int64Value", 1),
        "thread_pool_name": (5, ".google.protobuf.StringValue", 1),
        "allowed_batch_sizes": (6, descriptor_pb2.FieldDescriptorProto.TYPE_INT64, 3),
        "pad_variable_length_inputs": (7, descriptor_pb2.FieldDescriptorProto.TYPE_BOOL, 1),
    },
    "PrometheusConfig": {
        "enable": (1, descriptor_pb2.FieldDescriptorProto.TYPE_BOOL, 1),
        "path": (2, descriptor_pb2.FieldDescriptorProto.TYPE_STRING, 1),
    },
    "MonitoringConfig": {"prometheus_config": (1, ".tensorflow.serving.PrometheusConfig", 1)},
}
"""Messages that tensorflow-serving-api lacks: number, type and label of their fields in 2.20."""


@pytest.fixture(scope="module")
def strict_messages() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    file = descriptor_pb2.FileDescriptorProto(
        name="strict.proto", package="tensorflow.serving", syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )  # fmt: skip
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, label) in fields.items():
            added = message.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
                added.type_name = kind
            else:
                added.type = kind
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"tensorflow.serving.{name}")
        )
        for name in SCHEMA
    }


def test_batching_and_monitoring(tmp_path: Path, strict_messages: dict[str, Any]) -> None:
    render_beside_versions("ranker", FULL, tmp_path)
    config = tmp_path / "config"
    batching = text_format.Parse(
        (config / "batching.config").read_text(), strict_messages["BatchingParameters"]()
    )
    assert batching.max_batch_size.value == 64
    assert batching.batch_timeout_micros.value == 0
    assert batching.max_enqueued_batches.value == 10
    assert batching.num_batch_threads.value == 2
    assert list(batching.allowed_batch_sizes) == [8, 64]
    monitoring = text_format.Parse(
        (config / "monitoring.config").read_text(), strict_messages["MonitoringConfig"]()
    )
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"
    for broken in ("max_batch_siz { value: 1 }", "max_batch_size: 1"):
        with pytest.raises(text_format.ParseError):
            text_format.Parse(broken, strict_messages["BatchingParameters"]())


def test_no_batching_unless_declared(tmp_path: Path) -> None:
    render_deployment("ranker", CPU, tmp_path)
    assert not (tmp_path / "config" / "batching.config").exists()
    assert "batching" not in (tmp_path / "compose.yaml").read_text()


# The server's command line -------------------------------------------------------------------


def container(out: Path) -> dict[str, Any]:
    deployment = read_yaml(out / "kubernetes" / "deployment.yaml")
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    return found


def test_the_three_ways_to_run_have_the_same_flags(tmp_path: Path) -> None:
    for name, deploy in (("full", FULL), ("cpu", CPU)):
        out = tmp_path / name
        render_deployment("ranker", deploy, out)
        flags = container(out)["args"]
        assert read_yaml(out / "compose.yaml")["services"]["tf-serving"]["command"] == flags
        docker = run_with_fake_docker(out, SSL_CONFIG="/tls/ssl.config")
        assert docker[-len(flags) :] == flags
        assert len(set(flags)) == len(flags)


def test_flags(tmp_path: Path) -> None:
    render_deployment("ranker", FULL, tmp_path / "full")
    render_deployment("ranker", CPU, tmp_path / "cpu")
    always = {
        "--port=8500",
        "--rest_api_port=8501",
        "--model_config_file=/etc/tf_serving/models.config",
        "--monitoring_config_file=/etc/tf_serving/monitoring.config",
        "--num_load_threads=2",
        "--num_unload_threads=1",
        "--max_num_load_retries=1",
        "--file_system_poll_wait_seconds=1",
        "--enable_grpc_healthcheck_service=true",
        "--enable_profiler=false",
    }
    limits = (
        "--grpc_channel_arguments="
        "grpc.max_receive_message_length={0},grpc.max_send_message_length={0}"
    )
    assert set(container(tmp_path / "cpu")["args"]) == always | {limits.format(64 << 20)}
    assert set(container(tmp_path / "full")["args"]) == always | {
        limits.format(16 << 20),
        "--per_process_gpu_memory_fraction=0.5",
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_batching=true",
        "--batching_parameters_file=/etc/tf_serving/batching.config",
        "--ssl_config_file=/etc/tf_serving_tls/ssl.config",
    }


# Kubernetes ----------------------------------------------------------------------------------


def check_object(value: Any, kind: str, path: str) -> Any:
    """Builds a model of the Kubernetes API; keys, types and required fields must be the API's."""
    for pattern, convert in (
        (r"list\[(.*)\]", lambda inner: [check_object(v, inner, f"{path}[]") for v in value]),
        (r"dict\(str, (.*)\)", lambda inner: {
            k: check_object(v, inner, f"{path}.{k}") for k, v in value.items()
        }),
    ):  # fmt: skip
        matched = re.fullmatch(pattern, kind)
        if matched:
            assert isinstance(value, dict if kind.startswith("dict") else list), path
            return convert(matched[1])
    if kind == "object":  # an IntOrString
        assert isinstance(value, int | str), path
        return value
    simple = {"str": str, "int": int, "bool": bool}
    if kind in simple:
        assert type(value) is simple[kind], f"{path}: {value!r} is no {kind}"
        return value
    model = getattr(kubernetes_models, kind)
    names = {external: name for name, external in model.attribute_map.items()}
    unknown = set(value) - set(names)
    assert not unknown, f"{path} has unknown keys {unknown}"
    arguments = {
        names[key]: check_object(each, model.openapi_types[names[key]], f"{path}.{key}")
        for key, each in value.items()
    }
    return model(**arguments, local_vars_configuration=Configuration())  # checks what is required


@pytest.mark.parametrize("deploy", [Deploy(), CPU, FULL], ids=["default", "cpu", "full"])
def test_kubernetes_objects_are_the_apis(deploy: Deploy, tmp_path: Path) -> None:
    render_deployment("ranker", deploy, tmp_path)
    kinds = {}
    for path in (tmp_path / "kubernetes").iterdir():
        document = read_yaml(path)
        kinds[document["kind"]] = document["apiVersion"]
        check_object(document, f"V1{document['kind']}", document["kind"])
        assert document["metadata"]["namespace"] == deploy.namespace
    assert kinds == {
        "ConfigMap": "v1",
        "Service": "v1",
        "Deployment": "apps/v1",
        "PodDisruptionBudget": "policy/v1",
    }


def test_the_check_of_kubernetes_objects_is_strict(tmp_path: Path) -> None:
    render_deployment("ranker", CPU, tmp_path)
    for change in (
        lambda d: d["spec"].update(replica=2),
        lambda d: d["spec"].update(replicas="2"),
        lambda d: d["spec"].pop("selector"),
        lambda d: d["spec"]["template"]["spec"]["containers"][0].pop("name"),
        lambda d: d["spec"]["template"]["spec"]["containers"][0]["securityContext"].update(x=1),
    ):
        document = read_yaml(tmp_path / "kubernetes" / "deployment.yaml")
        change(document)
        with pytest.raises((AssertionError, ValueError)):
            check_object(document, "V1Deployment", "Deployment")


def test_objects_belong_together(tmp_path: Path) -> None:
    render_deployment("ranker", FULL, tmp_path)
    service, deployment, budget, config = (
        read_yaml(tmp_path / "kubernetes" / f"{name}.yaml")
        for name in ("service", "deployment", "poddisruptionbudget", "configmap")
    )
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["clusterIP"] == "None"
    ports = {port["name"] for port in container(tmp_path)["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports == {"grpc", "rest"}
    for name, content in config["data"].items():
        assert content == (tmp_path / "config" / name).read_text()
    pod = deployment["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {m["name"] for m in container(tmp_path)["volumeMounts"]} == set(volumes)
    assert volumes["config"]["configMap"]["name"] == config["metadata"]["name"]
    assert volumes["config"]["configMap"]["defaultMode"] == 0o555
    assert volumes["models"]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    assert volumes["tls"]["secret"]["secretName"] == "ranker-tls"


def test_the_pod_is_confined_and_drains(tmp_path: Path) -> None:
    render_deployment("ranker", FULL, tmp_path)
    deployment = read_yaml(tmp_path / "kubernetes" / "deployment.yaml")["spec"]
    pod, server = deployment["template"]["spec"], container(tmp_path)
    assert deployment["replicas"] == 3
    assert server["image"] == "tensorflow/serving:2.20.0-gpu"
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 65534
    assert pod["automountServiceAccountToken"] is False
    assert server["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = [m["name"] for m in server["volumeMounts"] if not m.get("readOnly")]
    assert writable == ["tmp"]
    assert server["resources"]["limits"] == {
        "cpu": "7500m",
        "memory": str(32 << 30),
        "nvidia.com/gpu": "2",
    }
    assert server["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "20"]
    assert pod["terminationGracePeriodSeconds"] > 20
    for probe in ("startupProbe", "readinessProbe"):
        assert server[probe]["exec"]["command"] == ["/etc/tf_serving/probe.sh", "ranker"]
    render_deployment("ranker", CPU, tmp_path / "cpu")
    assert container(tmp_path / "cpu")["image"] == "tensorflow/serving:2.20.0"
    assert "nvidia.com/gpu" not in container(tmp_path / "cpu")["resources"]["limits"]


def test_changed_files_mean_new_pods(tmp_path: Path) -> None:
    digests = set()
    for number, deploy in enumerate((Deploy(), FULL, Deploy(replicas=5))):
        render_deployment("ranker", deploy, tmp_path / str(number))
        deployment = read_yaml(tmp_path / str(number) / "kubernetes" / "deployment.yaml")
        digests.add(deployment["spec"]["template"]["metadata"]["annotations"]["polyrank/config"])
    assert len(digests) == 2  # replicas are none of the server's business


@pytest.mark.parametrize(
    "name", ["simulated", "Feed_v2.1", "9lives", "a" * 52, "a" * 53, "a" * 200, "a" * 42 + "." * 20]
)
def test_object_names_are_kubernetes(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{,61}[a-z0-9])?", object_name(name))


def test_long_object_names_stay_apart() -> None:
    assert object_name("a" * 60 + "1") != object_name("a" * 60 + "2")


# docker --------------------------------------------------------------------------------------


def run_with_fake_docker(out: Path, **environment: str) -> list[str]:
    fake = out / "bin" / "docker"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text('#!/bin/sh\nfor each in "$@"; do echo "$each"; done\n')
    fake.chmod(0o755)
    found = subprocess.run(
        [str(out / "run_tf_serving.sh")],
        env={"PATH": f"{fake.parent}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.splitlines()


def test_run_command(tmp_path: Path) -> None:
    out = tmp_path / "with space"
    render_beside_versions("ranker", CPU, out)
    arguments = run_with_fake_docker(out)
    assert "tensorflow/serving:2.20.0" in arguments
    assert "--gpus" not in arguments
    assert f"{out}:/models/ranker:ro" in arguments
    assert f"{out}/config:/etc/tf_serving:ro" in arguments
    assert {"--read-only", "--cap-drop", "65534:65534", "no-new-privileges"} <= set(arguments)
    assert "127.0.0.1:8500:8500" in arguments


def test_run_command_on_a_gpu_and_elsewhere(tmp_path: Path) -> None:
    render_beside_versions("ranker", FULL, tmp_path)
    arguments = run_with_fake_docker(
        tmp_path, MODEL_DIR="/data/m", GRPC_PORT="9000", SSL_CONFIG="/tls/s.config"
    )
    assert "tensorflow/serving:2.20.0-gpu" in arguments
    assert arguments[arguments.index("--gpus") + 1] == "2"
    assert "/data/m:/models/ranker:ro" in arguments
    assert "127.0.0.1:9000:8500" in arguments
    assert "/tls/s.config:/etc/tf_serving_tls/ssl.config:ro" in arguments
    with pytest.raises(subprocess.CalledProcessError):  # SSL_CONFIG is not set
        run_with_fake_docker(tmp_path)


def test_compose(tmp_path: Path) -> None:
    render_deployment("ranker", FULL, tmp_path)
    service = read_yaml(tmp_path / "compose.yaml")["services"]["tf-serving"]
    assert service["image"] == "tensorflow/serving:2.20.0-gpu"
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["user"] == "65534:65534"
    assert "./config:/etc/tf_serving:ro" in service["volumes"]
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    assert all(port.startswith("${HOST:-127.0.0.1}:") for port in service["ports"])
    limits = service["deploy"]["resources"]["limits"]
    assert limits == {"cpus": "7.5", "memory": str(32 << 30)}  # the schema takes text only
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}


def test_files_beside_the_versions_are_no_versions(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    render_beside_versions("ranker", FULL, tmp_path)
    assert list(version_directories(tmp_path)) == [1]


# The probe -----------------------------------------------------------------------------------


@contextmanager
def status_server(status: int, body: str) -> Iterator[tuple[int, list[str]]]:
    """Answers as TF Serving's REST API does to GetModelStatus."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        server.server_close()


def answer(*states: str) -> str:
    listed = ",".join(
        f'{{"version": "{n}", "state": "{state}", "status": {{"error_code": "OK"}}}}'
        for n, state in enumerate(states, 1)
    )
    return f'{{"model_version_status": [{listed}]}}'


@pytest.mark.parametrize(
    ("status", "body", "ready"),
    [
        (200, answer("AVAILABLE"), True),
        (200, answer("END", "AVAILABLE"), True),
        (200, answer("AVAILABLE").replace(": ", ":"), True),
        (200, answer("LOADING"), False),
        (200, answer("END"), False),
        (200, "{}", False),
        (404, '{"error": "Could not find any versions of model ranker: AVAILABLE"}', False),
        (503, answer("AVAILABLE"), False),
    ],
)
def test_ready_means_available(status: int, body: str, ready: bool, tmp_path: Path) -> None:
    render_beside_versions("ranker", CPU, tmp_path)
    with status_server(status, body) as (port, asked):
        probe = subprocess.run(
            [str(tmp_path / "config" / "probe.sh"), "ranker", str(port)],
            capture_output=True, timeout=20, check=False,
        )  # fmt: skip
    assert (probe.returncode == 0) == ready
    assert asked == ["/v1/models/ranker"]


def test_the_probe_understands_a_model_server(
    tmp_path: Path, export: Callable[..., Path], server_options: Callable[..., Any]
) -> None:
    render_beside_versions("ranker", CPU, tmp_path)
    (tmp_path / "base").mkdir()

    def ready(name: str) -> bool:
        command = [str(tmp_path / "config" / "probe.sh"), name, str(server.rest_port)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    with EmbeddedServer(server_options(tmp_path / "base", rest_port=0)) as server:
        assert not ready("ranker")  # it listens, but has no model yet
        export(tmp_path / "base", 1, signatures=("predict", "rank"))
        with RankingClient(server.target, "ranker") as client:
            client.wait_until_available(60)
        assert ready("ranker")
        assert not ready("other")


def test_nobody_listens_is_not_ready(tmp_path: Path) -> None:
    render_beside_versions("ranker", CPU, tmp_path)
    probe = subprocess.run(
        [str(tmp_path / "config" / "probe.sh"), "ranker", "1"], capture_output=True, check=False
    )
    assert probe.returncode != 0


# The section ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ({"version_policy": {"kind": "specific"}}, "required for kind: specific"),
        ({"version_policy": {"versions": [1]}}, "required for kind: specific"),
        (
            {"version_policy": {"kind": "specific", "versions": [1]}, "labels": {"a": 2}},
            "does not load",
        ),
        ({"labels": {"a": 1, "b": 2}}, "labels name 2 versions"),
        ({"labels": {"a b": 1}}, "pattern"),
        ({"batching": {"allowed_batch_sizes": [8, 4]}}, "must grow"),
        ({"batching": {"max_batch_size": 64, "allowed_batch_sizes": [8]}}, "end with"),
        ({"namespace": "Ranking"}, "pattern"),
        ({"max_message_bytes": "3GiB"}, "less than or equal"),
        ({"replicas": 0}, "greater than or equal"),
        ({"replica": 1}, "extra"),
    ],
)
def test_sections_that_make_no_sense(section: dict[str, Any], text: str) -> None:
    with pytest.raises((ValidationError, SpecProblems), match=text):
        Deploy.model_validate(section)


@pytest.mark.parametrize("name", ["", 'm"; rm', "m\n", "m m", "../m", "$(id)"])
def test_names_that_config_or_shell_would_misread(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be deployed"):
        render_deployment(name, CPU, tmp_path)
