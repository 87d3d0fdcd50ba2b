"""Inside the models: which experts a task uses, and how much tasks borrow from each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from components.report import chart_style as style
from components.report import formatting as f
from components.report.blocks import Block, Figure, Figures, Notice, Section
from components.report.inputs import Json, ReportInputs
from components.report.svg import inline_svg

_CELL = 42
_MAX_WIDTH = 560


def section(inputs: ReportInputs) -> Section:
    """Shows expert utilisation and stitch matrices of the candidates that have them."""
    blocks: list[Block] = []
    for draw in (_experts, _stitches):
        figures = [figure for n, i in inputs.insights.items() for figure in draw(n, i)]
        if figures:
            blocks.append(Figures(tuple(figures)))
    if not blocks:
        why = (
            "no candidate has experts or stitches"
            if inputs.insights or inputs.candidates
            else inputs.why_absent()
        )
        blocks.append(Notice(f"Nothing to show: {why}."))
    return Section(
        anchor="internals",
        title="Inside the models",
        lead="Mean gate weight per task and expert: a row with one dark cell uses one expert, an "
        "even row uses all alike. Stitches: how much of each task's activation (column) flows into "
        "a task (row) after a layer; negative weights are red.",
        blocks=tuple(blocks),
    )


def _experts(name: str, insights: Json) -> list[Figure]:
    utilization: Json = insights.get("expert_utilization") or {}
    if not utilization:
        return []
    rows = [
        {"row": task, "column": f"expert {index + 1}", "value": value}
        for task, shares in utilization.items()
        for index, value in enumerate(shares)
    ]
    num_experts = max(len(shares) for shares in utilization.values())
    columns = [f"expert {index + 1}" for index in range(num_experts)]
    entropy: Json = insights.get("gate_entropy") or {}
    title = f"{name}: expert use per task"
    uniform = f.number(math.log(num_experts), 2) if num_experts > 1 else "0"
    note = ""
    if entropy:
        told = ", ".join(f"{task} {f.number(value, 2)}" for task, value in entropy.items())
        note = f"Gate entropy in nats ({uniform} is even use): {told}"
    return [_heat_map(title, rows, list(utilization), columns, note)]


def _stitches(name: str, insights: Json) -> list[Figure]:
    figures = []
    for stitch in insights.get("stitches") or []:
        tasks = [str(task) for task in stitch.get("tasks") or []]
        rows = [
            {"row": into, "column": source, "value": value}
            for into, weights in zip(tasks, stitch.get("matrix") or [], strict=False)
            for source, value in zip(tasks, weights, strict=False)
        ]
        title = f"{name}: stitches after layer {int(stitch.get('layer') or 0) + 1}"
        if rows:
            figures.append(_heat_map(title, rows, tasks, tasks, ""))
    return figures


def _heat_map(
    title: str,
    rows: Sequence[dict[str, Any]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    note: str,
) -> Figure:
    # The darkest cell keeps half its ground, so that the figure on it stays readable.
    largest = max(abs(row["value"]) for row in rows) or 1.0
    cells = [
        {
            **row,
            "strength": 0.55 * abs(row["value"]) / largest,
            "sign": "negative" if row["value"] < 0 else "positive",
            "text": f.number(row["value"], 2),
        }
        for row in rows
    ]
    place = {
        "x": style.names_channel(
            "column", column_names, orient="top", labelAngle=-35, domain=False, labelLimit=90
        ),
        "y": style.names_channel("row", row_names, domain=False),
    }
    fill = style.color_channel("sign", {"positive": style.ACCENT, "negative": style.BAD})
    strength = {"field": "strength", "type": "quantitative", "scale": None, "legend": None}
    layers = [
        style.layer(
            "rect",
            {"stroke": "var(--page)", "strokeWidth": 2},
            {**place, "fill": fill, "fillOpacity": strength},
        ),
        style.layer(
            "text",
            {"fontSize": 11, "color": style.INK},
            {**place, "text": {"field": "text", "type": "nominal"}},
        ),
    ]
    width = min(_MAX_WIDTH, _CELL * len(column_names))
    chart = style.chart(cells, layers, width=width, height=30 * len(row_names))
    told = "; ".join(f"{c['row']}, {c['column']}: {c['text']}" for c in cells)
    return Figure(title, inline_svg(chart, title, told), note)
