"""Files that serve a pushed model with TF Serving: its model config and a docker command."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from models.spec.errors import ConfigError

TF_SERVING_VERSION = "2.20.0"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_CONTAINER_PATH = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9_.-]*)+")

_MODELS_CONFIG = Template(
    """\
model_config_list {
  config {
    name: "$model_name"
    base_path: "$base_path"
    model_platform: "tensorflow"
    model_version_policy { latest { num_versions: 1 } }
  }
}
"""
)

_RUN_COMMAND = Template(
    """\
#!/bin/sh
# Serves $model_name with TF Serving: ./run_tf_serving.sh [--gpu]
# MODEL_DIR: the directory with the numbered versions (default: beside this file).
# HOST, GRPC_PORT, REST_PORT: where to listen on this machine.
set -eu

here=$$(cd "$$(dirname "$$0")" && pwd)
model_dir=$${MODEL_DIR:-$$here}
image=tensorflow/serving:$version
device=
case "$${1:-}" in
  "") ;;
  --gpu) image=$$image-gpu device="--gpus all" ;;
  *) echo "usage: $$0 [--gpu]" >&2; exit 2 ;;
esac

# A failed load must not hold up the others (one retry, threads of its own), and the profiler
# is on by default.
# shellcheck disable=SC2086
exec docker run --rm --init $$device \\
  --user 65534:65534 --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \\
  --publish "$${HOST:-127.0.0.1}:$${GRPC_PORT:-8500}:8500" \\
  --publish "$${HOST:-127.0.0.1}:$${REST_PORT:-8501}:8501" \\
  --volume "$$model_dir:$base_path:ro" \\
  --volume "$$here/models.config:/etc/tf_serving/models.config:ro" \\
  --entrypoint tensorflow_model_server \\
  "$$image" \\
  --port=8500 \\
  --rest_api_port=8501 \\
  --model_config_file=/etc/tf_serving/models.config \\
  --num_load_threads=2 \\
  --num_unload_threads=1 \\
  --max_num_load_retries=1 \\
  --file_system_poll_wait_seconds=1 \\
  --enable_grpc_healthcheck_service=true \\
  --enable_profiler=false
"""
)


def render(model_name: str, base_path_in_container: str, out_dir: Path | str) -> list[Path]:
    """Writes `models.config` and `run_tf_serving.sh`.

    Render into the base path itself (``serving/<model_name>``): TF Serving ignores what is not
    a number there, and the command needs no setting.

    Args:
        model_name: Name that requests ask for.
        base_path_in_container: Where the container sees the base path, e.g. ``/models/ranker``.
        out_dir: Directory to write into; created if missing.

    Returns:
        The files written.

    Raises:
        ConfigError: The name or path holds characters that a config or shell would misread.
    """
    if not _NAME.fullmatch(model_name):
        raise ConfigError(
            "the model's name cannot be deployed",
            constraint="letters, digits, _, . and -",
            received=repr(model_name),
        )
    if not _CONTAINER_PATH.fullmatch(base_path_in_container):
        raise ConfigError(
            "the base path in the container cannot be deployed",
            constraint="an absolute path of letters, digits, _, . and -",
            received=repr(base_path_in_container),
        )
    values = {
        "model_name": model_name,
        "base_path": base_path_in_container,
        "version": TF_SERVING_VERSION,
    }
    directory = Path(out_dir)
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "models.config"
    config.write_text(_MODELS_CONFIG.substitute(values))
    command = directory / "run_tf_serving.sh"
    command.write_text(_RUN_COMMAND.substitute(values))
    command.chmod(0o755)
    return [config, command]
