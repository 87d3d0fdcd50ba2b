"""Label rate by day: whether the outcome itself moved, and which labels are not final yet."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from statistics import median
from typing import Any

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
from models.spec.task import Output

_MIN_SHARE = 0.1
"""Days with fewer mature rows than this share of the median day's are not drawn: where one split's
labels are immature, the day may have a few seconds of the next one, and any rate at all."""
_SPLIT_COLORS = {
    "train": style.QUIET,
    "validation": "var(--series-6)",
    "test": style.INK,
    "outside": "var(--line)",
}


def section(inputs: ReportInputs) -> Section:
    """Shows rate or mean of every output's label per day."""
    labels: Json = (inputs.accounts or {}).get("labels") or {}
    blocks: list[Block] = []
    figures, tables = [], []
    seen: set[str] = set()
    for output in inputs.ranking.all_outputs:
        counted = labels.get(output.name) or {}
        rows = _day_rows(counted.get("by_day") or {}, inputs.summary.get("window") or {})
        if any(row["rate"] is not None for row in rows):
            figures.append(_figure(output, rows))
            seen |= {row["split"] for row in rows}
        if counted:
            tables.append(_table(output, counted))
    if figures:
        blocks += [
            Legend(tuple((n, color) for n, color in _SPLIT_COLORS.items() if n in seen)),
            Figures(tuple(figures)),
        ]
    else:
        blocks.append(Notice(f"No label rates by day: {inputs.why_absent()}."))
    if tables:
        blocks.append(Disclosure("Rows, mature labels and rates by split and day", tuple(tables)))
    return Section(
        anchor="labels",
        title="Labels by day",
        lead="Mean label of the rows whose attribution window has closed. A row that is not mature "
        "is masked, never counted as a negative. Days are UTC; those with few mature rows are in "
        "the table only.",
        blocks=tuple(blocks),
    )


def _day_rows(by_day: Mapping[str, Json], window: Json) -> list[dict[str, Any]]:
    mature = {day: counted.get("mature") or 0 for day, counted in sorted(by_day.items())}
    least = _MIN_SHARE * median([count for count in mature.values() if count] or [0])
    return [
        {
            "day": day,
            "rate": _rate(by_day[day]) if count >= least else None,
            "split": _split_of(day, window),
        }
        for day, count in mature.items()
    ]


def _rate(counted: Json) -> float | None:
    mature = counted.get("mature") or 0
    return float(counted.get("sum") or 0.0) / mature if mature else None


def _split_of(day: str, window: Json) -> str:
    try:
        noon = datetime.fromisoformat(day).replace(tzinfo=timezone.utc) + timedelta(hours=12)
    except ValueError:
        return "outside"
    for split in ("train", "validation", "test"):
        first, last = (f.as_time(t) for t in window.get(split) or (None, None))
        if first is not None and last is not None and first <= noon < last:
            return split
    return "outside"


def _figure(output: Output, rows: list[dict[str, Any]]) -> Figure:
    drawn = [row for row in rows if row["rate"] is not None]
    what = {"binary": "rate", "duration": "mean (s)"}.get(output.kind, "mean")
    axis = {"format": ".1~%"} if output.kind == "binary" else {}
    day: style.Spec = {
        "field": "day",
        "type": "ordinal",
        "title": None,
        "scale": {"domain": [row["day"] for row in rows]},
        "axis": {
            "labelExpr": "slice(datum.label, 5)",
            "labelAngle": 0,
            "grid": False,
        },
    }
    rate = style.number_channel("rate", scale={"zero": True}, **axis)
    layers = [
        style.layer("line", {"strokeWidth": 1.2, "color": style.QUIET}, {"x": day, "y": rate}),
        style.layer(
            "point",
            {"filled": True, "size": 45, "opacity": 1},
            {"x": day, "y": rate, "color": style.color_channel("split", _SPLIT_COLORS)},
        ),
    ]
    title = f"{output.name}: label {what} by day"
    told = "; ".join(f"{row['day']} {f.number(row['rate'])}" for row in drawn)
    return Figure(title, inline_svg(style.chart(drawn, layers), title, told))


def _table(output: Output, counted: Json) -> Table:
    rows = []
    for group in ("by_split", "by_day"):
        for name, each in sorted((counted.get(group) or {}).items()):
            total, mature = each.get("rows"), each.get("mature")
            rate = _rate(each)
            is_rate = output.kind == "binary"
            cells = (
                Cell(str(name)),
                Cell(f.count(total)),
                Cell(f.count(mature)),
                Cell(f.share(1 - mature / total) if total and mature is not None else f.ABSENT),
                Cell(f.share(rate) if is_rate else f.number(rate)),
            )
            rows.append(Row(cells, tone="" if group == "by_split" else "muted"))
    unit = {"binary": "Rate", "duration": "Mean (s)"}.get(output.kind, "Mean")
    headers = ("Split or day", "Rows", "Mature", "Not mature", unit)
    return Table(output.name, tuple(Cell(h) for h in headers), tuple(rows))
