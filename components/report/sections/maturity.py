"""How labels fill in, what waiting for them costs in freshness, and what is trained on."""

from __future__ import annotations

from typing import Any

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
)
from components.report.inputs import Json, ReportInputs
from components.report.svg import inline_svg

_HOUR_MS = 3_600_000


def section(inputs: ReportInputs) -> Section:
    """Shows the share of final labels known by age per task, and sampled negatives."""
    accounts: Json = inputs.accounts or {}
    curves: Json = accounts.get("maturity") or {}
    drawn = {name: found for name, found in curves.items() if _total(found)}
    blocks: list[Block] = []
    if drawn:
        blocks.append(Figures(tuple(_figure(name, found) for name, found in drawn.items())))
        blocks += [_table(inputs, name, found) for name, found in drawn.items()]
    elif inputs.accounts is None:
        blocks.append(Notice(f"No maturity curves: {inputs.why_absent()}."))
    else:
        blocks.append(Notice("No task's target joins a stream: how labels fill in is not known."))
    if accounts.get("sampling"):
        blocks += [Heading("Negatives trained on"), _sampling(inputs, accounts["sampling"])]
    return Section(
        anchor="maturity",
        title="Label maturity",
        lead="Of the labels of impressions whose attribution window has closed: the share that was "
        "final by each age. A cut-off at an age trades the labels still missing then for fresher "
        "rows.",
        blocks=tuple(blocks),
    )


def _total(found: Json) -> int:
    return int(found["ages"][-1]["known"]) if found.get("ages") else 0


def _figure(name: str, found: Json) -> Figure:
    total = _total(found)
    rows = [{"hours": 0.0, "known": 0.0}]
    rows += [
        {"hours": each["age_ms"] / _HOUR_MS, "known": each["known"] / total}
        for each in found["ages"]
    ]
    encoding: style.Spec = {
        "x": style.number_channel("hours", "hours after the impression"),
        "y": style.number_channel("known", scale={"domain": [0, 1]}, format=".0%"),
    }
    layers = [
        style.layer("line", {"strokeWidth": 1.5, "color": style.ACCENT}, encoding),
        style.layer("point", {"filled": True, "size": 25, "color": style.ACCENT}, encoding),
    ]
    title = f"{name}: share of final labels known"
    told = "; ".join(f"{_age(row['hours'])} {f.share(row['known'])}" for row in rows[1:])
    return Figure(title, inline_svg(style.chart(rows, layers), title, told))


def _table(inputs: ReportInputs, name: str, found: Json) -> Table:
    """Cut-off against freshness: what a label read at each age would know."""
    total, task = _total(found), inputs.ranking.tasks.get(name)
    split = ((inputs.accounts or {}).get("labels") or {}).get(name) or {}
    train = ((split.get("by_split") or {}).get("train") or {}).get("rows")
    last = len(found["ages"]) - 1
    rows = []
    for place, each in enumerate(found["ages"]):
        known = each["known"] / total
        cells = (
            Cell(_age(each["age_ms"] / _HOUR_MS)),
            Cell(f.share(known)),
            Cell(f.share(1 - known)),
            Cell(f.count(each["rows"])),
            Cell(f.share(each["rows"] / train) if train else f.ABSENT),
        )
        declared = "declared window" if place == last else ""
        rows.append(Row(cells, mark=declared, tone="" if place == last else "muted"))
    treatment = (
        "taken as they arrive, with fake negatives"
        if task is not None and task.takes_fake_negatives
        else "masked until the window has closed"
    )
    headers = (
        Cell("Label read at age"),
        Cell("Final labels known"),
        Cell("Still missing"),
        Cell("Train rows that old"),
        Cell("Of all"),
    )
    return Table(f"{name}: cut-off against freshness; labels are {treatment}", headers, tuple(rows))


def _sampling(inputs: ReportInputs, sampling: Json) -> Table:
    rows = []
    for name, counts in sorted(sampling.items()):
        task: Any = inputs.ranking.tasks.get(name)
        cells = (
            Cell(name),
            Cell(f.share(task.negative_rate) if task is not None else f.ABSENT),
            Cell(f.count(counts["negatives"])),
            Cell(f.count(counts["kept"])),
        )
        rows.append(Row(cells))
    headers = (Cell("Task"), Cell("Declared rate"), Cell("Negatives"), Cell("Kept"))
    return Table("Kept by a hash of the key; the loss corrects the logit", headers, tuple(rows))


def _age(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.3g} h"
    minutes = hours * 60
    return f"{minutes:.3g} min" if minutes >= 1 else f"{minutes * 60:.3g} s"
