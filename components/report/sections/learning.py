"""Learning curves: training loss per task and what validation made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from components.report.headline import headline_metric
from components.report.inputs import Json, ReportInputs
from components.report.svg import inline_svg

Curves = Mapping[str, Sequence[tuple[int, float]]]
"""Candidate to (epoch, value)."""


def section(inputs: ReportInputs) -> Section:
    """Shows how every candidate learnt every task."""
    blocks: list[Block] = []
    if not inputs.training:
        blocks.append(Notice(f"No learning curves: {inputs.why_absent()}."))
    else:
        colors = style.CandidateColors(tuple(inputs.training), inputs.champion)
        best = {n: t.get("best_epoch") for n, t in inputs.training.items()}
        blocks += [_table(inputs), colors.legend()]
        loss = [("total", "all tasks")] + [(name, name) for name in sorted(inputs.ranking.tasks)]
        blocks += [
            Heading("Training loss"),
            Figures(
                _figures(
                    [
                        (f"{text}: training loss", "lower is better", _loss(inputs, key))
                        for key, text in loss
                    ],
                    best,
                    colors,
                )
            ),
            *_penalties(inputs, best, colors),
            Heading("Validation"),
            Figures(_figures(_validation(inputs), best, colors)),
        ]
        weights = [
            (f"{task}: weight of the loss", "", _weights(inputs, task))
            for task in sorted(inputs.ranking.tasks)
        ]
        if any(len({w for _, w in points}) > 1 for *_, c in weights for points in c.values()):
            blocks += [
                Heading("Task weights"),
                Figures(_figures(weights, best, colors)),
            ]
    return Section(
        anchor="learning",
        title="Learning curves",
        lead="Per epoch. The filled point marks the epoch whose weights are exported. Losses of "
        "different tasks have different scales.",
        blocks=tuple(blocks),
    )


def _table(inputs: ReportInputs) -> Table:
    headers = ["Model", "Architecture", "Balancer", "Auxiliary tasks", "Parameters", "Epochs"]
    headers += ["Best epoch", "Training time", "Examples per second"]
    rows = []
    for name, training in inputs.training.items():
        auxiliary = training.get("auxiliary")
        cells = (
            Cell(name),
            Cell(str(training.get("architecture") or f.ABSENT)),
            Cell(str((training.get("balancer") or {}).get("kind") or f.ABSENT)),
            Cell(f.ABSENT if auxiliary is None else "on" if auxiliary else "off"),
            Cell(f.count(training.get("parameters"))),
            Cell(f.count(len(training.get("epochs") or ()))),
            Cell(f.count(training.get("best_epoch"))),
            Cell(f.seconds(training.get("train_seconds"))),
            Cell(f.count(training.get("examples_per_second"))),
        )
        rows.append(Row(cells, mark="champion" if name == inputs.champion else ""))
    return Table("Training", tuple(Cell(h) for h in headers), tuple(rows), num_text=4)


def _penalties(
    inputs: ReportInputs, best: Mapping[str, Any], colors: style.CandidateColors
) -> list[Block]:
    """Draws what architectures add to the objective beside the tasks' losses, if any does."""
    names = sorted(
        {
            name
            for training in inputs.training.values()
            for _, record in _epochs(training)
            for name in record.get("penalties") or {}
        }
    )
    figures = _figures(
        [
            (f"{name}: penalty", "part of the objective, not of a task", _penalty(inputs, name))
            for name in names
        ],
        best,
        colors,
    )
    return [Heading("Penalties"), Figures(figures)] if figures else []


def _penalty(inputs: ReportInputs, name: str) -> Curves:
    return {
        candidate: [
            (epoch, record["penalties"][name])
            for epoch, record in _epochs(training)
            if (record.get("penalties") or {}).get(name) is not None
        ]
        for candidate, training in inputs.training.items()
    }


def _epochs(training: Json) -> list[tuple[int, Json]]:
    return [(int(e.get("epoch", i)), e) for i, e in enumerate(training.get("epochs") or ())]


def _loss(inputs: ReportInputs, key: str) -> Curves:
    return {
        name: [
            (epoch, record["train_loss"][key])
            for epoch, record in _epochs(training)
            if (record.get("train_loss") or {}).get(key) is not None
        ]
        for name, training in inputs.training.items()
    }


def _weights(inputs: ReportInputs, task: str) -> Curves:
    """What the balancers made of the weight of a task."""
    return {
        name: [
            (epoch, record["task_weights"][task])
            for epoch, record in _epochs(training)
            if (record.get("task_weights") or {}).get(task) is not None
        ]
        for name, training in inputs.training.items()
    }


def _validation(inputs: ReportInputs) -> list[tuple[str, str, Curves]]:
    objective = {
        name: [(e, r["objective"]) for e, r in _epochs(t) if r.get("objective") is not None]
        for name, t in inputs.training.items()
    }
    found: list[tuple[str, str, Curves]] = [("objective", "higher is better", objective)]
    for output in inputs.ranking.outputs:
        metric = headline_metric(output, inputs.ranking)
        curves = {
            name: [
                (epoch, value)
                for epoch, record in _epochs(training)
                if (value := _measured(record, output.name, metric)) is not None
            ]
            for name, training in inputs.training.items()
        }
        title = f"{output.name}: {f.metric_label(metric)} on validation"
        found.append((title, f.metric_direction(metric), curves))
    return found


def _measured(record: Json, output: str, metric: str) -> float | None:
    value = ((record.get("validation") or {}).get(output) or {}).get(metric)
    return float(value) if isinstance(value, int | float) else None


def _figures(
    curves: Sequence[tuple[str, str, Curves]],
    best: Mapping[str, Any],
    colors: style.CandidateColors,
) -> tuple[Figure, ...]:
    return tuple(
        Figure(title, inline_svg(_chart(found, best, colors), title, _told(found)), note)
        for title, note, found in curves
        if any(found.values())
    )


def _told(curves: Curves) -> str:
    return "; ".join(
        f"{name} from {f.number(points[0][1])} to {f.number(points[-1][1])}"
        for name, points in curves.items()
        if points
    )


def _chart(curves: Curves, best: Mapping[str, Any], colors: style.CandidateColors) -> style.Spec:
    rows = [
        {"candidate": name, "epoch": epoch, "value": value, "best": epoch == best.get(name)}
        for name, points in curves.items()
        for epoch, value in points
    ]
    epochs = sorted({epoch for points in curves.values() for epoch, _ in points})
    ticks = epochs[:: max(1, -(-len(epochs) // 10))]
    values = {row["value"] for row in rows}
    # One value makes no scale: the axis would show it rounded to an integer.
    only: style.Spec = {"values": list(values), "format": ".3~g"} if len(values) == 1 else {}
    curve = {
        "x": style.number_channel(
            "epoch", "epoch", values=ticks, tickCount=len(ticks), grid=False, format="d"
        ),
        "y": style.number_channel("value", scale={"zero": False}, **only),
        "color": colors.channel(),
    }
    layers = [
        style.layer("line", {"strokeWidth": 1.8}, curve),
        style.layer("point", {"filled": True, "size": 14, "opacity": 0.8}, curve),
        style.layer("point", {"filled": True, "size": 75, "opacity": 1}, curve, where="datum.best"),
    ]
    return style.chart(rows, layers)
