"""The load generator, a process of its own: load.py PORT REQUEST_FILE MODE ARGUMENTS...

It sends one prepared message again and again and looks at answers only where asked to, so that it
costs as little as Python can. Only loopback; every mode is bounded in time and count.

    closed CONCURRENCY SECONDS          each caller waits for its answer
    open RATE SECONDS DEADLINE          calls begin at a rate, whatever becomes of them
    throttled RATE SECONDS DEADLINE     the same, by four callers that hold back as clients do
    swaps CONCURRENCY SECONDS STOP_FILE like closed, until the file appears; checks versions
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

_METHOD = "/tensorflow.serving.PredictionService/Predict"
_MAX_CALLS = 200_000


def _closed(port: int, content: bytes, concurrency: int, seconds: float) -> dict[str, object]:
    latencies: list[float] = []
    codes: Counter[str] = Counter()
    lock = threading.Lock()
    end = time.perf_counter() + seconds

    def call() -> None:
        mine: list[float] = []
        failed: Counter[str] = Counter()
        with grpc.insecure_channel(
            f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]
        ) as c:
            predict = c.unary_unary(_METHOD)
            while len(mine) < _MAX_CALLS and (start := time.perf_counter()) < end:
                try:
                    predict(content, timeout=10)
                    mine.append(time.perf_counter() - start)
                except grpc.RpcError as error:
                    failed[error.code().name] += 1
        with lock:
            latencies.extend(mine)
            codes.update(failed)

    start = time.perf_counter()
    _run_all([threading.Thread(target=call) for _ in range(concurrency)])
    return {**_summary(latencies, time.perf_counter() - start), "failed": dict(codes)}


def _open(
    port: int,
    content: bytes,
    rate: float,
    seconds: float,
    deadline: float,
    *,
    is_throttled: bool = False,
) -> dict[str, object]:
    from serving.throttle import Throttle, ThrottlePolicy

    num_calls = min(int(rate * seconds), _MAX_CALLS)
    codes: Counter[str] = Counter()
    times: dict[str, list[float]] = {}
    lock = threading.Lock()
    done = threading.Semaphore(0)
    channels = [
        grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)])
        for _ in range(4)
    ]
    calls = [channel.unary_unary(_METHOD) for channel in channels]
    throttles = [Throttle(ThrottlePolicy(), random.Random(number)) for number in range(4)]
    num_held_back = 0
    start = time.perf_counter()
    for number in range(num_calls):
        wait = start + number / rate - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        throttle = throttles[number % len(throttles)]
        if is_throttled and not throttle.admits():
            num_held_back += 1
            continue
        begun = time.perf_counter()
        future = calls[number % len(calls)].future(content, timeout=deadline)

        def note(future: grpc.Future, begun: float = begun, throttle: Throttle = throttle) -> None:
            code = future.code().name
            if is_throttled:
                throttle.note(accepted=code != "UNAVAILABLE")
            with lock:
                codes[code] += 1
                times.setdefault(code, []).append(time.perf_counter() - begun)
            done.release()

        future.add_done_callback(note)
    sent_seconds = time.perf_counter() - start
    for _ in range(num_calls - num_held_back):
        done.acquire(timeout=30)
    for channel in channels:
        channel.close()
    refused = times.get("UNAVAILABLE", [])
    return {
        "begun_per_second": num_calls / sent_seconds,
        "held_back_share": num_held_back / num_calls,
        "goodput": codes["OK"] / sent_seconds,
        "codes": dict(codes),
        "refusal_max_ms": 1e3 * max(refused, default=0.0),
        "refusal_p99_ms": 1e3 * float(np.quantile(refused, 0.99)) if refused else 0.0,
        "ok_p99_ms": 1e3 * float(np.quantile(times["OK"], 0.99)) if "OK" in times else 0.0,
    }


def _swaps(
    port: int, content: bytes, concurrency: int, seconds: float, stop_file: Path
) -> dict[str, object]:
    from serving.api.messages import PredictResponse
    from serving.api.tensors import decode

    latencies: list[float] = []
    failures: list[str] = []
    mixed: list[str] = []
    versions: set[int] = set()
    lock = threading.Lock()
    end = time.perf_counter() + seconds

    def call() -> None:
        with grpc.insecure_channel(
            f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]
        ) as c:
            predict = c.unary_unary(_METHOD, response_deserializer=PredictResponse.FromString)
            while not stop_file.exists() and (start := time.perf_counter()) < end:
                try:
                    response = predict(content, timeout=10)
                except grpc.RpcError as error:
                    with lock:
                        failures.append(f"{error.code().name}: {error.details()}")
                    continue
                took = time.perf_counter() - start
                version = response.model_spec.version.value
                generations = set(decode(response.outputs["generation"]).tolist())
                with lock:
                    latencies.append(took)
                    versions.add(version)
                    if generations != {version}:
                        mixed.append(f"{version}: {sorted(generations)}")

    start = time.perf_counter()
    _run_all([threading.Thread(target=call) for _ in range(concurrency)])
    return {
        **_summary(latencies, time.perf_counter() - start),
        "failures": failures[:10],
        "num_failures": len(failures),
        "mixed": mixed[:10],
        "num_mixed": len(mixed),
        "versions": sorted(versions),
    }


def _run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _summary(latencies: list[float], seconds: float) -> dict[str, object]:
    p50, p99 = np.quantile(latencies, [0.5, 0.99]) if latencies else (np.nan, np.nan)
    return {
        "count": len(latencies),
        "per_second": len(latencies) / seconds,
        "p50_ms": 1e3 * float(p50),
        "p99_ms": 1e3 * float(p99),
    }


def main(port: str, request_file: str, mode: str, *arguments: str) -> None:
    """Runs one mode and prints what was seen, as JSON."""
    content = Path(request_file).read_bytes()
    if mode == "closed":
        found = _closed(int(port), content, int(arguments[0]), float(arguments[1]))
    elif mode in ("open", "throttled"):
        found = _open(int(port), content, *map(float, arguments), is_throttled=mode == "throttled")
    else:
        found = _swaps(
            int(port), content, int(arguments[0]), float(arguments[1]), Path(arguments[2])
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
