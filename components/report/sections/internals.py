"""Inside the models: what a task reads, row by row, and what flows between tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from components.report import chart_style as style
from components.report import formatting as f
from components.report.blocks import Block, Figure, Figures, Heading, Notice, Section
from components.report.inputs import Json, ReportInputs
from components.report.svg import inline_svg

_CELL = 42
_MAX_WIDTH = 560


def section(inputs: ReportInputs) -> Section:
    """Shows mixtures and matrices of the candidates that have them."""
    blocks: list[Block] = []
    sliced = _slice_features(inputs)
    for name, insights in inputs.insights.items():
        for mixture in insights.get("mixtures") or []:
            blocks += _mixture(name, mixture, sliced)
    matrices = [
        _matrix(name, matrix)
        for name, insights in inputs.insights.items()
        for matrix in insights.get("matrices") or []
    ]
    if matrices:
        blocks += [Heading("What was learnt to flow where"), Figures(tuple(matrices))]
    if not blocks:
        why = (
            "no candidate has gates, attention or stitches"
            if inputs.insights or inputs.candidates
            else inputs.why_absent()
        )
        blocks.append(Notice(f"Nothing to show: {why}."))
    return Section(
        anchor="internals",
        title="Inside the models",
        lead="Gates and attention, mean over the validation rows: a row with one dark cell uses "
        "one source, an even row uses all alike; rows that differ between slices are what a gate "
        "is for. Matrices: how much of a column flows into a row; negative weights are red.",
        blocks=tuple(blocks),
    )


def _slice_features(inputs: ReportInputs) -> set[str]:
    """Names of the declared slices; where none was measured, every feature is shown."""
    return {
        key.partition("=")[0]
        for name in inputs.candidates
        for key in inputs.candidate(name).get("slices") or {}
    }


def _mixture(candidate: str, mixture: Json, sliced: set[str]) -> list[Block]:
    """Draws one mixture over all rows, and by the values of features."""
    sources = [_spaced(source) for source in mixture["sources"]]
    rows = _rows(mixture["weights"], sources)
    title = f"{candidate}: {mixture['name']}"
    overall = _heat_map(title, rows, list(mixture["weights"]), sources, _entropy(mixture))
    figures = [overall]
    for feature, values in (mixture.get("slices") or {}).items():
        if not sliced or feature in sliced:
            weights = {
                f"{who}, {value}": part["weights"][who]
                for who in mixture["weights"]
                for value, part in values.items()
            }
            told = ", ".join(f"{value}: {f.count(p['num_rows'])}" for value, p in values.items())
            figures.append(
                _heat_map(
                    f"{title}, by {feature}",
                    _rows(weights, sources),
                    list(weights),
                    sources,
                    f"Rows per value: {told}",
                )
            )
    unused = mixture.get("unused") or []
    blocks: list[Block] = [Figures(tuple(figures))]
    if unused:
        named = ", ".join(_spaced(source) for source in unused)
        blocks.append(
            Notice(
                f"{title}: unused (under 1 % of the weight): {named}. Try fewer of them, or a "
                "balance loss."
            )
        )
    return blocks


def _entropy(mixture: Json) -> str:
    num_sources = len(mixture["sources"])
    uniform = f.number(math.log(num_sources), 2) if num_sources > 1 else "0"
    told = ", ".join(f"{who} {f.number(x, 2)}" for who, x in mixture["entropy"].items())
    return f"Entropy of a row's weights in nats ({uniform} is even use): {told}"


def _matrix(candidate: str, matrix: Json) -> Figure:
    rows = _rows(dict(zip(matrix["rows"], matrix["values"], strict=True)), matrix["columns"])
    return _heat_map(f"{candidate}: {matrix['name']}", rows, matrix["rows"], matrix["columns"], "")


def _rows(weights: Mapping[str, Sequence[float]], sources: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"row": who, "column": source, "value": value}
        for who, values in weights.items()
        for source, value in zip(sources, values, strict=True)
    ]


def _spaced(name: str) -> str:
    return name.replace("_", " ")


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
