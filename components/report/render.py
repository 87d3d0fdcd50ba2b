"""Draws the page of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from components.report import formatting
from components.report.blocks import Section
from components.report.inputs import ReportInputs
from components.report.outcome import outcome
from components.report.sections import (
    calibration,
    comparisons,
    components,
    gates,
    guide,
    internals,
    labels,
    learning,
    metrics,
    rows,
    slices,
)

__all__ = ["ReportInputs", "render_report"]

_SECTIONS = (
    metrics.section,
    comparisons.section,
    gates.section,
    calibration.section,
    slices.section,
    learning.section,
    internals.section,
    labels.section,
    rows.section,
    components.section,
    guide.section,
)


def render_report(inputs: ReportInputs, out_path: Path) -> None:
    """Writes the page of a run in any state; what is missing is named with the reason.

    The page has no script and asks for no other file. Text from data is escaped. It is replaced in
    one step, so a reader never sees half of it.

    Args:
        inputs: What the run left behind.
        out_path: The HTML file; its folder is made if needed.
    """
    environment = Environment(
        loader=PackageLoader("components.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.j2").render(**_context(inputs))
    path = Path(out_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(page, encoding="utf-8")
    os.replace(unfinished, path)


def _context(inputs: ReportInputs) -> dict[str, Any]:
    summary = inputs.summary
    sections: list[Section] = [make(inputs) for make in _SECTIONS]
    return {
        "pipeline": summary.get("pipeline") or "pipeline",
        "run_id": summary.get("run_id") or formatting.ABSENT,
        "config_hash": summary.get("config_hash") or formatting.ABSENT,
        "outcome": outcome(inputs),
        "sections": sections,
    }
