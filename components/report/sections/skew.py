"""Logged features against our own computation of them."""

from __future__ import annotations

from components.report import formatting as f
from components.report.blocks import Block, Cell, Notice, Row, Section, Table
from components.report.inputs import Json, ReportInputs


def section(inputs: ReportInputs) -> Section:
    """Shows, per logged feature and split, how often and how far the two differ."""
    skew: Json = (inputs.accounts or {}).get("skew") or {}
    blocks: list[Block] = []
    if skew:
        blocks.append(_table(skew))
    elif inputs.accounts is None:
        blocks.append(Notice(f"No comparison: {inputs.why_absent()}."))
    else:
        blocks.append(
            Notice("No feature is logged: all are computed here, and looked up at serving.")
        )
    return Section(
        anchor="skew",
        title="Logged features",
        lead="Values that the request log carried against those computed from the events, with the "
        "declared window and lag. A value that only one side has counts as different.",
        blocks=tuple(blocks),
    )


def _table(skew: Json) -> Table:
    rows = []
    for name, by_split in sorted(skew.items()):
        for split, counts in by_split.items():
            rows_compared, both = counts["rows"], counts["both"]
            cells = (
                Cell(str(name)),
                Cell(str(split)),
                Cell(f.count(rows_compared)),
                Cell(f.share(counts["differing"] / rows_compared) if rows_compared else f.ABSENT),
                Cell(f.number(counts["absolute"] / both) if both else f.ABSENT),
            )
            rows.append(Row(cells))
    headers = (
        Cell("Feature"),
        Cell("Split"),
        Cell("Rows with a value"),
        Cell("Differing"),
        Cell("Mean absolute difference"),
    )
    return Table("Logged against computed", headers, tuple(rows), num_text=2)
