"""What TF Serving itself is given: its flags, its text protos, and the probe that watches it."""

from __future__ import annotations

from google.protobuf import text_format

from serving.api.messages import message_class
from serving.deploy.spec import Batching, Deploy

CONFIG_FOLDER = "/etc/tf_serving"
"""Where the container sees these files."""

TLS_FOLDER = "/etc/tf_serving_tls"
"""Where the container sees the secret with `ssl.config`."""

GRPC_PORT = 8500
REST_PORT = 8501
METRICS_PATH = "/monitoring/prometheus/metrics"

MODELS_FILE = "models.config"
BATCHING_FILE = "batching.config"
MONITORING_FILE = "monitoring.config"
PROBE_FILE = "probe.sh"

_PROBE = """\
#!/bin/bash
# Succeeds where TF Serving's GetModelStatus lists an AVAILABLE version: probe.sh MODEL [PORT]
# The image has no curl, so bash connects; gRPC health says only that the process is up.
set -euo pipefail
exec 3<>"/dev/tcp/127.0.0.1/${2:-8501}"
printf 'GET /v1/models/%s HTTP/1.0\\r\\nHost: 127.0.0.1\\r\\nConnection: close\\r\\n\\r\\n' "$1" >&3
answer=$(timeout 2 cat <&3)
[[ $answer =~ ^HTTP/1\\.[01]\\ 200 ]]
[[ $answer =~ \\"state\\":[[:space:]]*\\"AVAILABLE\\" ]]
"""


def base_path(model_name: str) -> str:
    """Returns where the container sees a model's numbered versions."""
    return f"/models/{model_name}"


def server_flags(deploy: Deploy) -> list[str]:
    """Returns the command line of `tensorflow_model_server`.

    A failed load must not hold up other models, so loads have threads of their own and one retry;
    the profiler, on by default, can be started by anybody who reaches the port.
    """
    size = deploy.max_message_bytes
    flags = [
        f"--port={GRPC_PORT}",
        f"--rest_api_port={REST_PORT}",
        f"--model_config_file={CONFIG_FOLDER}/{MODELS_FILE}",
        f"--monitoring_config_file={CONFIG_FOLDER}/{MONITORING_FILE}",
        "--grpc_channel_arguments="
        f"grpc.max_receive_message_length={size},grpc.max_send_message_length={size}",
        "--num_load_threads=2",
        "--num_unload_threads=1",
        "--max_num_load_retries=1",
        "--file_system_poll_wait_seconds=1",
        "--enable_grpc_healthcheck_service=true",
        "--enable_profiler=false",
    ]
    if deploy.gpus:
        flags.append(f"--per_process_gpu_memory_fraction={deploy.gpu_memory_fraction:g}")
    if deploy.labels:
        # At the start no version is available yet, and a label for one ends the server.
        flags.append("--allow_version_labels_for_unavailable_models=true")
    if deploy.batching is not None:
        flags += [
            "--enable_batching=true",
            f"--batching_parameters_file={CONFIG_FOLDER}/{BATCHING_FILE}",
        ]
    if deploy.tls_secret is not None:
        flags.append(f"--ssl_config_file={TLS_FOLDER}/ssl.config")
    return flags


def server_files(model_name: str, deploy: Deploy) -> dict[str, str]:
    """Returns the files that the flags name, and the probe, by name.

    Args:
        model_name: Name that requests ask for.
        deploy: How it is deployed.
    """
    files = {
        MODELS_FILE: _models_config(model_name, deploy),
        MONITORING_FILE: f'prometheus_config {{ enable: true path: "{METRICS_PATH}" }}\n',
        PROBE_FILE: _PROBE,
    }
    if deploy.batching is not None:
        files[BATCHING_FILE] = _batching_config(deploy.batching)
    return files


def _models_config(model_name: str, deploy: Deploy) -> str:
    config = message_class("tensorflow.serving.ModelServerConfig")()
    model = config.model_config_list.config.add(
        name=model_name, base_path=base_path(model_name), model_platform="tensorflow"
    )
    policy = deploy.version_policy
    if policy.kind == "latest":
        model.model_version_policy.latest.num_versions = policy.num_versions
    elif policy.kind == "all":
        model.model_version_policy.all.SetInParent()
    else:
        model.model_version_policy.specific.versions.extend(policy.versions)
    for label, version in sorted(deploy.labels.items()):
        model.version_labels[label] = version
    return str(text_format.MessageToString(config))


def _batching_config(batching: Batching) -> str:
    lines = [
        f"{name} {{ value: {getattr(batching, name)} }}"
        for name in (
            "max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads",
        )
    ]  # fmt: skip
    lines += [f"allowed_batch_sizes: {size}" for size in batching.allowed_batch_sizes]
    return "\n".join(lines) + "\n"
