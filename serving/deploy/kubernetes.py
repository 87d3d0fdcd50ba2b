"""Kubernetes objects that run a model under TF Serving."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any

from serving.deploy.release import TF_SERVING
from serving.deploy.server_files import (
    CONFIG_FOLDER,
    GRPC_PORT,
    METRICS_PATH,
    PROBE_FILE,
    REST_PORT,
    TLS_FOLDER,
    base_path,
    server_files,
    server_flags,
)
from serving.deploy.spec import Deploy

USER = 65534
"""Nobody: the image's own user is root."""

Document = dict[str, Any]

_LONGEST_NAME = 63  # of a Service, and of a label's value


def kubernetes_objects(model_name: str, deploy: Deploy) -> dict[str, Document]:
    """Returns the objects by file name, in the order to apply them.

    Args:
        model_name: Name that requests ask for.
        deploy: How it is deployed.
    """
    files = server_files(model_name, deploy)
    name = object_name(model_name)
    return {
        "configmap.yaml": {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _metadata(name, deploy),
            "data": files,
        },
        "service.yaml": {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _metadata(name, deploy),
            "spec": {
                # Headless: a gRPC connection stays with one pod, so the client spreads its calls
                # over the addresses behind the name (the polyrank client does).
                "clusterIP": "None",
                "selector": _labels(name),
                "ports": [
                    {"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc"},
                    {"name": "rest", "port": REST_PORT, "targetPort": "rest"},
                ],
            },
        },
        "deployment.yaml": {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _metadata(name, deploy),
            "spec": {
                "replicas": deploy.replicas,
                "selector": {"matchLabels": _labels(name)},
                # A new server is ready before an old one goes; it needs room (a GPU) of its own.
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
                },
                "template": {
                    "metadata": {
                        "labels": _labels(name),
                        "annotations": {
                            "prometheus.io/scrape": "true",
                            "prometheus.io/port": str(REST_PORT),
                            "prometheus.io/path": METRICS_PATH,
                            # TF Serving reads its files once: changed files mean new pods.
                            "polyrank/config": _digest(files),
                        },
                    },
                    "spec": _pod(model_name, name, deploy),
                },
            },
        },
        "poddisruptionbudget.yaml": {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": _metadata(name, deploy),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _labels(name)}},
        },
    }


def object_name(model_name: str) -> str:
    """Returns a model's name as Kubernetes allows names: lower case, digits and dashes.

    Long ones are cut, and end with a hash that keeps them apart.
    """
    name = "tf-serving-" + re.sub(r"[^a-z0-9]+", "-", model_name.lower()).strip("-")
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(model_name.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - len(digest) - 1].rstrip('-')}-{digest}"


def _pod(model_name: str, name: str, deploy: Deploy) -> Document:
    drain_seconds = math.ceil(deploy.drain / 1000)
    mounts = [
        {"name": "models", "mountPath": base_path(model_name), "subPath": model_name},
        {"name": "config", "mountPath": CONFIG_FOLDER},
    ]
    volumes: list[Document] = [
        {"name": "models", "persistentVolumeClaim": {"claimName": deploy.claim, "readOnly": True}},
        {"name": "config", "configMap": {"name": name, "defaultMode": 0o555}},
    ]
    if deploy.tls_secret is not None:
        mounts.append({"name": "tls", "mountPath": TLS_FOLDER})
        volumes.append(
            {"name": "tls", "secret": {"secretName": deploy.tls_secret, "defaultMode": 0o440}}
        )
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drain_seconds + 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _labels(name)},
            }
        ],
        "containers": [
            {
                "name": "tf-serving",
                "image": TF_SERVING.gpu_image if deploy.gpus else TF_SERVING.image,
                "command": ["tensorflow_model_server"],
                "args": server_flags(deploy),
                "env": [{"name": k, "value": v} for k, v in environment().items()],
                "ports": [
                    {"name": "grpc", "containerPort": GRPC_PORT},
                    {"name": "rest", "containerPort": REST_PORT},
                ],
                "resources": _resources(deploy),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                # Loading takes as long as it takes; a server without a model is not restarted
                # for half an hour.
                "startupProbe": _probe(model_name, period_seconds=5, failures=360),
                "readinessProbe": _probe(model_name, period_seconds=5, failures=2),
                "livenessProbe": {
                    "tcpSocket": {"port": "grpc"},
                    "periodSeconds": 10,
                    "timeoutSeconds": 3,
                    "failureThreshold": 6,
                },
                # Until the endpoints forget the pod, requests still come.
                "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(drain_seconds)]}}},
                "volumeMounts": [
                    *({**mount, "readOnly": True} for mount in mounts),
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
            }
        ],
        "volumes": [*volumes, {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
    }


def environment() -> dict[str, str]:
    """Returns the variables of the container: what is written goes to /tmp."""
    return {"HOME": "/tmp", "CUDA_CACHE_PATH": "/tmp/cuda", "TF_CPP_MIN_LOG_LEVEL": "1"}


def _probe(model_name: str, *, period_seconds: int, failures: int) -> Document:
    return {
        "exec": {"command": [f"{CONFIG_FOLDER}/{PROBE_FILE}", model_name]},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


def _resources(deploy: Deploy) -> Document:
    limits = {"cpu": f"{round(deploy.cpus * 1000)}m", "memory": str(deploy.memory)}
    if deploy.gpus:
        limits["nvidia.com/gpu"] = str(deploy.gpus)
    return {"requests": dict(limits), "limits": limits}


def _metadata(name: str, deploy: Deploy) -> Document:
    return {"name": name, "namespace": deploy.namespace, "labels": _labels(name)}


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "tf-serving", "app.kubernetes.io/instance": name}


def _digest(files: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]
