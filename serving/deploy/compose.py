"""docker compose for one machine: the same server, flags and files as on Kubernetes."""

from __future__ import annotations

import math
from typing import Any

from serving.deploy.kubernetes import USER, environment
from serving.deploy.release import TF_SERVING
from serving.deploy.server_files import (
    CONFIG_FOLDER,
    GRPC_PORT,
    PROBE_FILE,
    REST_PORT,
    TLS_FOLDER,
    base_path,
    server_flags,
)
from serving.deploy.spec import Deploy


def compose_file(model_name: str, deploy: Deploy) -> dict[str, Any]:
    """Returns the compose file; it takes MODEL_DIR, the folder with the numbered versions.

    Args:
        model_name: Name that requests ask for.
        deploy: How it is deployed; replicas, claim and namespace are Kubernetes' matters.
    """
    volumes = [
        f"${{MODEL_DIR:?the folder with the numbered versions}}:{base_path(model_name)}:ro",
        f"./config:{CONFIG_FOLDER}:ro",
    ]
    if deploy.tls_secret is not None:
        volumes.append(f"${{SSL_CONFIG:?the file of SSLConfig}}:{TLS_FOLDER}/ssl.config:ro")
    service: dict[str, Any] = {
        "image": TF_SERVING.gpu_image if deploy.gpus else TF_SERVING.image,
        "entrypoint": ["tensorflow_model_server"],
        "command": server_flags(deploy),
        "environment": environment(),
        "user": f"{USER}:{USER}",
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "init": True,
        "restart": "unless-stopped",
        "stop_grace_period": f"{math.ceil(deploy.drain / 1000)}s",
        "ports": [
            f"${{HOST:-127.0.0.1}}:${{GRPC_PORT:-{GRPC_PORT}}}:{GRPC_PORT}",
            f"${{HOST:-127.0.0.1}}:${{REST_PORT:-{REST_PORT}}}:{REST_PORT}",
        ],
        "volumes": volumes,
        "healthcheck": {
            "test": ["CMD", f"{CONFIG_FOLDER}/{PROBE_FILE}", model_name],
            "interval": "5s",
            "timeout": "3s",
            "retries": 2,
            "start_period": "30m",
        },
        # As text, both: compose refuses memory as a number.
        "deploy": {
            "resources": {"limits": {"cpus": f"{deploy.cpus:g}", "memory": str(deploy.memory)}}
        },
    }
    if deploy.gpus:
        service["deploy"]["resources"]["reservations"] = {
            "devices": [{"driver": "nvidia", "count": deploy.gpus, "capabilities": ["gpu"]}]
        }
    return {"services": {"tf-serving": service}}
