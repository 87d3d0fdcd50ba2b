"""The embedded server: models from their base paths, over gRPC and REST."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from wsgiref.simple_server import WSGIServer

import grpc
from prometheus_client import start_http_server

from models.spec.errors import ConfigError
from serving.server.access import Access, is_loopback
from serving.server.batching import BatchedModel, BatchThreads
from serving.server.health import Health, enable_reflection
from serving.server.listening import cannot_listen, write_port_file
from serving.server.loading import load_version
from serving.server.metrics import ServerMetrics
from serving.server.model_config import ModelConfig
from serving.server.model_service import ModelService
from serving.server.models import ServedModels, Versions
from serving.server.options import ServerOptions
from serving.server.prediction_service import PredictionService
from serving.server.request_pool import RequestPool, ShedOverload
from serving.server.rest import RestApi, RestServer
from serving.server.runtime import LoadedModel
from serving.server.stop_signals import STOP_SIGNALS
from serving.server.versions import ModelVersions

_SWITCH_SECONDS = 5e-4
_LINGER_SECONDS = 0.25
"""Within this time callers learn that the server stops, and answers that are ready leave it."""
_POLL_SECONDS = 0.02
_LOG = logging.getLogger(__name__)


class EmbeddedServer:
    """Serves models until it is stopped; use it as a context manager or start and stop it.

    Args:
        options: What to serve, where, and to whom.

    Raises:
        ConfigError: The TLS files cannot be used.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.metrics = ServerMetrics()
        self._credentials = None if options.tls is None else options.tls.grpc_credentials()
        self._batch_threads = (
            None if options.batching is None else BatchThreads(options.batching.num_batch_threads)
        )
        self._models = ServedModels(
            options.model_configs(), self._make_versions, on_change=self._refresh_health
        )
        self._health = Health(self._models.availability)
        self._pool = RequestPool(options.request_threads, options.max_queued_requests)
        self._shed = ShedOverload(self._pool, self.metrics)
        self._server = grpc.server(
            self._pool,
            interceptors=(self._shed,),
            options=[
                ("grpc.max_send_message_length", options.limits.max_message_bytes),
                ("grpc.max_receive_message_length", options.limits.max_message_bytes),
                # Otherwise a second server on a busy port silently takes half of its requests.
                ("grpc.so_reuseport", int(options.reuse_port)),
            ],
        )
        access = Access(options.token, options.admin_token, is_local=is_loopback(options.host))
        prediction = PredictionService(self._models, options.limits, access)
        model_service = ModelService(
            self._models, access, options.reload_roots(), may_reload=options.may_reload
        )
        self._server.add_generic_rpc_handlers(
            (prediction.handler(self.metrics), model_service.handler(self.metrics))
        )
        self._health.add_to(self._server)
        enable_reflection(self._server)
        self._rest_api = RestApi(self._models, prediction, model_service, self.metrics)
        self._rest: RestServer | None = None
        self._exporter: WSGIServer | None = None
        self.port = 0
        self.rest_port: int | None = None
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
        if self._rest is not None:
            self._rest.start()
        self._models.start()
        if self.options.port_file is not None:
            try:
                write_port_file(self.options.port_file, self.port)
            except ConfigError:
                self.stop(0)
                raise
        names = ", ".join(config.name for config in self.options.model_configs())
        _LOG.info("listening on %s for %s", self.target, names)

    def stop(self, drain_seconds: float | None = None) -> None:
        """Refuses new requests, lets those under way end, frees the models.

        Args:
            drain_seconds: How long they may take; the option's value if None.
        """
        if drain_seconds is None:
            drain_seconds = self.options.drain_seconds
        self._health.drain()
        end = time.monotonic() + drain_seconds
        if self._rest is not None:
            self._rest.stop()
        # A call that reaches gRPC's server while it stops ends with CANCELLED, which no caller
        # tries again. So predictions are refused first, with UNAVAILABLE, until all callers know.
        self._pool.is_closing = True
        self._wait_until_idle(end)
        # What is still open are streams that their callers never end: health's Watch, reflection.
        self._server.stop(min(_LINGER_SECONDS, max(0.0, end - time.monotonic()))).wait()
        if self._rest is not None:
            # Those that still wait for a thread need a model.
            self._rest.drain(max(0.0, end - time.monotonic()))
        self._pool.shutdown(wait=False)
        self._shed.shutdown()
        self._models.stop(max(0.0, end - time.monotonic()))
        if self._batch_threads is not None:
            self._batch_threads.stop()
        if self._exporter is not None:
            self._exporter.shutdown()
            self._exporter.server_close()
        _LOG.info("stopped")

    def _wait_until_idle(self, end: float) -> None:
        linger = min(time.monotonic() + _LINGER_SECONDS, end)
        while (now := time.monotonic()) < end and (now < linger or not self._pool.is_idle):
            time.sleep(_POLL_SECONDS)

    def _make_versions(self, config: ModelConfig) -> Versions:
        return ModelVersions(
            config.name,
            config.base_path,
            lambda directory: self._load(config.name, directory),
            policy=config.policy,
            labels=config.labels,
            poll_seconds=self.options.poll_seconds,
            on_change=self._refresh_health,
        )

    def _load(self, model: str, directory: Path) -> LoadedModel:
        version = str(int(directory.name))
        runtime = load_version(
            directory,
            lambda code, seconds: self.metrics.observe_warmup(
                model, version, code=code, seconds=seconds
            ),
            require_manifest=self.options.require_manifest,
            intra_op_parallelism=self.options.intra_op_parallelism,
        )
        if self.options.batching is None or self._batch_threads is None:
            return runtime
        return BatchedModel(
            runtime,
            self.options.batching,
            self._batch_threads,
            lambda seconds: self.metrics.observe_queuing(model, version, seconds),
        )

    def _bind(self) -> None:
        options = self.options
        address = f"{options.host}:{options.port}"
        try:
            self.port = (
                self._server.add_insecure_port(address)
                if self._credentials is None
                else self._server.add_secure_port(address, self._credentials)
            )
        except RuntimeError:  # gRPC says why on stderr only
            raise cannot_listen(options.host, options.port) from None
        try:
            if options.rest_port is not None:
                port = options.rest_port
                self._rest = RestServer(
                    self._rest_api,
                    # Of several processes each would tell of itself only.
                    None if options.reuse_port else self.metrics.registry,
                    self._pool,
                    options.limits,
                    (options.host, port),
                    tls=None if options.tls is None else options.tls.ssl_context(),
                    reuse_port=options.reuse_port,
                )
                self.rest_port = self._rest.port
            if options.metrics_port is not None:
                port = options.metrics_port
                # One of several processes is asked by its supervisor only.
                host = "127.0.0.1" if options.reuse_port else options.host
                self._exporter, _ = start_http_server(port, host, self.metrics.registry)
                self.metrics_port = self._exporter.server_port
        except OSError:
            self._server.stop(None)
            if self._rest is not None:
                self._rest.stop()
            raise cannot_listen(options.host, port) from None

    def _refresh_health(self) -> None:
        self._health.refresh()


def serve(
    options: ServerOptions,
    stop_requested: threading.Event | None = None,
    on_start: Callable[[EmbeddedServer], None] = lambda server: None,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains and returns.

    Call it in the main thread.

    Args:
        options: What to serve, where, and to whom.
        stop_requested: Set by whoever else may end it.
        on_start: Told the server once it listens.

    Raises:
        UnavailableError: A port is taken or the host is not this machine's.
        ConfigError: The port file cannot be written, or the TLS files cannot be used.
    """
    requested = stop_requested or threading.Event()

    def request_stop(number: int, frame: FrameType | None) -> None:
        requested.set()

    for number in STOP_SIGNALS:
        signal.signal(number, request_stop)
    server = EmbeddedServer(options)
    # The thread that takes calls in has to get its turn while others compute in Python: by default
    # it waits 5 ms for it, again and again.
    sys.setswitchinterval(_SWITCH_SECONDS)
    # Freeing a version collects garbage: it need not walk through all that was imported.
    gc.freeze()
    server.start()
    on_start(server)
    requested.wait()
    server.stop()
