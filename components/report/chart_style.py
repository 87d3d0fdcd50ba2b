"""How every chart looks: sizes, type and colours that follow the page's theme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from components.report.blocks import Legend

Spec: TypeAlias = dict[str, Any]
"""A Vega-Lite specification or a part of one."""

Rows: TypeAlias = Sequence[Mapping[str, Any]]

ACCENT = "var(--series-0)"
BAD = "var(--bad)"
QUIET = "var(--quiet)"
INK = "currentColor"
PANEL_WIDTH = 205

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

    def channel(self) -> Spec:
        """Returns the colour channel of a chart whose rows have a field `candidate`."""
        return color_channel("candidate", self._colors)

    def legend(self) -> Legend:
        """Returns the legend that charts with this scale share."""
        return Legend(
            tuple(
                (f"{name} (champion)" if name == self._champion else name, color)
                for name, color in self._colors.items()
            )
        )


def color_channel(field: str, colors: Mapping[str, str]) -> Spec:
    """Returns a colour channel without a legend: the page draws one for several charts."""
    scale = {"domain": list(colors), "range": list(colors.values())}
    return {"field": field, "type": "nominal", "scale": scale, "legend": None}


def names_channel(field: str, names: Sequence[str], **axis: Any) -> Spec:
    """Returns a channel that lays names out in the given order, one beside the other."""
    return {
        "field": field,
        "type": "nominal",
        "sort": list(names),
        "title": None,
        "axis": {"grid": False, "ticks": False, "labelOverlap": False, **axis},
    }


def number_channel(
    field: str, title: str | None = None, *, scale: Spec | None = None, **axis: Any
) -> Spec:
    """Returns a channel for numbers."""
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": scale or {},
        "axis": {"tickCount": 4, **axis},
    }


def layer(mark: str, style: Spec, encoding: Spec, *, where: str = "", rows: Rows = ()) -> Spec:
    """Returns one layer of a chart.

    Args:
        mark: Vega-Lite's name of the mark.
        style: Its fixed properties.
        encoding: Its channels.
        where: Condition on `datum`; the layer draws only these rows.
        rows: Rows of its own, in place of the chart's.
    """
    made: Spec = {"mark": {"type": mark, **style}, "encoding": encoding}
    if where:
        made["transform"] = [{"filter": where}]
    if rows:
        made["data"] = {"values": list(rows)}
    return made


def vertical_line(value: float, color: str, dash: Sequence[int] = ()) -> Spec:
    """Returns a layer with one reference line; dashed by (on, off) pixels."""
    style: Spec = {"color": color, "strokeWidth": 1.5, "strokeDash": list(dash)}
    x = {"field": "value", "type": "quantitative"}
    return layer("rule", style, {"x": x}, rows=[{"value": value}])


def chart(
    rows: Rows, layers: Sequence[Spec], *, width: int = PANEL_WIDTH, height: int = 150
) -> Spec:
    """Returns a Vega-Lite specification with the common look.

    Args:
        rows: Data of the layers that have none of their own.
        layers: Drawn one over the other.
        width: Pixels of the plotting area.
        height: The same.
    """
    return {
        "data": {"values": list(rows)},
        "layer": list(layers),
        "width": width,
        "height": height,
        "padding": {"left": 12, "right": 6, "top": 4, "bottom": 4},
        "background": "transparent",
        "config": _CONFIG,
    }


_CONFIG: Spec = {
    "aria": False,
    # Only for measuring labels: the page sets the type.
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelOpacity": 0.8,
        "titleOpacity": 0.8,
        "gridColor": INK,
        "gridOpacity": 0.1,
        "domainColor": INK,
        "domainOpacity": 0.25,
        "tickColor": INK,
        "tickOpacity": 0.25,
        "labelLimit": 120,
        "labelFlush": False,
        "labelOverlap": True,
        "labelSeparation": 6,
        "titlePadding": 6,
    },
}
