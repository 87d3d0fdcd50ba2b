"""The embedded server: models from their base paths, over gRPC."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from wsgiref.simple_server import WSGIServer

import grpc
from prometheus_client import start_http_server

from models.spec.errors import ConfigError
from serving.errors import UnavailableError
from serving.server.health import Health, enable_reflection
from serving.server.loading import load_version
from serving.server.metrics import ServerMetrics
from serving.server.model_service import ModelService
from serving.server.models import ServedModels
from serving.server.prediction_service import PredictionService
from serving.server.stop_signals import STOP_SIGNALS
from serving.server.versions import ModelVersions

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerOptions:
    """What to serve, and where.

    Attributes:
        models: By the name that requests ask for, the base path: a directory with one numbered
            directory per version.
        host: Address to listen on.
        port: gRPC port; 0 lets the operating system pick one.
        port_file: Where to write the port once the server listens.
        metrics_port: Port of the Prometheus exporter (any path); none if None.
        num_threads: How many requests are worked on at once.
        max_message_bytes: Largest request and response.
        poll_seconds: How often to look for new versions.
        drain_seconds: How long requests under way may take after SIGTERM; then they are cancelled.
    """

    models: Mapping[str, Path]
    host: str = "127.0.0.1"
    port: int = 0
    port_file: Path | None = None
    metrics_port: int | None = None
    num_threads: int = 16
    max_message_bytes: int = 64 << 20
    poll_seconds: float = 0.5
    drain_seconds: float = 10.0

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: There is no model, one has no name, or a value is out of range.
        """
        if not self.models:
            raise _invalid("models", "at least one model", "none")
        if not all(self.models):
            raise _invalid("models", "names that are not empty", repr(list(self.models)))
        # What is served stays what it was checked to be, whatever the caller does to its own.
        object.__setattr__(self, "models", dict(self.models))
        for name in ("num_threads", "max_message_bytes", "poll_seconds"):
            if getattr(self, name) <= 0:
                raise _invalid(name, "a positive number", getattr(self, name))
        if self.drain_seconds < 0:
            raise _invalid("drain_seconds", "0 or more", self.drain_seconds)
        for name in ("port", "metrics_port"):
            if not 0 <= (getattr(self, name) or 0) <= 65535:
                raise _invalid(name, "0 to 65535", getattr(self, name))


def _invalid(option: str, constraint: str, received: object) -> ConfigError:
    return ConfigError(
        f"server option {option} is not valid", constraint=constraint, received=received
    )


class EmbeddedServer:
    """Serves models until it is stopped; use it as a context manager or start and stop it.

    Args:
        options: What to serve, and where.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.metrics = ServerMetrics()
        self._models = ServedModels(
            {
                name: ModelVersions(
                    name,
                    base_path,
                    load_version,
                    poll_seconds=options.poll_seconds,
                    on_change=self._refresh_health,
                )
                for name, base_path in options.models.items()
            }
        )
        self._health = Health(self._models.availability)
        self._executor = ThreadPoolExecutor(options.num_threads, thread_name_prefix="grpc")
        self._server = grpc.server(
            self._executor,
            options=[
                ("grpc.max_send_message_length", options.max_message_bytes),
                ("grpc.max_receive_message_length", options.max_message_bytes),
                # Otherwise a second server on a busy port silently takes half of its requests.
                ("grpc.so_reuseport", 0),
            ],
        )
        prediction = PredictionService(self._models, options.max_message_bytes)
        self._server.add_generic_rpc_handlers(
            (prediction.handler(self.metrics), ModelService(self._models).handler(self.metrics))
        )
        self._health.add_to(self._server)
        enable_reflection(self._server)
        self._exporter: WSGIServer | None = None
        self.port = 0
        self.metrics_port: int | None = None

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def target(self) -> str:
        """``host:port`` for clients."""
        return f"{self.options.host}:{self.port}"

    def start(self) -> None:
        """Binds the ports, answers, and begins to load; returns before a model is available.

        Raises:
            UnavailableError: A port is taken or the host is not this machine's.
            ConfigError: The port file cannot be written.
        """
        self._bind()
        self._server.start()
        self._models.start()
        if self.options.port_file is not None:
            try:
                _write_whole(self.options.port_file, f"{self.port}\n")
            except OSError as error:
                self.stop(0)
                raise ConfigError(
                    f"the port file {self.options.port_file} cannot be written",
                    received=error.strerror,
                    remedy="name a file in a directory that exists",
                ) from None
        _LOG.info("listening on %s for %s", self.target, ", ".join(self.options.models))

    def stop(self, drain_seconds: float | None = None) -> None:
        """Refuses new requests, lets those under way end, frees the models.

        Args:
            drain_seconds: How long they may take; the option's value if None.
        """
        if drain_seconds is None:
            drain_seconds = self.options.drain_seconds
        self._health.drain()
        end = time.monotonic() + drain_seconds
        self._server.stop(drain_seconds).wait()
        self._executor.shutdown(wait=False)
        self._models.stop(max(0.0, end - time.monotonic()))
        if self._exporter is not None:
            self._exporter.shutdown()
            self._exporter.server_close()
        _LOG.info("stopped")

    def _bind(self) -> None:
        options = self.options
        try:
            self.port = self._server.add_insecure_port(f"{options.host}:{options.port}")
        except RuntimeError:  # gRPC says why on stderr only
            raise _cannot_listen(options.host, options.port) from None
        if options.metrics_port is None:
            return
        try:
            self._exporter, _ = start_http_server(
                options.metrics_port, options.host, self.metrics.registry
            )
        except OSError:
            self._server.stop(None)
            raise _cannot_listen(options.host, options.metrics_port) from None
        self.metrics_port = self._exporter.server_port

    def _refresh_health(self) -> None:
        self._health.refresh()


def _cannot_listen(host: str, port: int) -> UnavailableError:
    return UnavailableError(
        f"cannot listen on {host}:{port}",
        constraint="a free port of this machine",
        remedy="choose another port, or 0 to have one picked",
    )


def _write_whole(path: Path, text: str) -> None:
    """Writes a file that readers see whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def serve(options: ServerOptions) -> None:
    """Serves until SIGTERM or SIGINT, then drains and returns.

    Call it in the main thread.

    Args:
        options: What to serve, and where.

    Raises:
        UnavailableError: A port is taken or the host is not this machine's.
        ConfigError: The port file cannot be written.
    """
    stop_requested = threading.Event()

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop_requested.set()

    for number in STOP_SIGNALS:
        signal.signal(number, request_stop)
    server = EmbeddedServer(options)
    # Freeing a version collects garbage: it need not walk through all that was imported.
    gc.freeze()
    server.start()
    stop_requested.wait()
    server.stop()
