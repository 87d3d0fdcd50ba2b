"""The parts a page is built of; the template draws one kind after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from markupsafe import Markup

Tone = Literal["", "good", "bad", "muted"]


@dataclass(frozen=True)
class Cell:
    """One table cell.

    Attributes:
        text: What it says.
        detail: A second line in small type: an interval, a bound.
        tone: good, bad or muted.
    """

    text: str
    detail: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Row:
    """One table row; the first cell is its header.

    Attributes:
        cells: As many as the table has columns.
        mark: Text of a badge beside the first cell, which also highlights the row.
        tone: `muted` for rows that are references, not candidates.
    """

    cells: tuple[Cell, ...]
    mark: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Table:
    """A table; every column but the first `num_text` ones is set as numbers."""

    kind: ClassVar[str] = "table"
    caption: str
    headers: tuple[Cell, ...]
    rows: tuple[Row, ...]
    num_text: int = 1


@dataclass(frozen=True)
class Figure:
    """A chart with a title and, where the axes do not say it all, a note."""

    title: str
    svg: Markup
    note: str = ""


@dataclass(frozen=True)
class Figures:
    """Charts side by side, as many as fit."""

    kind: ClassVar[str] = "figures"
    figures: tuple[Figure, ...]
    wide: bool = False


@dataclass(frozen=True)
class Legend:
    """Names and colours that the charts after it share."""

    kind: ClassVar[str] = "legend"
    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Paragraph:
    """A sentence or two."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading inside a section, with an optional line under it."""

    kind: ClassVar[str] = "heading"
    text: str
    detail: str = ""


@dataclass(frozen=True)
class Notice:
    """Something missing or wrong that the reader should not overlook."""

    kind: ClassVar[str] = "notice"
    text: str
    tone: Tone = "muted"


@dataclass(frozen=True)
class Disclosure:
    """Blocks that open on a click: the full figures behind a chart."""

    kind: ClassVar[str] = "disclosure"
    summary: str
    blocks: tuple[Block, ...]


Block: TypeAlias = "Table | Figures | Legend | Paragraph | Heading | Notice | Disclosure"


@dataclass(frozen=True)
class Section:
    """A part of the page with an anchor."""

    anchor: str
    title: str
    lead: str
    blocks: tuple[Block, ...]
