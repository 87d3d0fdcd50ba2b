"""Draws the page of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from components.report import formatting
from components.report.blocks import Notice, Section
from components.report.inputs import ReportInputs
from components.report.outcome import Outcome, outcome
from components.report.sections import (
    calibration,
    comparisons,
    components,
    gates,
    guide,
    internals,
    labels,
    lags,
    learning,
    maturity,
    metrics,
    rows,
    skew,
    slices,
)

__all__ = ["ReportInputs", "render_report"]

_LOG = logging.getLogger(__name__)

_SECTIONS = (
    metrics.section,
    comparisons.section,
    gates.section,
    calibration.section,
    slices.section,
    learning.section,
    internals.section,
    labels.section,
    maturity.section,
    skew.section,
    lags.section,
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


def _section(make: Callable[[ReportInputs], Section], inputs: ReportInputs) -> Section:
    """Makes a section; one that cannot be made must not take the others down with it."""
    try:
        return make(inputs)
    except Exception as error:
        name = make.__module__.rpartition(".")[2]
        _LOG.exception("the %s section of the report could not be drawn", name)
        told = formatting.clipped(f"{type(error).__name__}: {error}", 300)
        notice = Notice(
            f"This part could not be drawn ({told}); the run's log has the rest.", "bad"
        )
        return Section(name, name.capitalize(), "", (notice,))


def _outcome(inputs: ReportInputs) -> Outcome:
    try:
        return outcome(inputs)
    except Exception as error:
        _LOG.exception("the first screen of the report could not be drawn")
        told = formatting.clipped(f"{type(error).__name__}: {error}", 300)
        title = f"The run ended as {inputs.state}; its outcome could not be drawn"
        return Outcome(inputs.state, "bad", title, (told,), (), None, "")


def _context(inputs: ReportInputs) -> dict[str, Any]:
    summary = inputs.summary
    sections = [_section(make, inputs) for make in _SECTIONS]
    return {
        "pipeline": summary.get("pipeline") or "pipeline",
        "run_id": summary.get("run_id") or formatting.ABSENT,
        "config_hash": summary.get("config_hash") or formatting.ABSENT,
        "outcome": _outcome(inputs),
        "sections": sections,
    }
