"""Metric by slice: where the champion is weak."""

from __future__ import annotations

from collections.abc import Sequence

from components.report import chart_style as style
from components.report import formatting as f
from components.report.blocks import (
    Block,
    Cell,
    Disclosure,
    Figure,
    Figures,
    Notice,
    Row,
    Section,
    Table,
)
from components.report.headline import headline_metric
from components.report.inputs import Json, ReportInputs
from components.report.outcome import focus_candidate
from components.report.svg import inline_svg
from models.spec.task import Output

MAX_CHARTED = 30
MAX_TABLED = 200
_MAX_NAME = 60

# Slice names take more room than candidate names.
_WIDTH = 165


def section(inputs: ReportInputs) -> Section:
    """Shows the headline metric of every output in every slice."""
    focus = focus_candidate(inputs)
    names = list((inputs.candidate(focus).get("slices") or {}) if focus else ())
    blocks: list[Block] = []
    if focus is None:
        blocks.append(Notice(f"No metrics by slice: {inputs.why_absent()}."))
    elif not names:
        blocks.append(Notice("No slices: name some under evaluation.slices in the config."))
    else:
        colors = style.CandidateColors(inputs.candidates, inputs.champion)
        blocks.append(colors.legend())
        if len(names) > MAX_CHARTED:
            blocks.append(
                Notice(
                    f"The first {MAX_CHARTED} of {len(names)} slices are drawn; more are tabled."
                )
            )
        outputs = [o for o in inputs.ranking.outputs if _has_values(inputs, focus, names, o)]
        blocks.append(
            Figures(tuple(_figure(inputs, focus, o, names[:MAX_CHARTED], colors) for o in outputs))
        )
        tables: list[Block] = [
            _table(inputs, focus, output, names[:MAX_TABLED]) for output in outputs
        ]
        if len(names) > MAX_TABLED:
            more = len(names) - MAX_TABLED
            tables.append(Notice(f"{more} more slices are in summary.json."))
        blocks.append(Disclosure(f"All metrics of {focus} by slice", tuple(tables)))
    return Section(
        anchor="slices",
        title="Slices",
        lead="The same metrics inside groups of the test window. The bar is the 95 % interval of "
        f"{focus or 'the champion'}, the line its value over all rows; small marks are the others.",
        blocks=tuple(blocks),
    )


def _value(inputs: ReportInputs, candidate: str, name: str, output: str, metric: str) -> Json:
    slices = inputs.candidate(candidate).get("slices") or {}
    return ((slices.get(name) or {}).get(output) or {}).get(metric) or {}


def _has_values(inputs: ReportInputs, focus: str, names: Sequence[str], output: Output) -> bool:
    metric = headline_metric(output, inputs.ranking)
    return any(
        _value(inputs, focus, n, output.name, metric).get("value") is not None for n in names
    )


def _figure(
    inputs: ReportInputs,
    focus: str,
    output: Output,
    names: Sequence[str],
    colors: style.CandidateColors,
) -> Figure:
    metric = headline_metric(output, inputs.ranking)
    shown = _short_names(names)
    rows = []
    for candidate in inputs.candidates:
        for name in names:
            measured = _value(inputs, candidate, name, output.name, metric)
            if measured.get("value") is not None:
                value = measured["value"]
                low, high = measured.get("low"), measured.get("high")
                rows.append(
                    {
                        "candidate": candidate,
                        "slice": shown[name],
                        "value": value,
                        "low": value if low is None or candidate != focus else low,
                        "high": value if high is None or candidate != focus else high,
                        "main": candidate == focus,
                    }
                )
    y = style.names_channel("slice", list(shown.values()))
    scale = {"zero": False, "padding": 8}
    value, low = (style.number_channel(end, scale=scale) for end in ("value", "low"))
    color = colors.channel()
    layers = [
        style.layer(
            "tick",
            {"thickness": 2, "size": 9, "opacity": 0.7},
            {"y": y, "x": value, "color": color},
            where="!datum.main",
        ),
        style.layer(
            "rule",
            {"strokeWidth": 2.5, "opacity": 0.55},
            {"y": y, "x": low, "x2": {"field": "high"}, "color": color},
            where="datum.main",
        ),
        style.layer(
            "point",
            {"filled": True, "size": 60, "opacity": 1},
            {"y": y, "x": value, "color": color},
            where="datum.main",
        ),
    ]
    overall = inputs.metric(focus, output.name, metric).get("value")
    if overall is not None:
        layers.append(style.vertical_line(overall, style.QUIET))
    title = f"{output.name}: {f.metric_label(metric)} by slice"
    told = "; ".join(
        f"{shown[n]} {f.interval(_value(inputs, focus, n, output.name, metric))}" for n in names
    )
    chart = style.chart(rows, layers, width=_WIDTH, height=max(60, 20 * len(names) + 12))
    return Figure(title, inline_svg(chart, title, told), f.metric_direction(metric))


def _short_names(names: Sequence[str]) -> dict[str, str]:
    """Cuts long names and keeps apart those that look alike afterwards."""
    shown: dict[str, str] = {}
    for position, name in enumerate(names):
        text = f.clipped(name, _MAX_NAME)
        shown[name] = f"{text} ({position + 1})" if text in shown.values() else text
    return shown


def _table(inputs: ReportInputs, focus: str, output: Output, names: Sequence[str]) -> Table:
    rows = []
    shown = _short_names(names)
    for name in names:
        measured = [_value(inputs, focus, name, output.name, m) for m in output.metrics]
        cells = [Cell(f.number(m.get("value")), f.bounds(m)) for m in measured]
        rows.append(Row((Cell(shown[name]), *cells)))
    headers = [Cell(f.metric_label(m), f.metric_direction(m)) for m in output.metrics]
    return Table(f"{output.name} by slice, {focus}", (Cell("Slice"), *headers), tuple(rows))
