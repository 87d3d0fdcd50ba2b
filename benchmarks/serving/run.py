"""Measures the embedded server beside the bare model call and beside a naive server, in one run.

    python benchmarks/serving/run.py [latency] [throughput] [overload] [swaps] [--write]

Everything runs on loopback, in processes of its own, bounded in time. Pairs are interleaved: what
else the machine does hits both. `--write` writes docs/benchmarks/serving.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

ROUNDS = 5
CALLS = 400
SECONDS = 3.0
CONCURRENCY = 16
NUM_SWAPS = 50
OVERLOAD = 3.0
OVERLOAD_SECONDS = 10.0
DEADLINE_SECONDS = 0.5
SECTIONS = ("latency", "throughput", "overload", "swaps")


@dataclass(frozen=True)
class Server:
    """A server process and its port."""

    process: psutil.Process
    port: int

    def cpu_seconds(self) -> float:
        """CPU time so far, of the process and its workers."""
        total = 0.0
        for each in (self.process, *self.process.children(recursive=True)):
            times = each.cpu_times()
            total += times.user + times.system
        return total


def split_cores() -> tuple[set[int], set[int]]:
    """Returns the cores of the server and those of the load generator: all for both if one."""
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    return set(cores[:half] or cores), set(cores[half:])


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Processes that are started in the block run on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def started(command: Sequence[str], port_file: Path) -> Iterator[Server]:
    """Runs a server until the end of the block."""
    log = port_file.with_suffix(".log").open("wb")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        end = time.monotonic() + 180
        while not port_file.exists() or not port_file.read_text().strip():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(port_file.with_suffix(".log").read_text()[-2000:])
            time.sleep(0.1)
        yield Server(psutil.Process(process.pid), int(port_file.read_text()))
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def embedded(folder: Path, base_path: Path, name: str, *options: str) -> Any:
    """Starts the embedded server, and waits until its model is available."""
    return started(
        [sys.executable, "-m", "serving.server", f"--model=mmoe={base_path}", "--port=0",
         f"--port-file={folder / name}", "--poll-seconds=0.1", *options],
        folder / name,
    )  # fmt: skip


def load(server: Server, request: Path, *arguments: object) -> dict[str, Any]:
    """Runs the load generator to its end."""
    command = [sys.executable, str(HERE / "load.py"), str(server.port), str(request)]
    found = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=True, timeout=600
    )
    return dict(json.loads(found.stdout))


def wait_until_available(server: Server) -> None:
    """Waits for every worker: a connection of one's own each time."""
    from serving.client import RankingClient

    for _ in range(8):
        with RankingClient(f"127.0.0.1:{server.port}", "mmoe") as client:
            client.wait_until_available(120)


class Bare:
    """The bare model call, on demand."""

    def __init__(self, saved: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "bare.py"), str(saved)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        while self._process.stdout.readline().strip() != "ready":
            if self._process.poll() is not None:
                raise RuntimeError("bare.py ended")

    def measure(self, num_calls: int) -> dict[str, float]:
        """Calls the model so often."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{num_calls}\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def measure_latency(folder: Path, saved: Path, base_path: Path, request: Path) -> dict[str, Any]:
    """Predict with 100 candidates, one caller, against the bare call.

    Also with as many threads a request as there are cores, in place of one.
    """
    rounds = []
    bare = Bare(saved)
    threads = f"--intra-op-parallelism={os.cpu_count()}"
    try:
        with (
            embedded(folder, base_path, "latency") as server,
            embedded(folder, base_path, "threads", threads) as threaded,
        ):
            for each in (server, threaded):
                wait_until_available(each)
                load(each, request, "closed", 1, 2)
            for _ in range(ROUNDS):
                alone = bare.measure(CALLS)
                served, cpu_ms = _one_caller(server, request)
                in_threads, threads_cpu_ms = _one_caller(threaded, request)
                rounds.append(
                    {
                        "bare_p50_ms": alone["p50_ms"],
                        "served_p50_ms": served["p50_ms"],
                        "p50_ratio": served["p50_ms"] / alone["p50_ms"],
                        "bare_cpu_ms": alone["cpu_ms"],
                        "served_cpu_ms": cpu_ms,
                        "cpu_ratio": cpu_ms / alone["cpu_ms"],
                        "threads_to_one_p50_ratio": in_threads["p50_ms"] / served["p50_ms"],
                        "threads_to_one_cpu_ratio": threads_cpu_ms / cpu_ms,
                    }
                )
    finally:
        bare.close()
    return {"rounds": rounds, **_medians(rounds)}


def _one_caller(server: Server, request: Path) -> tuple[dict[str, Any], float]:
    """Returns what one caller sees, and the server's milliseconds of processor time a request."""
    before = server.cpu_seconds()
    seen = load(server, request, "closed", 1, SECONDS)
    return seen, 1e3 * (server.cpu_seconds() - before) / seen["count"]


def measure_throughput(folder: Path, saved: Path, base_path: Path, request: Path) -> dict[str, Any]:
    """16 callers, against the naive server, from the same load generator."""
    naive_command = [sys.executable, str(HERE / "naive_server.py"), str(saved)]
    port_file = folder / "naive"
    rounds = []
    with (
        started([*naive_command, str(port_file)], port_file) as naive,
        embedded(folder, base_path, "one") as one,
        embedded(folder, base_path, "batched", "--enable-batching") as batched,
        embedded(folder, base_path, "two", "--workers=2") as two,
    ):
        servers = {"naive": naive, "one": one, "batched": batched, "two": two}
        for name, server in servers.items():
            if name != "naive":
                wait_until_available(server)
            load(server, request, "closed", CONCURRENCY, 2)
        for _ in range(ROUNDS):
            found: dict[str, float] = {}
            for name, server in servers.items():
                before = server.cpu_seconds()
                seen = load(server, request, "closed", CONCURRENCY, SECONDS)
                assert not seen["failed"], seen
                found[f"{name}_per_second"] = seen["per_second"]
                found[f"{name}_p99_ms"] = seen["p99_ms"]
                found[f"{name}_cpu_ms"] = 1e3 * (server.cpu_seconds() - before) / seen["count"]
            for name in ("one", "batched", "two"):
                found[f"{name}_ratio"] = found[f"{name}_per_second"] / found["naive_per_second"]
            rounds.append(found)
    return {"rounds": rounds, **_medians(rounds)}


def measure_overload(folder: Path, saved: Path, base_path: Path, request: Path) -> dict[str, Any]:
    """Three times the peak rate, calls beginning whatever becomes of them.

    From callers that hold calls back as polyrank's client does, and from callers that never do.
    Server and load generator have cores of their own, in the peak as well: to begin three times as
    many calls takes so much of shared cores that the server would be measured without them.
    """
    rounds = []
    server_cores, load_cores = split_cores()
    with ExitStack() as stack:
        with pinned(server_cores):
            server = stack.enter_context(embedded(folder, base_path, "overload"))
        stack.enter_context(pinned(load_cores))
        wait_until_available(server)
        load(server, request, "closed", CONCURRENCY, 2)
        for _ in range(ROUNDS):
            peak = load(server, request, "closed", CONCURRENCY, SECONDS)["per_second"]
            found = {"peak_per_second": peak}
            for mode in ("throttled", "open"):
                over = _at_overload(server, request, mode, peak)
                found.update({f"{mode}_{name}": value for name, value in over.items()})
            rounds.append(found)
    return {"rounds": rounds, **_medians(rounds)}


def _at_overload(server: Server, request: Path, mode: str, peak: float) -> dict[str, float]:
    before = server.cpu_seconds()
    over = load(server, request, mode, OVERLOAD * peak, OVERLOAD_SECONDS, DEADLINE_SECONDS)
    cpu_seconds = server.cpu_seconds() - before
    late = over["codes"].get("DEADLINE_EXCEEDED", 0) + over["codes"].get("CANCELLED", 0)
    return {
        "begun_ratio": over["begun_per_second"] / peak,
        "goodput_ratio": over["goodput"] / peak,
        "held_back_share": over["held_back_share"],
        "refusal_max_ms": over["refusal_max_ms"],
        "refusal_p99_ms": over["refusal_p99_ms"],
        "ok_p99_ms": over["ok_p99_ms"],
        "late_share": late / sum(over["codes"].values()),
        "server_cores_used": cpu_seconds / OVERLOAD_SECONDS,
        **{f"code_{name}": count for name, count in over["codes"].items()},
    }


def measure_swaps(folder: Path, saved: Path, base_path: Path, request: Path) -> dict[str, Any]:
    """50 pushes under load: failures, mixed answers, latency, memory, threads.

    In rounds: what else the machine does hits the steady seconds as well as the swaps beside them.
    """
    from mmoe_model import push

    own = folder / "swapped"
    push(saved, own, 1)
    swaps_a_round = NUM_SWAPS // ROUNDS
    rounds, memory, threads = [], [], []
    failures: list[str] = []
    num_answers = num_failures = num_mixed = 0
    versions: set[int] = set()
    with embedded(folder, own, "swaps") as server:
        wait_until_available(server)
        for number in range(ROUNDS):
            steady = load(server, request, "swaps", 4, SECONDS, folder / "never")
            stop = folder / f"stop-{number}"
            command = [sys.executable, str(HERE / "load.py"), str(server.port), str(request)]
            generator = subprocess.Popen(
                [*command, "swaps", "4", "600", str(stop)], stdout=subprocess.PIPE, text=True
            )
            before = server.cpu_seconds()
            start = time.monotonic()
            for version in range(number * swaps_a_round + 2, (number + 1) * swaps_a_round + 2):
                push(saved, own, version)
                _wait_for_version(server, version)
                memory.append(server.process.memory_info().rss / 2**20)
                threads.append(server.process.num_threads())
            seconds = time.monotonic() - start
            cores = (server.cpu_seconds() - before) / seconds
            stop.touch()
            seen = json.loads(generator.communicate(timeout=120)[0])
            rounds.append(
                {
                    "steady_p99_ms": steady["p99_ms"],
                    "swapping_p99_ms": seen["p99_ms"],
                    "p99_ratio": seen["p99_ms"] / steady["p99_ms"],
                    "throughput_ratio": seen["per_second"] / steady["per_second"],
                    "swaps_per_second": swaps_a_round / seconds,
                    "server_cores_used": cores,
                }
            )
            for part in (steady, seen):
                num_answers += part["count"]
                num_failures += part["num_failures"]
                num_mixed += part["num_mixed"]
                failures += part["failures"]
                versions.update(part["versions"])
    tenth = NUM_SWAPS // 5
    return {
        "rounds": rounds,
        **_medians(rounds),
        "num_swaps": NUM_SWAPS,
        "num_answers": num_answers,
        "num_versions_seen": len(versions),
        "num_failures": num_failures,
        "failures": failures,
        "num_mixed": num_mixed,
        "memory_mib_after_10": memory[tenth - 1],
        "memory_mib_after_50": memory[-1],
        "threads_after_10": threads[tenth - 1],
        "threads_after_50": threads[-1],
    }


def _wait_for_version(server: Server, version: int) -> None:
    from serving.client import RankingClient

    end = time.monotonic() + 60
    with RankingClient(f"127.0.0.1:{server.port}", "mmoe") as client:
        while client.metadata().version != version:
            if time.monotonic() > end:
                raise RuntimeError(f"version {version} did not take over")
            time.sleep(0.05)


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, Any]:
    names = sorted({name for each in rounds for name in each})
    return {
        name: {
            "median": median(each.get(name, 0) for each in rounds),
            "low": min(each.get(name, 0) for each in rounds),
            "high": max(each.get(name, 0) for each in rounds),
        }
        for name in names
    }


def main() -> None:
    """Runs the sections asked for, and prints or writes what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/serving.md")
    options = parser.parse_args()
    unknown = sorted({*options.sections} - {*SECTIONS})
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if options.write and options.sections:
        parser.error("--write needs all sections: the page holds every one")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Before this adds to it. It lags by a minute or two, so it is told and not judged.
    busy = f"Load average when the run began: {os.getloadavg()[0]:.1f}."
    import mmoe_model

    from serving.api.messages import PredictRequest
    from serving.api.tensors import encode

    sections = options.sections or SECTIONS
    with tempfile.TemporaryDirectory(prefix="polyrank-benchmark-") as name:
        folder = Path(name)
        saved = mmoe_model.write_model(folder / "model")
        base_path = folder / "base"
        mmoe_model.push(saved, base_path, 1)
        request = PredictRequest()
        request.model_spec.name = "mmoe"
        request.model_spec.signature_name = "predict"
        for feature, ids in mmoe_model.candidates().items():
            request.inputs[feature].CopyFrom(encode(ids))
        request_file = folder / "request"
        request_file.write_bytes(request.SerializeToString())
        measures = {
            "latency": measure_latency,
            "throughput": measure_throughput,
            "overload": measure_overload,
            "swaps": measure_swaps,
        }
        found = {}
        for section in sections:
            found[section] = measures[section](folder, saved, base_path, request_file)
            print(section, json.dumps(found[section], indent=1), flush=True)
    if options.write:
        from report import write_report

        write_report(ROOT / "docs" / "benchmarks" / "serving.md", found, machine(), busy)


def machine() -> str:
    """Describes the machine in a line."""
    import tensorflow as tf

    return (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"TensorFlow {tf.__version__}, CPU only"
    )


if __name__ == "__main__":
    main()
