"""The generated TF Serving files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from models.spec.errors import ConfigError
from serving.deploy.render import render
from serving.server.base_path import version_directories


def test_model_config_is_what_tf_serving_parses(tmp_path) -> None:
    config, _ = render("ranker", "/models/ranker", tmp_path / "out")
    parsed = text_format.Parse(config.read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = parsed.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == (
        "ranker",
        "/models/ranker",
        "tensorflow",
    )
    assert model.model_version_policy.latest.num_versions == 1


def run_with_fake_docker(tmp_path: Path, *arguments: str, **environment: str) -> list[str]:
    fake = tmp_path / "bin" / "docker"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text('#!/bin/sh\nfor each in "$@"; do echo "$each"; done\n')
    fake.chmod(0o755)
    out = tmp_path / "with space"
    _, command = render("ranker", "/models/ranker", out)
    found = subprocess.run(
        [str(command), *arguments],
        env={"PATH": f"{fake.parent}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.splitlines()


def test_run_command(tmp_path) -> None:
    arguments = run_with_fake_docker(tmp_path)
    out = tmp_path / "with space"
    assert "tensorflow/serving:2.20.0" in arguments
    assert "--gpus" not in arguments
    assert f"{out}:/models/ranker:ro" in arguments
    assert f"{out}/models.config:/etc/tf_serving/models.config:ro" in arguments
    assert {
        "--num_load_threads=2",
        "--num_unload_threads=1",
        "--max_num_load_retries=1",
        "--enable_profiler=false",
        "--model_config_file=/etc/tf_serving/models.config",
    } <= set(arguments)
    assert {"--read-only", "--cap-drop", "65534:65534"} <= set(arguments)
    assert "127.0.0.1:8500:8500" in arguments


def test_run_command_on_a_gpu_and_elsewhere(tmp_path) -> None:
    arguments = run_with_fake_docker(tmp_path, "--gpu", MODEL_DIR="/data/m", GRPC_PORT="9000")
    assert "tensorflow/serving:2.20.0-gpu" in arguments
    assert arguments[arguments.index("--gpus") + 1] == "all"
    assert "/data/m:/models/ranker:ro" in arguments
    assert "127.0.0.1:9000:8500" in arguments


def test_run_command_refuses_what_it_does_not_know(tmp_path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        run_with_fake_docker(tmp_path, "--tpu")
    assert failure.value.returncode == 2
    assert "usage" in failure.value.stderr


def test_files_beside_the_versions_are_no_versions(tmp_path) -> None:
    (tmp_path / "1").mkdir()
    render("ranker", "/models/ranker", tmp_path)
    assert list(version_directories(tmp_path)) == [1]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("", "/models/m"),
        ('m"; rm', "/models/m"),
        ("m\n", "/models/m"),
        ("m", "models/m"),
        ("m", "/models/$(id)"),
        ("m", "/models/../etc"),
        ("m", "/models/m m"),
    ],
)
def test_names_that_config_or_shell_would_misread(tmp_path, name, path) -> None:
    with pytest.raises(ConfigError):
        render(name, path, tmp_path)
