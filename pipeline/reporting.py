"""Gathers what a run left and renders its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.report.render import ReportInputs, render_report
from pipeline.plan import AnyRun
from pipeline.runners.local import NodeResult
from pipeline.summary import read_accounts, read_training, verdicts


def write_report(plan: AnyRun, results: dict[str, NodeResult], summary: dict[str, Any]) -> Path:
    """Renders `reports/<run_id>/index.html`.

    Args:
        plan: The run.
        results: One result per node, whatever its state.
        summary: The run's summary.

    Returns:
        The page's path.
    """
    candidates = list(plan.config.candidates)
    predictions = {
        name: path
        for name in candidates
        if (path := plan.workdir.run(plan.run_id) / "predictions" / f"{name}.parquet").exists()
    }
    report = results.get("Report")
    report_path = (
        Path(report.outputs["report"][0], "report.json") if report and report.outputs else None
    )
    study = results.get("LagStudy")
    lags_path = Path(study.outputs["report"][0], "lags.json") if study and study.outputs else None
    inputs = ReportInputs(
        summary=summary,
        ranking=plan.config.ranking,
        training={n: t for n in candidates if (t := read_training(results, n, "training.json"))},
        insights={n: t for n in candidates if (t := read_training(results, n, "insights.json"))},
        accounts=read_accounts(results) or None,
        report_data=json.loads(report_path.read_text())
        if report_path is not None and report_path.exists()
        else None,
        predictions=predictions,
        lags=json.loads(lags_path.read_text())
        if lags_path is not None and lags_path.exists()
        else None,
        wants_lags=bool(plan.config.evaluation.lags),
        verdicts=verdicts(results),
        previous_summary=plan.workdir.read_summary(plan.baseline.run_id) if plan.baseline else None,
    )
    target = plan.workdir.report(plan.run_id)
    target.parent.mkdir(parents=True, exist_ok=True)
    render_report(inputs, target)
    return target
