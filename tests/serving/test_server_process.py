"""The server as a process of its own: signals, logs, exit codes, what it imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from serving import errors
from serving.client import RankingClient
from serving.server.__main__ import main

ROOT = Path(__file__).resolve().parents[2]

# Runs the command's module and says at the end what it had imported.
RUN_AND_LIST_IMPORTS = """
import runpy, sys
try:
    runpy.run_module("serving.server", run_name="__main__", alter_sys=True)
finally:
    print("IMPORTED", *(name for name in sys.modules if name.split(".")[0] in {
        "models", "pipeline", "components", "tfx", "tensorflow_recommenders", "apache_beam",
        "tensorflow_serving"}))
"""
SECRET = "payload-that-must-not-be-logged"


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.Popen(
        [sys.executable, "-c", RUN_AND_LIST_IMPORTS, "--model-name", "ranker", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=(tmp_path / "stdout").open("w"),
        stderr=(tmp_path / "stderr").open("w"),
        text=True,
    )


def port_of(process: subprocess.Popen[str], port_file: Path, log: Path) -> int:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if port_file.exists():
            return int(port_file.read_text())
        time.sleep(0.05)
    raise AssertionError(f"no server: {log.read_text()}")


@pytest.mark.slow
def test_sigterm_drains_and_exits_0(tmp_path, export) -> None:
    base = tmp_path / "base"
    base.mkdir()
    export(base, 1)
    port_file = tmp_path / "port"
    process = start(
        tmp_path, "--base-path", str(base), "--port", "0", "--port-file", str(port_file)
    )
    try:
        port = port_of(process, port_file, tmp_path / "stderr")
        with RankingClient(f"127.0.0.1:{port}", "ranker", timeout_seconds=30) as client:
            client.wait_until_available(60)
            ranking = client.rank(
                {"user_id": "u", "history": [SECRET]},
                {"item_id": [SECRET, "hat"], "price": [1.0, 2.0]},
            )
            assert ranking.order.tolist() == [1, 0]
            with pytest.raises(errors.InvalidRequestError, match=SECRET):
                client.predict_examples([SECRET.encode()])
            answers: list[object] = []
            # Runs for some tenths of a second, so that SIGTERM comes while it is under way.
            slow = threading.Thread(
                target=lambda: answers.append(
                    client.predict({"num_steps": [300_000]}, signature="slow")
                )
            )
            slow.start()
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            slow.join(60)
            assert process.wait(60) == 0
            assert len(answers) == 1
            with pytest.raises(errors.UnavailableError):
                client.status()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    stdout = (tmp_path / "stdout").read_text()
    log = (tmp_path / "stderr").read_text()
    assert "version 1 is available" in log
    assert SECRET not in log + stdout
    (imported,) = [line for line in stdout.splitlines() if line.startswith("IMPORTED")]
    assert set(imported.split()[1:]) == {"models", "models.spec", "models.spec.errors"}


def test_a_fault_is_one_line_and_an_exit_code(tmp_path, server, capsys) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = main(["--model-name", "m", "--base-path", str(tmp_path), "--port", str(server.port)])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: cannot listen on 127.0.0.1:")
    assert "remedy" in line
    assert main(["--model-name", "m", "--base-path", str(tmp_path), "--port", "99999"]) == 2


def test_help_is_quick_and_complete() -> None:
    code = (
        "import sys, runpy\n"
        "sys.argv[1:] = ['--help']\n"
        "try:\n    runpy.run_module('serving.server', run_name='__main__')\n"
        "finally:\n    print('tensorflow' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0
    assert found.stdout.strip().endswith("False")
    for option in ("--model-name", "--base-path", "--port-file", "--metrics-port"):
        assert option in found.stdout
