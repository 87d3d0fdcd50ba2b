"""Writes what the serving benchmarks measured as a page of the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_HEAD = """\
# Serving benchmarks

`python benchmarks/serving/run.py --write` wrote this page. The model is an MMoE of 8 string id
features (10,000 ids each, 4 experts, 2 tasks), 100 candidates a request. Machine: {machine}.
{load} Each ratio compares measurements that were interleaved in one run, and is the median over its
rounds, with the lowest and the highest. Server, load generator and bare call are processes of their
own on the same cores, and what the load generator needs the server lacks; except under overload,
where the server has one half of the cores and the load generator the other, in the peak that it is
compared with as well. Under overload calls begin at three times the peak, whatever becomes of those
before, for ten seconds from a standing start: once by four callers that each hold calls back by the
client's default policy, once by callers that send every call. The slowest refusal is judged by the
worst of the rounds. The embedded server computes a request in one thread, its default; the bare
call and the naive server have TensorFlow's threads. A push is ModelPusher's, with manifest and
warm-up request; the versions are pushed one after the other, each as soon as the one before it
serves.

| requirement | measured | met |
|---|---|---|
"""


def write_report(path: Path, found: dict[str, Any], machine: str, load: str) -> None:
    """Writes the page.

    Args:
        path: Where to.
        found: Per section its results.
        machine: The machine, in words.
        load: How busy it was, in a sentence.
    """
    rows, details = [], []
    if "latency" in found:
        part = found["latency"]
        rows.append(_row("Predict, p50 against the bare call: at most 1.6", part["p50_ratio"], 1.6))
        rows.append(
            _row("server CPU a request against the bare call: at most 1.6", part["cpu_ratio"], 1.6)
        )
    if "throughput" in found:
        part = found["throughput"]
        for name, text in (
            ("one", "one process"),
            ("batched", "one process, `--enable-batching`"),
            ("two", "`--workers 2`"),
        ):
            rows.append(
                _row(
                    f"throughput at 16 concurrent against the naive server, {text}: at least 2",
                    part[f"{name}_ratio"],
                    2.0,
                    at_least=True,
                )
            )
    if "overload" in found:
        part = found["overload"]
        for mode, callers in (
            ("throttled", "callers that hold back as the client does"),
            ("open", "callers that never hold back"),
        ):
            rows.append(
                _row(
                    f"goodput at 3 x overload against the peak, {callers}: at least 0.9",
                    part[f"{mode}_goodput_ratio"],
                    0.9,
                    at_least=True,
                )
            )
            rows.append(
                _row(
                    f"slowest refusal (ms), {callers}: within the deadline of 500",
                    part[f"{mode}_refusal_max_ms"],
                    500.0,
                    judged="high",
                )
            )
    if "swaps" in found:
        part = found["swaps"]
        failed = part["num_failures"] + part["num_mixed"]
        rows.append(
            f"| {part['num_swaps']} hot swaps under load: no failed request, no mixed answer | "
            f"{part['num_failures']} failed, {part['num_mixed']} mixed of {part['num_answers']} "
            f"answers by {part['num_versions_seen']} versions | {_yes(failed == 0)} |"
        )
        rows.append(_row("p99 while swapping against steady: at most 2", part["p99_ratio"], 2.0))
        rows.append(
            "| memory and threads flat | "
            f"{part['memory_mib_after_10']:.0f} MiB and {part['threads_after_10']} threads "
            f"after 10 swaps, {part['memory_mib_after_50']:.0f} MiB and "
            f"{part['threads_after_50']} after 50 | {_yes(_is_flat(part))} |"
        )
    for section, part in found.items():
        details.append(
            f"\n## {section.capitalize()}\n\n| | median | low | high |\n|---|---|---|---|\n"
        )
        for name, value in part.items():
            if isinstance(value, dict):
                numbers = " | ".join(f"{value[key]:.3g}" for key in ("median", "low", "high"))
                details.append(f"| {name} | {numbers} |\n")
            elif isinstance(value, (int, float)):
                details.append(f"| {name} | {value:.4g} | | |\n")
    head = _HEAD.format(machine=machine, load=load)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + "\n".join(rows) + "\n" + "".join(details))


def _row(
    text: str,
    value: dict[str, float],
    bound: float,
    *,
    at_least: bool = False,
    judged: str = "median",
) -> str:
    is_met = value[judged] >= bound if at_least else value[judged] <= bound
    spread = f"{value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})"
    return f"| {text} | {spread} | {_yes(is_met)} |"


def _is_flat(part: dict[str, Any]) -> bool:
    return (
        part["memory_mib_after_50"] <= 1.1 * part["memory_mib_after_10"]
        and part["threads_after_50"] <= part["threads_after_10"] + 2
    )


def _yes(is_met: bool) -> str:
    return "yes" if is_met else "**no**"
