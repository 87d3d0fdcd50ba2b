"""Calibration per task: what was predicted and what happened, in bins of equal weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from components.report import chart_style as style
from components.report import formatting as f
from components.report.blocks import Block, Figure, Figures, Notice, Section
from components.report.headline import space_of
from components.report.inputs import ReportInputs
from components.report.svg import inline_svg
from models.metrics.columns import FloatArray
from models.spec.task import Output

NUM_BINS = 10
_LOG_RANGE = 20.0


@dataclass(frozen=True)
class Bin:
    """Rows with neighbouring predictions.

    Attributes:
        predicted: Weighted mean prediction.
        observed: Weighted mean label.
        weight: Sum of weights.
    """

    predicted: float
    observed: float
    weight: float


def reliability_bins(label: FloatArray, prediction: FloatArray, weight: FloatArray) -> list[Bin]:
    """Bins rows by prediction into `NUM_BINS` of about equal weight; equal predictions share one.

    A row belongs to bin floor(10 (W_below + W_tied / 2) / W), as for the metric `ece`.

    Args:
        label: Float [rows]; above 0 is a positive where the task is binary.
        prediction: Float [rows].
        weight: Float [rows]; rows with weight 0 are left out.

    Returns:
        The bins that hold a row, by rising prediction.
    """
    present = weight > 0
    label, prediction, weight = label[present], prediction[present], weight[present]
    if not len(label):
        return []
    order = np.argsort(prediction, kind="stable")
    label, prediction, weight = label[order], prediction[order], weight[order]
    _, run = np.unique(prediction, return_inverse=True)
    tied = np.bincount(run, weight)
    share = (np.cumsum(tied) - tied / 2) / tied.sum()
    bin_of_row = np.minimum(np.floor(NUM_BINS * share).astype(np.int64), NUM_BINS - 1)[run]
    total = np.bincount(bin_of_row, weight, NUM_BINS)
    predicted = np.bincount(bin_of_row, weight * prediction, NUM_BINS)
    observed = np.bincount(bin_of_row, weight * label, NUM_BINS)
    return [
        Bin(float(predicted[b] / total[b]), float(observed[b] / total[b]), float(total[b]))
        for b in np.flatnonzero(total)
    ]


def section(inputs: ReportInputs) -> Section:
    """Shows one reliability curve per output with all candidates."""
    curves = _curves(inputs)
    blocks: list[Block] = []
    if curves:
        colors = style.CandidateColors(tuple(curves), inputs.champion)
        blocks.append(colors.legend())
        figures = [
            _figure(inputs, output, {n: c[output.name] for n, c in curves.items()}, colors)
            for output in inputs.ranking.outputs
            if any(c[output.name] for c in curves.values())
        ]
        blocks.append(Figures(tuple(figures)))
        for output in inputs.ranking.outputs:
            if not any(c[output.name] for c in curves.values()):
                blocks.append(Notice(f"{output.name}: no test row has a label."))
    else:
        blocks.append(Notice(f"No predictions: {inputs.why_absent()}."))
    return Section(
        anchor="calibration",
        title="Calibration",
        lead=f"Test rows in {NUM_BINS} bins of equal weight by prediction: mean prediction across, "
        "mean outcome up. On the dashed diagonal, predictions have the right size.",
        blocks=tuple(blocks),
    )


def _curves(inputs: ReportInputs) -> dict[str, dict[str, list[Bin]]]:
    suffixes = ("label", "weight", "prediction")
    columns = [f"{o.name}__{suffix}" for o in inputs.ranking.outputs for suffix in suffixes]
    curves = {}
    for name, path in inputs.predictions.items():
        table = pq.read_table(path, columns=columns, filters=[("split", "=", "test")])
        curves[name] = {
            output.name: reliability_bins(
                *(
                    _outcome(table[f"{output.name}__{suffix}"], suffix, output)
                    for suffix in ("label", "prediction", "weight")
                )
            )
            for output in inputs.ranking.outputs
        }
    return curves


def _outcome(column: Any, suffix: str, output: Output) -> FloatArray:
    values: FloatArray = np.nan_to_num(column.to_numpy().astype(np.float64))
    is_class = suffix == "label" and output.kind == "binary"
    return (values > 0).astype(np.float64) if is_class else values


def _figure(
    inputs: ReportInputs,
    output: Output,
    bins: Mapping[str, list[Bin]],
    colors: style.CandidateColors,
) -> Figure:
    rows = [
        {
            "candidate": name,
            "predicted": b.predicted,
            "observed": b.observed,
            "main": name == inputs.champion or len(bins) == 1,
        }
        for name, found in bins.items()
        for b in found
    ]
    unit = {"binary": "rate", "duration": "mean, s"}.get(output.kind, "mean")
    extent = [v for found in bins.values() for b in found for v in (b.predicted, b.observed)]
    low, high = min(extent), max(extent)
    is_log = low > 0 and high / low > _LOG_RANGE
    domain = [low / 1.2, high * 1.2] if is_log else [min(low, 0.0), high * 1.05 or 1.0]
    scale = {"type": "log" if is_log else "linear", "domain": domain, "nice": False}
    axis = {"format": "~g", "grid": False} if is_log else {}
    x = style.number_channel("predicted", f"predicted {unit}", scale=scale, **axis)
    y = style.number_channel("observed", f"observed {unit}", scale=scale, **axis)
    order = {"field": "predicted", "type": "quantitative"}
    opacity = {"condition": {"test": "datum.main", "value": 1.0}, "value": 0.4}
    curve = {"x": x, "y": y, "color": colors.channel(), "opacity": opacity}
    layers = [
        style.layer(
            "line",
            {"strokeDash": [5, 3], "color": style.QUIET, "strokeWidth": 1},
            {"x": x, "y": y},
            rows=[{"predicted": end, "observed": end} for end in domain],
        ),
        style.layer("line", {"strokeWidth": 1.5}, {**curve, "order": order}),
        style.layer("point", {"filled": True, "size": 32}, curve),
    ]
    title = f"{output.name}: predicted and observed"
    told = "; ".join(
        f"{name} highest bin predicted {f.number(found[-1].predicted)}, "
        f"observed {f.number(found[-1].observed)}"
        for name, found in bins.items()
        if found
    )
    note = space_of(output, inputs.ranking) + ("; logarithmic axes" if is_log else "")
    chart = style.chart(rows, layers, height=style.PANEL_WIDTH)
    return Figure(title, inline_svg(chart, title, told), note)
