"""Candidate x task metrics: the figures, and each metric's intervals with its gate lines."""

from __future__ import annotations

from collections.abc import Sequence

from components.report import chart_style as style
from components.report import formatting as f
from components.report.blocks import (
    Block,
    Cell,
    Figure,
    Figures,
    Heading,
    Notice,
    Row,
    Section,
    Table,
    Tone,
)
from components.report.gates import GateRow, gate_rows, value_bounds
from components.report.headline import space_of
from components.report.inputs import Json, ReportInputs
from components.report.svg import inline_svg
from models.spec.task import Output

_FLOOR_NAMES = {"popularity": "popularity floor", "linear": "linear floor"}


def section(inputs: ReportInputs) -> Section:
    """Shows every metric of every candidate on the test split."""
    blocks: list[Block] = []
    if not inputs.candidates:
        blocks.append(Notice(f"No metrics: {inputs.why_absent()}."))
    else:
        colors = style.CandidateColors(inputs.candidates, inputs.champion)
        blocks.append(colors.legend())
        for output in inputs.ranking.outputs:
            blocks += _output_blocks(inputs, output, colors)
    return Section(
        anchor="metrics",
        title="Metrics",
        lead="Every candidate on the test window. Brackets and bars are 95 % intervals that "
        "resample users. A dashed red line is a gate, a dotted grey one the oracle.",
        blocks=tuple(blocks),
    )


def _output_blocks(
    inputs: ReportInputs, output: Output, colors: style.CandidateColors
) -> list[Block]:
    rows = [row for name in inputs.candidates for row in gate_rows(inputs, name)]
    bounds = {metric: value_bounds(rows, output.name, metric) for metric in output.metrics}
    figures = tuple(
        _figure(inputs, output, metric, bounds[metric], colors)
        for metric in output.metrics
        if any(
            inputs.metric(name, output.name, metric).get("value") is not None
            for name in inputs.candidates
        )
    )
    blocks: list[Block] = [
        Heading(output.name, space_of(output, inputs.ranking)),
        _table(inputs, output, bounds),
    ]
    return [*blocks, Figures(figures)] if figures else blocks


def _table(inputs: ReportInputs, output: Output, bounds: dict[str, list[GateRow]]) -> Table:
    rows = []
    for name in inputs.candidates:
        failed = {
            r.metric for r in gate_rows(inputs, name) if r.output == output.name and not r.passed
        }
        cells = [Cell(name)]
        for metric in output.metrics:
            measured = inputs.metric(name, output.name, metric)
            tone: Tone = "bad" if metric in failed else ""
            cells.append(Cell(f.number(measured.get("value")), f.bounds(measured), tone))
        rows.append(Row(tuple(cells), mark="champion" if name == inputs.champion else ""))
    floors = (inputs.report_data or {}).get("floors") or {}
    for floor, text in _FLOOR_NAMES.items():
        metrics = (floors.get(floor) or {}).get(output.name)
        if metrics:
            rows.append(_reference_row(text, output, metrics))
    oracle = (inputs.summary.get("oracle") or {}).get(output.name)
    if oracle:
        rows.append(_reference_row("oracle", output, {m: {"value": v} for m, v in oracle.items()}))
    if any(bounds.values()):
        gates = [_gate_cell(bounds[metric]) for metric in output.metrics]
        rows.append(Row((Cell("gate"), *gates), tone="muted"))
    headers = [Cell("Model")]
    for metric in output.metrics:
        unit = f.metric_unit(metric, output.kind)
        direction = f.metric_direction(metric)
        headers.append(Cell(f.metric_label(metric) + (f" ({unit})" if unit else ""), direction))
    return Table(f"{output.name}: metrics on the test window", tuple(headers), tuple(rows))


def _gate_cell(bounds: Sequence[GateRow]) -> Cell:
    if not bounds:
        return Cell(f.ABSENT)
    return Cell(bounds[0].bound, ", ".join(row.bound for row in bounds[1:]))


def _reference_row(text: str, output: Output, metrics: Json) -> Row:
    cells = [Cell(text)]
    for metric in output.metrics:
        measured = metrics.get(metric) or {}
        cells.append(Cell(f.number(measured.get("value")), f.bounds(measured)))
    return Row(tuple(cells), tone="muted")


def _figure(
    inputs: ReportInputs,
    output: Output,
    metric: str,
    bounds: Sequence[GateRow],
    colors: style.CandidateColors,
) -> Figure:
    measured = {n: inputs.metric(n, output.name, metric) for n in inputs.candidates}
    oracle = ((inputs.summary.get("oracle") or {}).get(output.name) or {}).get(metric)
    unit = f.metric_unit(metric, output.kind)
    title = f"{output.name}: {f.metric_label(metric)}" + (f" ({unit})" if unit else "")
    told = [f"{name} {f.interval(m)}" for name, m in measured.items()]
    told += [f"gate {row.bound}" for row in bounds]
    told += [f"oracle {f.number(oracle)}"] if oracle is not None else []
    svg = inline_svg(interval_chart(measured, bounds, oracle, colors), title, "; ".join(told))
    return Figure(title, svg, f.metric_direction(metric))


def interval_chart(
    measured: dict[str, Json],
    bounds: Sequence[GateRow],
    oracle: float | None,
    colors: style.CandidateColors,
    zero_line: bool = False,
) -> style.Spec:
    """Draws a value with its interval per candidate, and reference lines.

    Args:
        measured: ``{value, low, high}`` by candidate; a candidate without a value is left out.
        bounds: Gates, drawn as dashed lines.
        oracle: Best possible value, drawn as a dotted line.
        colors: Colours by candidate.
        zero_line: Whether to mark 0, for differences.
    """
    rows = [
        {
            "candidate": name,
            "value": m["value"],
            "low": m["value"] if m.get("low") is None else m["low"],
            "high": m["value"] if m.get("high") is None else m["high"],
        }
        for name, m in measured.items()
        if m.get("value") is not None
    ]
    y = style.names_channel("candidate", list(measured))
    scale = {"zero": False, "nice": True, "padding": 8}
    value, low = (style.number_channel(end, scale=scale) for end in ("value", "low"))
    color = colors.channel()
    layers = [
        style.layer(
            "rule",
            {"strokeWidth": 2.5, "opacity": 0.55},
            {"y": y, "x": low, "x2": {"field": "high"}, "color": color},
        ),
        style.layer(
            "point",
            {"filled": True, "size": 60, "opacity": 1},
            {"y": y, "x": value, "color": color},
        ),
    ]
    layers += [
        style.vertical_line(bound.threshold, style.BAD, (5, 3))
        for bound in bounds
        if bound.threshold is not None
    ]
    if oracle is not None:
        layers.append(style.vertical_line(oracle, style.QUIET, (1, 3)))
    if zero_line:
        layers.append(style.vertical_line(0.0, style.INK))
    return style.chart(rows, layers, height=max(60, 24 * len(rows) + 12))
