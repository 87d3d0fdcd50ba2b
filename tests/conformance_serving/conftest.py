"""The server under test: one at an address, or an embedded server that the suite starts.

Environment (`make conformance` sets it):

    POLYRANK_TARGET         HOST:PORT of a running server; absent: the embedded server is started
    POLYRANK_REST_TARGET    HOST:PORT of its REST API; absent: REST cases are skipped
    POLYRANK_MODELS         folder of the models as this process sees it, to push versions into;
                            absent: cases that push are skipped
    POLYRANK_SERVER_MODELS  the same folder as the server sees it (in a container, another path)

A server at an address has to serve the models that `line_models` writes, from its model config
file, poll for versions at least once a second, and accept HandleReloadConfigRequest.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import line_models
import pytest
from target import AVAILABLE, Target, wait_until


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    run = f"run-{time.time_ns():x}"  # a server at an address may have seen other runs
    address = os.environ.get("POLYRANK_TARGET")
    if address:
        models = os.environ.get("POLYRANK_MODELS")
        server_models = os.environ.get("POLYRANK_SERVER_MODELS") or models
        with grpc.insecure_channel(address) as channel:
            yield Target(
                channel=channel,
                rest=os.environ.get("POLYRANK_REST_TARGET") or None,
                first_models=Path(server_models) if server_models else None,
                models=Path(models) / run if models else None,
                server_models=Path(server_models) / run if server_models else None,
                is_embedded=False,
            )
        return
    from serving.server.model_config import read_model_config_file
    from serving.server.options import ServerOptions
    from serving.server.server import EmbeddedServer

    models_folder = tmp_path_factory.mktemp("models")
    line_models.write_all(models_folder, models_folder)
    configs = tuple(read_model_config_file(models_folder / "models.config"))
    options = ServerOptions(configs=configs, rest_port=0, poll_seconds=0.05)
    with EmbeddedServer(options) as server, grpc.insecure_channel(server.target) as channel:
        embedded = Target(
            channel=channel,
            rest=f"127.0.0.1:{server.rest_port}",
            first_models=models_folder,
            models=models_folder / run,
            server_models=models_folder / run,
            is_embedded=True,
        )
        for name in ("line", "tf2_line"):
            wait_until(lambda name=name: embedded.states(name) == {line_models.VERSION: AVAILABLE})
        yield embedded


@pytest.fixture
def pushing(target: Target) -> Iterator[Target]:
    """The target, for cases that push and reload; afterwards it serves what it did at the start."""
    if target.models is None:
        pytest.skip("POLYRANK_MODELS names no folder to push into")
    target.models.mkdir(exist_ok=True)
    yield target
    target.reload()


@pytest.fixture
def rest(target: Target) -> Target:
    if target.rest is None:
        pytest.skip("POLYRANK_REST_TARGET names no REST API")
    return target


@pytest.fixture
def embedded(target: Target) -> Target:
    """For cases in which the embedded server differs from TF Serving on purpose."""
    if not target.is_embedded:
        pytest.skip("a deliberate difference of the embedded server")
    return target


@pytest.fixture(scope="session")
def push(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Pushes versions: a line is written once per slope and copied."""
    written: dict[float, Path] = {}

    def push_line(base_path: Path, version: int | str, *, slope: float = 3.0) -> Path:
        if slope not in written:
            folder = tmp_path_factory.mktemp("lines")
            written[slope] = line_models.write_line(folder, 1, slope=slope)
        base_path.mkdir(parents=True, exist_ok=True)
        staging = base_path / f".staging-{version}"
        shutil.copytree(written[slope], staging)
        return staging.rename(base_path / str(version))

    return push_line
