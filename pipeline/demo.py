"""`make demo`: simulated logs to a ranked answer, and a table of what was learnt."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models.spec.errors import PolyrankError
from models.spec.metric import METRICS
from pipeline.load import load_config
from pipeline.progress import Progress
from pipeline.ranking_request import rank_file
from pipeline.run import run
from pipeline.workdir import Workdir
from simulator.simulate import SimulationConfig, simulate

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "examples" / "simulated" / "config.yaml"
SHOWN_METRICS = ("auc", "spearman")
"""The metric shown per task: the first of these that its kind has."""
_SERVER_START_SECONDS = 120.0


def demo(workdir_path: Path, *, seed: int, impressions: int) -> int:
    """Simulates, runs, serves and ranks.

    Args:
        workdir_path: Work directory; the logs go into its folder `logs`.
        seed: Seed of the simulated logs.
        impressions: About how many impressions.

    Returns:
        The exit code of the run.
    """
    start = time.monotonic()
    workdir = Workdir.open(workdir_path, create=True)
    logs = _logs(workdir, seed, impressions)
    config = load_config(CONFIG, [f"logs.root={logs}"])
    with Progress() as progress:
        summary, finished = run(config, workdir, on_plan=progress.plan, on_change=progress.change)
    console = Console(width=160 if not sys.stdout.isatty() else None)
    if finished:
        console.print(f"{summary['run_id']} was finished before: nothing to do")
    console.print(candidate_table(summary))
    if summary["error"]:
        console.print(f"{summary['state']}: {summary['error']}", markup=False)
    if summary["pushed"]:
        request = workdir.run(summary["run_id"]) / "request.json"
        console.print(_serve_and_rank(workdir, summary["pushed"]["model"], request), markup=False)
    console.print(f"examples  {_examples(summary)}", markup=False)
    console.print(f"report    {workdir.report(summary['run_id'])}", markup=False, soft_wrap=True)
    console.print(f"summary   {workdir.summary(summary['run_id'])}", markup=False, soft_wrap=True)
    console.print(f"seconds   {time.monotonic() - start:.0f}")
    return int(summary["exit_code"])


def candidate_table(summary: dict[str, Any]) -> Table:
    """Lays out candidate x task: metric with interval, gates, champion, distance to the oracle."""
    table = Table(title="Test split: value [95 % interval over users]")
    table.add_column("candidate")
    outputs = sorted({o for c in summary["candidates"].values() for o in c["metrics"]})
    chosen = {output: _shown_metric(summary, output) for output in outputs}
    for output in outputs:
        table.add_column(f"{output}\n{chosen[output]}", justify="right")
    table.add_column("gates")
    for name, candidate in summary["candidates"].items():
        cells = [_cell(candidate["metrics"].get(o, {}).get(chosen[o])) for o in outputs]
        failed = [g for g in candidate["gates"] if not g["passed"]]
        gates = f"{len(candidate['gates']) - len(failed)} of {len(candidate['gates'])} passed"
        if summary["champion"] == name:
            gates += ", champion"
        table.add_row(name, *cells, gates)
    oracle = summary["oracle"] or {}
    champion = summary["candidates"].get(summary["champion"], {}).get("metrics", {})
    if oracle:
        table.add_section()
        truth = [oracle.get(o, {}).get(chosen[o]) for o in outputs]
        table.add_row("oracle", *("" if v is None else f"{v:.4f}" for v in truth), "")
        if champion:
            gaps = [
                "" if v is None else f"{champion[o][chosen[o]]['value'] - v:+.4f}"
                for o, v in zip(outputs, truth, strict=True)
            ]
            table.add_row("champion - oracle", *gaps, "")
    return table


def _shown_metric(summary: dict[str, Any], output: str) -> str:
    reported = {m for c in summary["candidates"].values() for m in c["metrics"].get(output, {})}
    return next((m for m in (*SHOWN_METRICS, *METRICS) if m in reported), "")


def _cell(metric: dict[str, Any] | None) -> str:
    if metric is None or metric["value"] is None:
        return "undefined"
    text = f"{metric['value']:.4f}"
    if metric.get("low") is not None:
        text += f" [{metric['low']:.4f}, {metric['high']:.4f}]"
    return text


def _examples(summary: dict[str, Any]) -> str:
    counts = summary["examples"]
    if not counts:
        return "none"
    total = sum(counts[split] for split in ("train", "validation", "test"))
    return (
        f"{total} of {counts['exploded']} impressions "
        f"(train {counts['train']}, validation {counts['validation']}, test {counts['test']})"
    )


def _logs(workdir: Workdir, seed: int, impressions: int) -> Path:
    """Simulates the logs unless those of the same settings are there."""
    folder = workdir.root / "logs" / f"seed-{seed}-impressions-{impressions}"
    done = folder / "_truth" / "oracle.json"
    if not done.exists():
        simulate(SimulationConfig(seed=seed, impressions=impressions), folder)
    return folder


def _serve_and_rank(workdir: Workdir, model: str, request: Path) -> str:
    """Starts the embedded server as its user would, asks one request, stops it."""
    port_file = workdir.root / "serving.port"
    port_file.unlink(missing_ok=True)
    log = workdir.root / "serving.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "serving.server", "--model",
             f"{model}={workdir.serving / model}", "--port", "0", "--port-file", str(port_file),
             "--until-input-ends"],
            stdin=subprocess.PIPE,  # closed when this process ends, however it ends
            cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        target = f"127.0.0.1:{_port(server, port_file, log)}"
        from serving.client import RankingClient

        with RankingClient(target, model) as client:
            client.wait_until_available(timeout_seconds=_SERVER_START_SECONDS)
        return rank_file(target, model, request, top_k=10, timeout_seconds=5.0)
    finally:
        server.terminate()
        server.wait(timeout=30)


def _port(server: subprocess.Popen[bytes], port_file: Path, log: Path) -> int:
    deadline = time.monotonic() + _SERVER_START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if port_file.exists() and (text := port_file.read_text().strip()):
            return int(text)
        time.sleep(0.1)
    raise PolyrankError(
        "the embedded server did not start",
        received=log.read_text(errors="replace")[-500:].strip().replace("\n", " | "),
        remedy=f"see {log}",
    )
