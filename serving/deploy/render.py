"""Writes the files that serve a pushed model with TF Serving."""

from __future__ import annotations

import io
import re
from pathlib import Path
from string import Template
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import walk_tree

from models.spec.errors import ConfigError
from serving.deploy.compose import compose_file
from serving.deploy.kubernetes import USER, environment, kubernetes_objects
from serving.deploy.release import TF_SERVING
from serving.deploy.server_files import (
    CONFIG_FOLDER,
    GRPC_PORT,
    PROBE_FILE,
    REST_PORT,
    TLS_FOLDER,
    base_path,
    server_files,
    server_flags,
)
from serving.deploy.spec import Deploy

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_CONFIG_DIR = "config"
_KUBERNETES_DIR = "kubernetes"
_RUN_FILE = "run_tf_serving.sh"
_HEADER = (
    "# Made by `polyrank deploy render` from the pipeline's configuration; edit that instead.\n"
)

_RUN_COMMAND = Template(
    """\
#!/bin/sh
# Serves $model_name with TF Serving: ./$run_file
# MODEL_DIR: the directory with the numbered versions (default: beside this file).
# HOST, GRPC_PORT, REST_PORT: where to listen on this machine.$tls_note
set -eu

here=$$(cd "$$(dirname "$$0")" && pwd)
exec docker run --rm --init$gpus \\
  --user $user:$user --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \\
  --cpus $cpus --memory $memory \\
$environment  --publish "$${HOST:-127.0.0.1}:$${GRPC_PORT:-$grpc_port}:$grpc_port" \\
  --publish "$${HOST:-127.0.0.1}:$${REST_PORT:-$rest_port}:$rest_port" \\
  --volume "$${MODEL_DIR:-$$here}:$base_path:ro" \\
  --volume "$$here/$config_dir:$config_folder:ro" \\
$tls_volume  --entrypoint tensorflow_model_server \\
  $image \\
  $flags
"""
)


def render_beside_versions(model_name: str, deploy: Deploy, out_dir: Path) -> list[Path]:
    """Writes a command that serves a base path with docker, and the files that it needs.

    Render into the base path itself (``serving/<model_name>``): TF Serving ignores what is not a
    number there, and the command needs no setting.

    Args:
        model_name: Name that requests ask for.
        deploy: How it is deployed.
        out_dir: Directory to write into; made if missing.

    Returns:
        The files written.

    Raises:
        ConfigError: The name holds characters that a config or shell would misread.
    """
    _check_name(model_name)
    written = [
        _write(out_dir / _CONFIG_DIR / name, content)
        for name, content in server_files(model_name, deploy).items()
    ]
    return [*written, _write(out_dir / _RUN_FILE, _run_command(model_name, deploy))]


def render_deployment(model_name: str, deploy: Deploy, out_dir: Path) -> list[Path]:
    """Writes everything: docker command, docker compose and Kubernetes objects.

    Args:
        model_name: Name that requests ask for.
        deploy: How it is deployed.
        out_dir: Directory to write into; made if missing.

    Returns:
        The files written.

    Raises:
        ConfigError: The name holds characters that a config or shell would misread.
    """
    written = render_beside_versions(model_name, deploy, out_dir)
    written.append(_write(out_dir / "compose.yaml", _yaml(compose_file(model_name, deploy))))
    for name, document in kubernetes_objects(model_name, deploy).items():
        written.append(_write(out_dir / _KUBERNETES_DIR / name, _yaml(document)))
    return written


def _check_name(model_name: str) -> None:
    if not _NAME.fullmatch(model_name):
        raise ConfigError(
            "the model's name cannot be deployed",
            constraint="letters, digits, _, . and -, beginning with a letter or digit",
            received=repr(model_name),
            remedy="set push.model_name",
        )


def _run_command(model_name: str, deploy: Deploy) -> str:
    tls = deploy.tls_secret is not None
    return _RUN_COMMAND.substitute(
        model_name=model_name,
        run_file=_RUN_FILE,
        gpus=f" --gpus {deploy.gpus}" if deploy.gpus else "",
        user=USER,
        cpus=f"{deploy.cpus:g}",
        memory=deploy.memory,
        environment="".join(f"  --env {k}={v} \\\n" for k, v in environment().items()),
        grpc_port=GRPC_PORT,
        rest_port=REST_PORT,
        base_path=base_path(model_name),
        config_dir=_CONFIG_DIR,
        config_folder=CONFIG_FOLDER,
        tls_note="\n# SSL_CONFIG: the file of TF Serving's SSLConfig." if tls else "",
        tls_volume=f'  --volume "$SSL_CONFIG:{TLS_FOLDER}/ssl.config:ro" \\\n' if tls else "",
        image=TF_SERVING.gpu_image if deploy.gpus else TF_SERVING.image,
        flags=" \\\n  ".join(server_flags(deploy)),
    )


def _yaml(document: dict[str, Any]) -> str:
    yaml = YAML()
    yaml.width = 1000
    walk_tree(document)  # text of several lines as blocks, so that people can read it
    text = io.StringIO()
    yaml.dump(document, text)
    return _HEADER + text.getvalue()


def _write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    path.chmod(0o755 if path.name in (_RUN_FILE, PROBE_FILE) else 0o644)
    return path
