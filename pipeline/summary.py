"""Builds `summary.json` from what the nodes left, in every outcome."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from components.champion.executor import FILE_NAME as CHAMPION_FILE
from components.champion.executor import METRIC_GATE_FAILED
from components.log_example_gen.spec import Window
from components.model_pusher.executor import FILE_NAME as PUSHED_FILE
from components.model_pusher.executor import SUPERSEDED_FILE
from components.scorer.executor import FILE_NAME as PREDICTIONS_FILE
from components.verdict import Verdict, read_verdict
from models.spec.metric import METRICS
from models.spec.task import Output
from pipeline.evaluation import OVERALL, GateRow, gate_rows, read_changes, read_metrics
from pipeline.oracle import measure_oracle
from pipeline.outputs import eval_outputs
from pipeline.plan import AnyRun, config_hash
from pipeline.runners.local import NodeResult

SCHEMA_VERSION = 1
_DONE = ("complete", "cached")


def build_summary(
    plan: AnyRun,
    results: dict[str, NodeResult],
    state: str,
    error: str | None,
    accounts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Collects the run's figures; parts whose node did not finish are empty.

    Args:
        plan: The run.
        results: One result per node.
        state: ``succeeded``, ``refused`` or ``failed``.
        error: The one-line error of a run that did not succeed.
        accounts: What became of every row, where LogExampleGen counted them and then gave up.

    Returns:
        The summary; see the contract in `docs/operations.md`.
    """
    accounts = read_accounts(results) or accounts or {}
    champion = _json(results, "Champion", "champion", CHAMPION_FILE)
    newer = _json(results, "ModelPusher", "pushed_model", SUPERSEDED_FILE)
    if newer:
        newer["test_end"] = _timestamp(newer["test_end"] - 1)
    summary = {
        "schema_version": SCHEMA_VERSION,
        "run_id": plan.run_id,
        "pipeline": plan.config.name,
        "config_hash": config_hash(plan.config),
        "state": state,
        "error": error,
        "window": _window(plan.window),
        "privacy": plan.privacy_record,
        "warnings": [
            text for verdict in verdicts(results) for text in verdict.details.get("warnings", [])
        ],
        "rows": accounts.get("rows", {}),
        "examples": accounts.get("examples", {}),
        "components": [
            {
                "name": result.name,
                "state": result.state,
                "cached": result.state == "cached",
                "seconds": result.seconds,
                "cpu_seconds": result.cpu_seconds,
                "peak_rss_bytes": result.peak_rss_bytes,
            }
            for result in results.values()
        ],
        "baseline_run_id": plan.baseline.run_id if plan.baseline else None,
        "candidates": {
            name: summary
            for name in plan.config.candidates
            if (summary := _candidate(plan, results, name, champion)) is not None
        },
        "champion": champion.get("champion"),
        "pushed": _json(results, "ModelPusher", "pushed_model", PUSHED_FILE) or None,
        "superseded_by": newer or None,
        "oracle": read_oracle(plan, results),
    }
    if state == "refused" and error is not None:
        summary["error"] = explain_refusal(summary, error)
    return summary


def read_accounts(results: dict[str, NodeResult]) -> dict[str, Any]:
    """Returns the accounts of LogExampleGen, or nothing if it did not finish."""
    return _json(results, "LogExampleGen", "accounts", "accounts.json")


def read_training(results: dict[str, NodeResult], name: str, file: str) -> dict[str, Any]:
    """Returns a JSON file of a candidate's training (`training.json`, `insights.json`)."""
    return _json(results, f"Trainer.{name}", "model_run", file)


def verdicts(results: dict[str, NodeResult]) -> list[Verdict]:
    """Returns the verdicts of every gate that ran."""
    found = []
    for result in results.values():
        for uri in result.outputs.get("blessing", []):
            try:
                found.append(read_verdict(uri))
            except FileNotFoundError:
                continue
    return found


def read_oracle(plan: AnyRun, results: dict[str, NodeResult]) -> dict[str, Any] | None:
    """Returns the simulator's truth on the test rows, or None for logs without one."""
    for name in plan.config.candidates:
        scorer = results.get(f"Scorer.{name}")
        if scorer is not None and scorer.outputs.get("predictions"):
            path = Path(scorer.outputs["predictions"][0], PREDICTIONS_FILE)
            return measure_oracle(Path(plan.config.logs.root), path, plan.config.ranking)
    return None


def _candidate(
    plan: AnyRun, results: dict[str, NodeResult], name: str, champion: dict[str, Any]
) -> dict[str, Any] | None:
    training = read_training(results, name, "training.json")
    if not training:
        return None
    summary: dict[str, Any] = {
        "blessed": False,
        "parameters": training["parameters"],
        "train_seconds": training["train_seconds"],
        "metrics": {},
        "slices": {},
        "changes": {},
        "gates": [],
        "refusals": champion.get("refusals", {}).get(name, []),
    }
    evaluator = results.get(f"Evaluator.{name}")
    if evaluator is None or evaluator.state not in _DONE:
        return summary
    evaluation = evaluator.outputs["evaluation"][0]
    measured = read_metrics(evaluation)
    changes = read_changes(evaluation)
    spaces = {output.name: output for output in plan.config.ranking.outputs}
    overall = measured.pop(OVERALL)
    summary["metrics"] = _with_space(overall, spaces)
    summary["slices"] = {key: _with_space(value, spaces) for key, value in measured.items()}
    summary["changes"] = _with_space(changes.get(OVERALL, {}), spaces)
    summary["gates"] = [
        _gate(row)
        for row in gate_rows(overall, eval_outputs(plan.config.ranking), changes.get(OVERALL))
    ]
    summary["blessed"] = (
        bool(champion)
        and not summary["refusals"]
        and all(gate["passed"] for gate in summary["gates"])
    )
    return summary


def _gate(row: GateRow) -> dict[str, Any]:
    return {
        "task": row.output,
        "metric": row.metric,
        "kind": row.kind,
        "bound": row.bound,
        "threshold": row.threshold,
        "value": row.value,
        "passed": row.passed,
        "outcome": row.outcome,
    }


def _with_space(metrics: Any, outputs: dict[str, Output]) -> dict[str, dict[str, dict[str, Any]]]:
    """Adds to every metric the sample space it is measured on, and to grouped ones the groups."""
    return {
        name: {
            metric: {k: _finite(v) for k, v in by_metric[metric].items()}
            | {"space": outputs[name].space}
            | {
                count: int(by_metric[f"{metric}_{count}"]["value"])
                for count in ("num_groups", "num_groups_skipped")
                if f"{metric}_{count}" in by_metric
            }
            for metric in by_metric
            if metric in METRICS
        }
        for name, by_metric in metrics.items()
        if name in outputs
    }


def explain_refusal(summary: dict[str, Any], error: str) -> str:
    """Says in one line which gates failed by how much, where it was the candidates' that did.

    Args:
        summary: The summary of a refused run.
        error: The refusal of the gate that stopped it.
    """
    parts = []
    for name, candidate in summary["candidates"].items():
        failed = [gate for gate in candidate["gates"] if not gate["passed"]]
        reasons = [_missed(gate) for gate in failed]
        reasons += [r for r in candidate["refusals"] if not (failed and r == METRIC_GATE_FAILED)]
        if reasons:
            more = f" (and {len(reasons) - 2} more)" if len(reasons) > 2 else ""
            parts.append(f"{name}: {'; '.join(reasons[:2])}{more}")
    if not parts or any(not c["refusals"] for c in summary["candidates"].values()):
        return error
    return f"no candidate passed its gates, nothing is pushed: {' | '.join(parts)}"


def _missed(gate: dict[str, Any]) -> str:
    what = f"{gate['task']} {gate['metric']}" + (" change" if gate["kind"] == "change" else "")
    if gate["value"] is None:
        return f"{what} is undefined"
    side = "at least" if gate["bound"] == "lower" else "at most"
    by = abs(gate["value"] - gate["threshold"])
    return f"{what} {gate['value']:.4f}, {side} {gate['threshold']:g} required, missed by {by:.4f}"


def _finite(value: Any) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _json(results: dict[str, NodeResult], node: str, key: str, file: str) -> dict[str, Any]:
    result = results.get(node)
    if result is None or result.state not in _DONE:
        return {}
    for uri in result.outputs.get(key, []):
        path = Path(uri, file)
        if path.exists():
            return dict(json.loads(path.read_text()))
    return {}


def _window(window: Window | None) -> dict[str, Any]:
    if window is None:
        return dict.fromkeys(("train", "validation", "test", "train_cutoff", "cutoff"))
    return {
        "train": _interval(window.train_start, window.validation_start),
        "validation": _interval(window.validation_start, window.test_start),
        "test": _interval(window.test_start, window.test_end),
        "train_cutoff": _timestamp(window.train_cutoff),
        "cutoff": _timestamp(window.cutoff),
    }


def _interval(first_ms: int, end_ms: int) -> list[str]:
    """First and last millisecond of a half-open interval, as ISO 8601."""
    return [_timestamp(first_ms), _timestamp(end_ms - 1)]


def _timestamp(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, tz=timezone.utc)
    return moment.isoformat(timespec="milliseconds")
