"""Several worker processes on one port, and the one that keeps them running.

Python runs one thread at a time, so one process cannot use all of a machine. The operating system
spreads connections over all processes that listen on a port (SO_REUSEPORT). The supervisor itself
serves nothing but the workers' metrics, and imports no TensorFlow.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from serving.server.listening import cannot_listen, write_port_file
from serving.server.stop_signals import STOP_SIGNALS, stop_at_end_of_input

_LOG = logging.getLogger(__name__)
_ROOT = Path(__file__).resolve().parents[2]
_POLL_SECONDS = 0.1
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
_HEALTHY_SECONDS = 60.0
_KILL_SECONDS = 10.0
_DRAIN_SECONDS = 10.0  # ServerOptions' default


@dataclass
class _Worker:
    """One place for a worker process, which several may fill one after the other.

    Attributes:
        file: Where the process writes its ports.
        process: The process; None while it waits to be started again.
        started: When it was started.
        restart_at: When to start the next.
        wait_seconds: How long to wait the next time.
    """

    file: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restart_at: float = 0.0
    wait_seconds: float = _FIRST_WAIT_SECONDS


class Supervisor:
    """Runs workers until SIGTERM or SIGINT; a worker that dies is started again.

    Args:
        arguments: The command line that each worker gets as well.
        options: The same, parsed.
        num_workers: How many processes.
    """

    def __init__(
        self, arguments: Sequence[str], options: Mapping[str, Any], num_workers: int
    ) -> None:
        self._arguments = list(arguments)
        self._options = options
        self._num_workers = num_workers
        self._stop = threading.Event()

    def run(self) -> int:
        """Runs until it is told to stop; call it in the main thread.

        Returns:
            The exit code: 0 after draining, else that of a worker that could not start.

        Raises:
            PolyrankError: A port is taken, or the port file cannot be written.
        """

        def request_stop(number: int, frame: FrameType | None) -> None:
            self._stop.set()

        for number in STOP_SIGNALS:
            signal.signal(number, request_stop)
        if self._options.get("until_input_ends"):
            stop_at_end_of_input(self._stop)
        host = self._options.get("host", "127.0.0.1")
        with ExitStack() as stack:
            port = stack.enter_context(_held_port(host, self._options.get("port", 0)))
            arguments = ["--port", str(port), "--metrics-port", "0"]
            if self._options.get("rest_port") is not None:
                rest_port = stack.enter_context(_held_port(host, self._options["rest_port"]))
                arguments += ["--rest-port", str(rest_port)]
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="polyrank-")))
            workers = [_Worker(folder / f"worker-{n}.json") for n in range(self._num_workers)]
            try:
                return self._supervise(workers, arguments, port, host)
            finally:
                self._end(workers)

    def _supervise(
        self, workers: Sequence[_Worker], arguments: Sequence[str], port: int, host: str
    ) -> int:
        for worker in workers:
            self._start(worker, arguments)
        while not all(worker.file.exists() for worker in workers):
            if self._stop.wait(_POLL_SECONDS):
                return 0
            for worker in workers:
                assert worker.process is not None
                if (code := worker.process.poll()) is not None:
                    # Its own message has said why; another would say the same again.
                    return code if code > 0 else 1
        with ExitStack() as stack:
            metrics_port = self._options.get("metrics_port")
            if metrics_port is not None:
                stack.enter_context(_exporter(workers, host, metrics_port))
            if (port_file := self._options.get("port_file")) is not None:
                write_port_file(port_file, port)
            _LOG.info("%d workers listen on %s:%d", len(workers), host, port)
            while not self._stop.wait(_POLL_SECONDS):
                for worker in workers:
                    self._keep_running(worker, arguments)
        return 0

    def _start(self, worker: _Worker, arguments: Sequence[str]) -> None:
        worker.file.unlink(missing_ok=True)
        threads = str(max(1, (os.cpu_count() or 1) // self._num_workers))
        worker.process = subprocess.Popen(
            [sys.executable, "-m", "serving.server", *self._arguments, *arguments,
             "--until-input-ends", "--worker-file", str(worker.file)],
            cwd=os.getcwd(),
            stdin=subprocess.PIPE,  # closed when this process ends, however it ends
            env={
                "TF_NUM_INTEROP_THREADS": threads,
                **os.environ,
                "PYTHONPATH": os.pathsep.join(
                    filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")])
                ),
            },
        )  # fmt: skip
        worker.started = time.monotonic()

    def _keep_running(self, worker: _Worker, arguments: Sequence[str]) -> None:
        now = time.monotonic()
        if worker.process is None:
            if now >= worker.restart_at:
                self._start(worker, arguments)
            return
        code = worker.process.poll()
        if code is None:
            return
        if now - worker.started > _HEALTHY_SECONDS:
            worker.wait_seconds = _FIRST_WAIT_SECONDS
        _LOG.error(
            "worker %d ended with %d; another is started in %.1f s",
            worker.process.pid,
            code,
            worker.wait_seconds,
        )
        _close(worker.process)
        worker.process = None
        worker.file.unlink(missing_ok=True)
        worker.restart_at = now + worker.wait_seconds
        worker.wait_seconds = min(2 * worker.wait_seconds, _LONGEST_WAIT_SECONDS)

    def _end(self, workers: Sequence[_Worker]) -> None:
        processes = [worker.process for worker in workers if worker.process is not None]
        for process in processes:
            process.terminate()
        drain_seconds = self._options.get("drain_seconds", _DRAIN_SECONDS)
        end = time.monotonic() + drain_seconds + _KILL_SECONDS
        for process in processes:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                _LOG.error("worker %d does not end and is killed", process.pid)
                process.kill()
                process.wait()
            _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


@contextmanager
def _held_port(host: str, port: int) -> Iterator[int]:
    """Holds a port that nobody listens on for the workers to share; 0 picks a free one.

    Raises:
        PolyrankError: It is taken, or the host is not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM
        )[0]
        # Whoever shares ports as well would let us in, and take part of our requests: the first
        # attempt does not share.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            chosen = (*address[:1], probe.getsockname()[1], *address[2:])
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Connections of a server that has just ended stay for a minute.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(chosen)
    except OSError:
        raise cannot_listen(host, port) from None
    with held:  # it never listens, so it is given no connection
        yield int(held.getsockname()[1])


@contextmanager
def _exporter(workers: Sequence[_Worker], host: str, port: int) -> Iterator[None]:
    """Exports the metrics of all workers, each with a label `worker`.

    Raises:
        PolyrankError: The port is taken.
    """
    from prometheus_client import start_http_server

    try:
        server, _ = start_http_server(port, host, _WorkerMetrics(workers))
    except OSError:
        raise cannot_listen(host, port) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _WorkerMetrics:
    """What prometheus_client asks of a registry: collects the workers' metrics when asked."""

    def __init__(self, workers: Sequence[_Worker]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Any]:
        """Yields the metric families of all workers that answer, merged by name."""
        from prometheus_client.core import Metric
        from prometheus_client.parser import text_string_to_metric_families

        merged: dict[str, Metric] = {}
        for number, worker in enumerate(self._workers):
            for family in text_string_to_metric_families(_metrics_of(worker)):
                metric = merged.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "worker": str(number)}
                    metric.add_sample(sample.name, labels, sample.value)
        yield from merged.values()


def _metrics_of(worker: _Worker) -> str:
    try:
        port = json.loads(worker.file.read_text())["metrics_port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
            return str(answer.read().decode())
    # It is being started again, or ended while it answered.
    except (OSError, ValueError, http.client.HTTPException):
        return ""
