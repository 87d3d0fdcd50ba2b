"""How every chart looks: sizes, type and colours that follow the page's theme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from components.report.blocks import Legend

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
ACCENT = "var(--series-0)"
BAD = "var(--bad)"
QUIET = "var(--quiet)"
INK = "currentColor"
PANEL_WIDTH = 230

_NUM_SERIES = 8


class CandidateColors(Mapping[str, str]):
    """A CSS colour per candidate: the accent for the champion, the rest in order.

    Args:
        candidates: Names in order.
        champion: The one to stand out, or None.
    """

    def __init__(self, candidates: Sequence[str], champion: str | None) -> None:
        """Assigns the colours."""
        others = [name for name in candidates if name != champion]
        self._champion = champion
        self._colors = {
            name: ACCENT
            if name == champion
            else f"var(--series-{1 + others.index(name) % (_NUM_SERIES - 1)})"
            for name in candidates
        }

    def __getitem__(self, name: str) -> str:
        """Returns the colour of a candidate."""
        return self._colors[name]

    def __iter__(self) -> Any:
        """Iterates over the candidates."""
        return iter(self._colors)

    def __len__(self) -> int:
        """Returns the number of candidates."""
        return len(self._colors)

    def scale(self) -> alt.Scale:
        """Returns the colour scale of a chart."""
        return alt.Scale(domain=list(self._colors), range=list(self._colors.values()))

    def legend(self) -> Legend:
        """Returns the legend that charts with this scale share."""
        return Legend(
            tuple(
                (f"{name} (champion)" if name == self._champion else name, color)
                for name, color in self._colors.items()
            )
        )


def values(rows: Sequence[Mapping[str, Any]]) -> alt.Data:
    """Returns inline data for a chart."""
    return alt.Data(values=[dict(row) for row in rows])


def styled(chart: Any, *, width: int = PANEL_WIDTH, height: int = 150) -> Any:
    """Applies the common look and a size in pixels of the plotting area."""
    return (
        chart.properties(width=width, height=height, background="transparent", padding=4)
        .configure(font=FONT, aria=False)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=INK,
            titleColor=INK,
            labelFontSize=11,
            titleFontSize=11,
            titleFontWeight="normal",
            labelOpacity=0.8,
            titleOpacity=0.8,
            gridColor=INK,
            gridOpacity=0.1,
            domainColor=INK,
            domainOpacity=0.25,
            tickColor=INK,
            tickOpacity=0.25,
            labelLimit=130,
            titlePadding=6,
        )
    )
