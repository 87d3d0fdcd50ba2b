"""The server as a process of its own: signals, logs, exit codes, what it imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serving import errors
from serving.client import RankingClient
from serving.server.__main__ import main
from serving.server.options import ServerOptions
from serving.server.stop_signals import STOP_SIGNALS

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
        [sys.executable, "-c", RUN_AND_LIST_IMPORTS, *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=(tmp_path / "stdout").open("w"),
        stderr=(tmp_path / "stderr").open("w"),
        text=True,
    )


@pytest.fixture
def base(tmp_path: Path, export) -> Path:
    """A base path with version 1."""
    path = tmp_path / "base"
    path.mkdir()
    export(path, 1)
    return path


def port_of(process: subprocess.Popen[str], port_file: Path, log: Path) -> int:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if port_file.exists():
            return int(port_file.read_text())
        time.sleep(0.05)
    raise AssertionError(f"no server: {log.read_text()}")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_can_end_with_who_started_it(tmp_path, base, workers) -> None:
    port_file = tmp_path / "port"
    process = start(
        tmp_path,
        *("--model", f"ranker={base}", "--port", "0", "--port-file", str(port_file)),
        *("--workers", str(workers), "--until-input-ends"),
    )
    try:
        port_of(process, port_file, tmp_path / "stderr")
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == (0 if workers == 1 else workers)
        process.communicate(timeout=60)  # closes its input
        assert process.returncode == 0
        assert not psutil.wait_procs(children, timeout=30)[1]
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_sigterm_drains_and_exits_0(tmp_path, base) -> None:
    port_file = tmp_path / "port"
    process = start(
        tmp_path,
        *("--model", f"ranker={base}", "--model", f"twin={base}"),
        *("--port", "0", "--port-file", str(port_file)),
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
            with RankingClient(f"127.0.0.1:{port}", "twin", timeout_seconds=30) as twin:
                assert twin.wait_until_available(60) == 1
            with pytest.raises(errors.InvalidRequestError, match="a row is no tf.Example"):
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
    for model in ("ranker", "twin"):
        assert f"model {model}: version 1 is available" in log
    assert SECRET not in log + stdout
    (imported,) = [line for line in stdout.splitlines() if line.startswith("IMPORTED")]
    assert set(imported.split()[1:]) == {"models", "models.spec", "models.spec.errors"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_the_import_of_tensorflow_is_quiet(tmp_path, number) -> None:
    """With a tensorflow whose import does not end."""
    package = tmp_path / "tensorflow"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.server", "--model", f"m={tmp_path}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert (process.returncode, stdout, stderr) == (0, "", "")


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """Puts back what `main` replaces."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signal_handlers")
def test_a_fault_is_one_line_and_an_exit_code(tmp_path, server, capsys) -> None:
    model = f"m={tmp_path}"
    assert main(["--model", model, "--port", str(server.port)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: cannot listen on 127.0.0.1:")
    assert "remedy" in line
    assert main(["--model", model, "--port", "99999"]) == 2


@pytest.mark.usefixtures("signal_handlers")
@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (["ranker"], ["expected NAME=BASE_PATH", "received 'ranker'"]),
        (["ranker="], ["expected NAME=BASE_PATH", "received 'ranker='"]),
        (["=/models"], ["expected NAME=BASE_PATH", "received '=/models'"]),
        ([""], ["expected NAME=BASE_PATH", "received ''"]),
        (["a=/one", "b=/two", "a=/three"], ["names 'a' twice", "received /one and /three"]),
    ],
)
def test_models_that_are_not_valid(values, parts, capsys) -> None:
    arguments = [part for value in values for part in ("--model", value)]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: option --model ")
    for part in (*parts, "remedy: "):
        assert part in line


@pytest.mark.usefixtures("signal_handlers")
def test_models_by_name_with_base_paths_that_hold_an_equals_sign(monkeypatch) -> None:
    served = []
    monkeypatch.setattr(
        "serving.server.server.serve", lambda options, **settings: served.append(options)
    )
    assert main(["--model", "a=/one/date=1", "--model", "b=two"]) == 0
    assert served == [ServerOptions(models={"a": Path("/one/date=1"), "b": Path("two")})]


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
    for option in ("--model NAME=BASE_PATH", "--port-file", "--metrics-port"):
        assert option in found.stdout
