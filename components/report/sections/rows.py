"""Row accounts: every row read is used, a counted duplicate, or dead with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.report.blocks import Block, Cell, Notice, Row, Section, Table, Tone
from components.report.formatting import ABSENT, count
from components.report.inputs import Json, ReportInputs

_SPLITS = ("train", "validation", "test")


def section(inputs: ReportInputs) -> Section:
    """Shows what became of every row, with the sums checked."""
    accounts = inputs.accounts or {}
    streams: Json = accounts.get("rows") or inputs.summary.get("rows") or {}
    examples: Json = accounts.get("examples") or inputs.summary.get("examples") or {}
    blocks: list[Block] = []
    if streams:
        blocks.append(_stream_table(streams))
        wrong = [name for name, each in streams.items() if not stream_adds_up(each)]
        if wrong:
            blocks.append(_wrong(f"Rows of {', '.join(wrong)}"))
    else:
        blocks.append(Notice(f"No row accounts: {inputs.why_absent()}."))
    if (erased := (inputs.summary.get("privacy") or {}).get("erased")) is not None:
        blocks.append(
            Notice(
                f"An erasure list named {count(erased['ids'])} people (hash "
                f"{erased['list_hash']}); their rows are dead with the reason erased."
            )
        )
    if examples:
        blocks.append(_example_table(examples))
        if not examples_add_up(examples):
            blocks.append(_wrong("Impressions"))
    blocks += [Notice(f"Noticed: {text}.") for text in inputs.summary.get("warnings") or ()]
    return Section(
        anchor="rows",
        title="Row accounts",
        lead="Read = used + duplicates + dead, per stream, counted after exploding; impressions "
        "without exact duplicates = dead + outside the window + the three splits.",
        blocks=tuple(blocks),
    )


def stream_adds_up(stream: Json) -> bool:
    """Whether read = used + duplicates + dead."""
    parts = _int(stream.get("used")) + _int(stream.get("duplicates")) + total(stream.get("dead"))
    return _int(stream.get("read")) == parts


def examples_add_up(examples: Json) -> bool:
    """Whether exploded = dead + outside + train + validation + test."""
    parts = sum(_int(examples.get(key)) for key in ("outside", *_SPLITS))
    return _int(examples.get("exploded")) == parts + total(examples.get("dead"))


def total(dead: Any) -> int:
    """Returns how many rows died, whether given by reason or as one number."""
    return sum(_int(n) for n in dead.values()) if isinstance(dead, Mapping) else _int(dead)


def _stream_table(streams: Json) -> Table:
    rows = []
    for name, each in streams.items():
        cells = [
            Cell(name),
            Cell(_reasons(each.get("dead"))),
            *(Cell(count(each.get(key))) for key in ("read", "used", "duplicates")),
            Cell(count(total(each.get("dead")))),
            _check(stream_adds_up(each)),
        ]
        rows.append(Row(tuple(cells)))
    headers = ("Stream", "Dead, by reason", "Read", "Used", "Duplicates", "Dead", "Sum")
    return Table(
        "Rows read from the logs", tuple(Cell(h) for h in headers), tuple(rows), num_text=2
    )


def _example_table(examples: Json) -> Table:
    named = ("outside", *_SPLITS)
    cells = [
        Cell("impressions"),
        Cell(_reasons(examples.get("dead"))),
        Cell(count(examples.get("exploded"))),
        Cell(count(total(examples.get("dead")))),
        *(Cell(count(examples.get(key) or 0)) for key in named),
        _check(examples_add_up(examples)),
    ]
    headers = ["", "Dead, by reason", "Without duplicates", "Dead", "Outside"]
    headers += ["Train", "Validation", "Test", "Sum"]
    return Table(
        "What became of the impressions",
        tuple(Cell(h) for h in headers),
        (Row(tuple(cells)),),
        num_text=2,
    )


def _reasons(dead: Any) -> str:
    if not isinstance(dead, Mapping):
        return ABSENT
    reasons = [f"{reason} {count(n)}" for reason, n in sorted(dead.items()) if n]
    return ", ".join(reasons) or "none"


def _check(adds_up: bool) -> Cell:
    tone: Tone = "good" if adds_up else "bad"
    return Cell("adds up" if adds_up else "does not add up", "", tone)


def _wrong(what: str) -> Notice:
    return Notice(f"{what} do not add up: rows were lost or counted twice.", "bad")


def _int(value: Any) -> int:
    return int(value) if isinstance(value, int | float) else 0
