"""Several worker processes behind one port: shared load, a dead worker, the drain."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import grpc
import psutil
import pytest

from models.spec.errors import ConfigError, PolyrankError
from serving import errors
from serving.api import messages, services
from serving.client import RankingClient
from serving.server.__main__ import run
from serving.server.command import add_server_options, server_arguments
from serving.server.server import EmbeddedServer
from serving.server.supervisor import Supervisor, _held_port, _Worker, _WorkerMetrics

ROOT = Path(__file__).resolve().parents[2]
ROWS = {"user_id": ["u"], "item_id": ["hat"], "price": [1.0], "history": [["hat"]]}
METHOD = "HandleReloadConfigRequest"


def wait_until(is_so, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answer_of_a_new_connection(port: int) -> bool:
    with RankingClient(f"127.0.0.1:{port}", "ranker", timeout_seconds=10) as client:
        try:
            client.wait_until_available(10)
            return client.predict(ROWS)["generation"].tolist() == [1.0]
        except (errors.DeadlineError, errors.UnavailableError):
            return False


@pytest.mark.slow
def test_workers_share_a_port_and_are_replaced(tmp_path, export) -> None:
    export(tmp_path, 1)
    port_file, metrics_port = tmp_path / "port", free_port()
    log = (tmp_path / "log").open("w+")
    supervisor = subprocess.Popen(
        [
            sys.executable, "-m", "serving.server", "--model", f"ranker={tmp_path}",
            "--workers", "2", "--port-file", str(port_file),
            "--metrics-port", str(metrics_port), "--rest-port", "0",
        ],
        cwd=ROOT, stdout=log, stderr=log,
    )  # fmt: skip
    try:
        wait_until(lambda: port_file.exists() or supervisor.poll() is not None)
        assert supervisor.poll() is None, (tmp_path / "log").read_text()
        port = int(port_file.read_text())
        workers = psutil.Process(supervisor.pid).children()
        assert len(workers) == 2
        wait_until(lambda: (tmp_path / "log").read_text().count("is available") == 2)
        for _ in range(30):
            assert answer_of_a_new_connection(port)

        url = f"http://127.0.0.1:{metrics_port}/metrics"
        text = urllib.request.urlopen(url, timeout=10).read().decode()
        counts = {
            worker: sum(
                float(line.split()[-1])
                for line in text.splitlines()
                if line.startswith(":tensorflow:serving:request_count{")
                and f'worker="{worker}"' in line
                and 'API="Predict"' in line
            )
            for worker in ("0", "1")
        }
        assert sum(counts.values()) == 30
        assert min(counts.values()) > 0  # by chance not so once in 2**29

        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            reload = services.HANDLE_RELOAD_CONFIG_REQUEST.bind(channel)
            with pytest.raises(grpc.RpcError) as failure:
                reload(messages.ReloadConfigRequest(), timeout=10)
            assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert METHOD in failure.value.details()

        workers[0].kill()
        wait_until(
            lambda: f"worker {workers[0].pid} ended with -9" in (tmp_path / "log").read_text()
        )
        assert all(answer_of_a_new_connection(port) for _ in range(5))  # the other goes on
        wait_until(lambda: (tmp_path / "log").read_text().count("is available") == 3)
        replaced = psutil.Process(supervisor.pid).children()
        assert len(replaced) == 2
        assert workers[1].pid in {worker.pid for worker in replaced}
        assert all(answer_of_a_new_connection(port) for _ in range(5))

        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(60) == 0
        assert not any(worker.is_running() for worker in replaced)
        assert (tmp_path / "log").read_text().count("stopped") == 2
        assert not answer_of_a_new_connection(port)
    finally:
        if supervisor.poll() is None:
            supervisor.kill()
            supervisor.wait()


def test_a_worker_ends_when_its_supervisor_is_killed() -> None:
    code = (
        "import threading, sys\n"
        "from serving.server.stop_signals import stop_at_end_of_input\n"
        "stop = threading.Event()\nstop_at_end_of_input(stop)\n"
        "print('waiting', flush=True)\nsys.exit(0 if stop.wait(60) else 1)"
    )
    supervisor = subprocess.Popen(
        [
            sys.executable, "-c",
            "import subprocess, sys\n"
            f"worker = subprocess.Popen([sys.executable, '-c', {code!r}], stdin=subprocess.PIPE)\n"
            "print(worker.pid, flush=True)\nworker.wait()",
        ],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert supervisor.stdout is not None
    with supervisor.stdout:
        lines = {supervisor.stdout.readline().strip() for _ in range(2)}
        assert "waiting" in lines
        (pid,) = lines - {"waiting"}
        worker = psutil.Process(int(pid))
        supervisor.kill()
        supervisor.wait()
        _, alive = psutil.wait_procs([worker], timeout=30)
    assert not alive


def test_a_worker_that_cannot_start_ends_the_supervisor(tmp_path, monkeypatch) -> None:
    class Process:
        pid = 1
        stdin = None
        ended = False

        def __init__(self, code: int | None) -> None:
            self.code = code

        def poll(self) -> int | None:
            return self.code

        def terminate(self) -> None:
            self.ended = True

        def wait(self, seconds: float) -> int:
            return 0

    processes = [Process(None), Process(2)]
    supervisor = Supervisor([], {"host": "127.0.0.1"}, 2)
    waiting = iter(processes)
    monkeypatch.setattr(
        supervisor, "_start", lambda worker, _: setattr(worker, "process", next(waiting))
    )
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert supervisor.run() == 2
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert processes[0].ended


@pytest.mark.parametrize("option", ["port_file", "metrics_port"])
def test_what_the_supervisor_cannot_open_is_one_line(option, tmp_path, monkeypatch) -> None:
    worker = _Worker(tmp_path / "worker.json")
    worker.file.write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        values = {"port_file": tmp_path / "absent" / "port", "metrics_port": taken.getsockname()[1]}
        supervisor = Supervisor([], {option: values[option]}, 1)
        monkeypatch.setattr(supervisor, "_start", lambda worker, arguments: None)
        with pytest.raises(PolyrankError, match="cannot be written|cannot listen"):
            supervisor._supervise([worker], [], 1, "127.0.0.1")


def test_a_fault_is_told_once_and_before_tensorflow_is_imported(tmp_path) -> None:
    code = (
        "import sys\nfrom serving.server.__main__ import main\n"
        f"code = main(['--model=m={tmp_path}', '--workers=2', '--tls-key=absent'])\n"
        "print(code, 'tensorflow' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["2", "False"]
    assert found.stderr.count("--tls-key has no effect without --tls-certificate") == 1


def test_a_taken_port(tmp_path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(PolyrankError, match="cannot listen"),
            _held_port("127.0.0.1", taken.getsockname()[1]),
        ):
            pass


def test_a_port_of_a_server_that_has_just_ended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            accepted, _ = listener.accept()
            accepted.close()  # who closes first, waits
            assert client.recv(1) == b""
    with _held_port("127.0.0.1", port) as held:
        assert held == port


def test_a_held_port_takes_no_connections() -> None:
    with _held_port("127.0.0.1", 0) as port, socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        listener.settimeout(5)
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                accepted, _ = listener.accept()
                accepted.close()


def test_a_worker_that_dies_again_waits_longer(tmp_path, monkeypatch) -> None:
    supervisor = Supervisor([], {}, 1)
    started = []

    class Dead:
        pid = 1
        stdin = None

        def poll(self) -> int:
            return 1

    def start(worker, arguments) -> None:
        started.append(time.monotonic())
        worker.process, worker.started = Dead(), time.monotonic()

    monkeypatch.setattr(supervisor, "_start", start)
    worker = _Worker(tmp_path / "file")
    start(worker, [])
    waits = []
    for _ in range(9):
        supervisor._keep_running(worker, [])
        assert worker.process is None
        waits.append(worker.restart_at - time.monotonic())
        supervisor._keep_running(worker, [])
        assert worker.process is None  # not before its time
        worker.restart_at = 0.0
        supervisor._keep_running(worker, [])
        assert worker.process is not None
    assert waits == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 30], abs=0.2)
    worker.started -= 100  # it ran well for long
    supervisor._keep_running(worker, [])
    assert worker.restart_at - time.monotonic() == pytest.approx(0.5, abs=0.2)


def test_metrics_of_a_worker_that_does_not_answer(tmp_path) -> None:
    assert list(_WorkerMetrics([_Worker(tmp_path / "absent")]).collect()) == []


def test_metrics_of_a_worker_that_ends_while_it_answers(tmp_path) -> None:
    file = tmp_path / "worker.json"
    with socket.create_server(("127.0.0.1", 0)) as dying:

        def answer_half() -> None:
            connection, _ = dying.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

        file.write_text(json.dumps({"metrics_port": dying.getsockname()[1]}))
        thread = threading.Thread(target=answer_half)
        thread.start()
        assert list(_WorkerMetrics([_Worker(file)]).collect()) == []
        thread.join()


def test_metrics_of_workers_that_listen_elsewhere(tmp_path, export, server_options) -> None:
    export(tmp_path, 1)
    file = tmp_path / "worker.json"
    options = server_options(tmp_path, host="127.0.0.2", reuse_port=True, metrics_port=0)
    with EmbeddedServer(options) as server, RankingClient(server.target, "ranker") as client:
        client.wait_until_available(30)
        client.predict(ROWS)
        file.write_text(json.dumps({"metrics_port": server.metrics_port}))
        names = {family.name for family in _WorkerMetrics([_Worker(file)]).collect()}
    assert ":tensorflow:serving:request_count" in names


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--workers=0"], "--workers"),
        (["--max-batch-size=3"], "--max-batch-size has no effect without --enable-batching"),
        (["--tls-client-ca=x", "--tls-certificate=y"], "without --tls-key"),
        (["--token-file=absent"], "token file"),
        (["--model-config-file=absent"], "absent"),
    ],
)
def test_options_that_do_not_fit(tmp_path, arguments, text, monkeypatch) -> None:
    monkeypatch.setattr("serving.server.__main__.exit_on_stop_signals", lambda: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=text):
        run([f"--model=m={tmp_path}", *arguments])


def test_options_survive_being_written_again() -> None:
    parser = argparse.ArgumentParser()
    add_server_options(parser)
    arguments = [
        "--port=1", "--enable-batching", "--allowed-batch-sizes=1,2", "--max-batch-size=2",
        "--allowed-root=/a", "--allowed-root=/b c", "--drain-seconds=0.5",
    ]  # fmt: skip
    first = vars(parser.parse_args(arguments))
    assert vars(parser.parse_args(server_arguments(first))) == first
    assert first["allowed_batch_sizes"] == (1, 2)
    assert os.fspath(first["allowed_roots"][1]) == "/b c"
