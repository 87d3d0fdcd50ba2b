"""Component times: where a run spends its time and memory, and what it re-used."""

from __future__ import annotations

from components.report import chart_style as style
from components.report import formatting as f
from components.report.blocks import (
    Block,
    Cell,
    Disclosure,
    Figure,
    Figures,
    Legend,
    Notice,
    Row,
    Section,
    Table,
)
from components.report.inputs import Json, ReportInputs
from components.report.svg import inline_svg

_COLORS = {
    "ran": style.ACCENT,
    "re-used": style.QUIET,
    "failed": style.BAD,
    "not run": "var(--line)",
}


def section(inputs: ReportInputs) -> Section:
    """Shows the time of every component in the order they ran."""
    components = list(inputs.summary.get("components") or [])
    blocks: list[Block] = []
    used = {_outcome(component) for component in components}
    if components:
        blocks += [
            Legend(tuple((n, c) for n, c in _COLORS.items() if n in used)),
            Figures((_figure(components),), wide=True),
            Disclosure("Times and memory", (_table(components),)),
        ]
    else:
        blocks.append(Notice(f"No component times: {inputs.why_absent()}."))
    return Section(
        anchor="components",
        title="Component times",
        lead="Wall-clock seconds per component, in the order they ran.",
        blocks=tuple(blocks),
    )


def _outcome(component: Json) -> str:
    if str(component.get("state", "")).lower() == "failed":
        return "failed"
    if str(component.get("state", "")).lower() == "not_run":
        return "not run"
    return "re-used" if component.get("cached") else "ran"


def _told(component: Json) -> str:
    outcome = _outcome(component)
    if outcome == "not run":
        return outcome
    time = f.seconds(component.get("seconds"))
    return time if outcome == "ran" else f"{time}, {outcome}"


def _figure(components: list[Json]) -> Figure:
    rows: list[style.Spec] = [
        {
            "component": str(c.get("name")),
            "seconds": float(c.get("seconds") or 0.0),
            "outcome": _outcome(c),
            "text": _told(c),
        }
        for c in components
    ]
    longest = max(row["seconds"] for row in rows) or 1.0
    place = {
        "y": style.names_channel(
            "component", [row["component"] for row in rows], domain=False, labelLimit=220
        ),
        # Room for the figure behind the longest bar.
        "x": style.number_channel(
            "seconds", "seconds", scale={"domain": [0, 1.2 * longest], "nice": False}
        ),
    }
    layers = [
        style.layer(
            "bar",
            {"height": 11, "opacity": 0.85},
            {**place, "color": style.color_channel("outcome", _COLORS)},
        ),
        style.layer(
            "text",
            {"align": "left", "dx": 5, "fontSize": 11, "color": style.INK, "opacity": 0.8},
            {**place, "text": {"field": "text", "type": "nominal"}},
        ),
    ]
    title = "Seconds per component"
    told = "; ".join(f"{row['component']} {row['text']}" for row in rows)
    svg = inline_svg(style.chart(rows, layers, width=400, height=18 * len(rows)), title, told)
    return Figure(title, svg)


def _table(components: list[Json]) -> Table:
    headers = ("Component", "State", "Wall clock", "CPU", "Peak memory")
    rows = tuple(
        Row(
            (
                Cell(str(c.get("name"))),
                Cell(_outcome(c)),
                Cell(f.seconds(c.get("seconds"))),
                Cell(f.seconds(c.get("cpu_seconds"))),
                Cell(f.mebibytes(c.get("peak_rss_bytes"))),
            )
        )
        for c in components
    )
    return Table("Components", tuple(Cell(h) for h in headers), rows, num_text=2)
