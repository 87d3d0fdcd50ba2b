"""Every gate: the bounds on metrics, and the verdicts on data, leakage and serving."""

from __future__ import annotations

from components.report.blocks import Block, Cell, Notice, Row, Section, Table
from components.report.formatting import ABSENT, clipped, metric_label, number
from components.report.gates import GateRow, gate_rows
from components.report.inputs import ReportInputs

_MAX_REASONS = 20
_MAX_REASON = 1_000


def section(inputs: ReportInputs) -> Section:
    """Lists what every gate decided, refusals first."""
    blocks: list[Block] = []
    rows = [row for name in inputs.candidates for row in gate_rows(inputs, name)]
    if inputs.verdicts:
        blocks.append(_verdicts(inputs))
    else:
        blocks.append(
            Notice(f"No verdicts of data, leakage or serving gates: {inputs.why_absent()}.")
        )
    if rows:
        blocks.append(_metric_gates(inputs, rows))
    else:
        blocks.append(Notice(f"No metric gates: {inputs.why_absent()}."))
    return Section(
        anchor="gates",
        title="Gates",
        lead="A gate refuses or it passes; what it noticed besides stands under Row accounts. A "
        "gate that did not run counts as refused.",
        blocks=tuple(blocks),
    )


def _verdicts(inputs: ReportInputs) -> Table:
    rows = []
    for verdict in sorted(inputs.verdicts, key=lambda v: v.passed):
        decided = Cell("passed", "", "good") if verdict.passed else Cell("refused", "", "bad")
        reasons = list(verdict.reasons[:_MAX_REASONS]) or [ABSENT]
        if len(verdict.reasons) > _MAX_REASONS:
            reasons.append(f"and {len(verdict.reasons) - _MAX_REASONS} more")
        for reason in reasons:
            rows.append(Row((Cell(verdict.gate), Cell(clipped(reason, _MAX_REASON)), decided)))
    headers = (Cell("Gate"), Cell("Reasons"), Cell("Verdict"))
    return Table("Verdicts", headers, tuple(rows), num_text=2)


def _metric_gates(inputs: ReportInputs, rows: list[GateRow]) -> Table:
    measured = {(r.output, r.metric, r.bound, r.candidate): r for r in rows}
    limits = dict.fromkeys((r.output, r.metric, r.bound) for r in rows)
    table = []
    for output, metric, bound in limits:
        cells = [Cell(output), Cell(metric_label(metric)), Cell(bound)]
        cells += [_cell(measured.get((output, metric, bound, n))) for n in inputs.candidates]
        table.append(Row(tuple(cells)))
    names = [f"{n} (champion)" if n == inputs.champion else n for n in inputs.candidates]
    headers = ("Output", "Metric", "Bound", *names)
    return Table(
        "Bounds on test metrics", tuple(Cell(text) for text in headers), tuple(table), num_text=3
    )


def _cell(row: GateRow | None) -> Cell:
    if row is None:
        return Cell(ABSENT, "", "muted")
    if row.passed:
        return Cell(row.measured, "passed", "good")
    return Cell(row.measured, "failed" if row.miss is None else f"by {number(row.miss)}", "bad")
