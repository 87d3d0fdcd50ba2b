"""Paired differences: against single_task, against the floors, with and without auxiliary tasks."""

from __future__ import annotations

from collections.abc import Mapping

from components.report import chart_style as style
from components.report import formatting as f
from components.report.blocks import (
    Block,
    Cell,
    Disclosure,
    Figure,
    Figures,
    Heading,
    Notice,
    Paragraph,
    Row,
    Section,
    Table,
)
from components.report.floor_scores import FLOORS
from components.report.headline import headline_metric
from components.report.inputs import Json, ReportInputs
from components.report.outcome import difference_cell
from components.report.sections.metrics import interval_chart
from components.report.svg import inline_svg

_REFERENCE_NAMES = {"popularity": "the popularity floor", "linear": "the linear floor"}


def section(inputs: ReportInputs) -> Section:
    """Shows what sharing, personalisation and auxiliary tasks bring."""
    data = inputs.report_data
    blocks: list[Block] = []
    if data is None:
        blocks.append(Notice(f"No comparisons: {inputs.why_absent()}."))
    else:
        colors = style.CandidateColors(inputs.candidates, inputs.champion)
        blocks += [Notice(note) for note in data.get("notes") or []]
        for reference in _references(data):
            blocks += _against(inputs, data, reference, colors)
        for pair in data.get("auxiliary") or []:
            blocks += _auxiliary(inputs, pair)
    rows = f.count((data or {}).get("rows"))
    replicates = f.count((data or {}).get("num_replicates"))
    return Section(
        anchor="comparisons",
        title="Comparisons",
        lead="Candidate minus reference on the same test rows"
        + (f" ({rows} rows, {replicates} resamples of users)." if data else "."),
        blocks=tuple(blocks),
    )


def _references(data: Json) -> list[str]:
    found = {name for compared in (data.get("comparisons") or {}).values() for name in compared}
    return sorted(found, key=lambda name: (name in FLOORS, name))


def _against(
    inputs: ReportInputs, data: Json, reference: str, colors: style.CandidateColors
) -> list[Block]:
    by_candidate: dict[str, Json] = {
        name: compared[reference]
        for name, compared in (data.get("comparisons") or {}).items()
        if reference in compared
    }
    if not any(by_candidate.values()):
        return []
    called = _REFERENCE_NAMES.get(reference, reference)
    figures = []
    for output in inputs.ranking.outputs:
        metric = headline_metric(output, inputs.ranking)
        differences = {
            name: (compared.get(output.name) or {}).get(metric) or {}
            for name, compared in by_candidate.items()
        }
        if not any(d.get("value") is not None for d in differences.values()):
            continue
        title = f"{output.name}: {f.metric_label(metric)} difference"
        told = "; ".join(
            f"{n} {f.signed(d.get('value'))} {f.signed_bounds(d)}" for n, d in differences.items()
        )
        chart = interval_chart(differences, (), None, colors, zero_line=True)
        figures.append(
            Figure(
                title,
                inline_svg(chart, f"{title} against {called}", told),
                f.metric_direction(metric),
            )
        )
    tables = tuple(
        _table(inputs, output.name, by_candidate, called) for output in inputs.ranking.outputs
    )
    return [
        Heading(f"Against {called}"),
        Figures(tuple(figures)),
        Disclosure(f"All differences against {called}", tables),
    ]


def _table(inputs: ReportInputs, output: str, by_row: Mapping[str, Json], reference: str) -> Table:
    metrics = next(o.metrics for o in inputs.ranking.outputs if o.name == output)
    rows = []
    for name, compared in by_row.items():
        differences = compared.get(output) or {}
        cells = [difference_cell(metric, differences.get(metric) or {}) for metric in metrics]
        mark = "champion" if name == inputs.champion else ""
        rows.append(Row((Cell(name), *cells), mark=mark))
    headers = [Cell(f.metric_label(m), f.metric_direction(m)) for m in metrics]
    return Table(f"{output}: minus {reference}", (Cell("Model"), *headers), tuple(rows))


def _auxiliary(inputs: ReportInputs, pair: Json) -> list[Block]:
    tasks = ", ".join(inputs.ranking.auxiliary_tasks)
    on, off = str(pair.get("on")), str(pair.get("off"))
    metrics = dict.fromkeys(m for output in inputs.ranking.outputs for m in output.metrics)
    rows = []
    for output in inputs.ranking.outputs:
        differences = (pair.get("differences") or {}).get(output.name) or {}
        cells = [difference_cell(metric, differences.get(metric) or {}) for metric in metrics]
        rows.append(Row((Cell(output.name), *cells)))
    headers = [Cell(f.metric_label(m), f.metric_direction(m)) for m in metrics]
    return [
        Heading(f"What the auxiliary tasks bring: {on} minus {off}"),
        Paragraph(f"The two differ only in training with or without {tasks}."),
        Table(f"{on} minus {off}", (Cell("Output"), *headers), tuple(rows)),
    ]
