"""Charts as static SVG that may stand inside a page: no script, no link, no clash of ids."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import vl_convert
from markupsafe import Markup

_VERSION = "5.20"
_NAMESPACE = "http://www.w3.org/2000/svg"
_TAGS = frozenset(
    {"svg", "g", "path", "rect", "line", "text", "tspan", "defs", "clipPath", "title", "desc"}
)
_ATTRIBUTES = frozenset(
    {
        "width", "height", "viewBox", "transform", "d", "x", "y", "x1", "x2", "y1", "y2",
        "dx", "dy", "rx", "ry", "fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width",
        "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "stroke-miterlimit", "opacity",
        "text-anchor", "font-size", "font-weight", "font-style", "id", "clip-path",
        "display",
    }
)  # fmt: skip
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_GEOMETRY = frozenset({"transform", "d", "x", "y", "x1", "x2", "y1", "y2", "width", "height"})

ElementTree.register_namespace("", _NAMESPACE)


def inline_svg(chart: Mapping[str, Any], title: str, description: str) -> Markup:
    """Draws a chart as an inline SVG element with an accessible title.

    Colours are written as they are given, so a chart may use CSS variables and `currentColor` and
    follow the page's theme; type is the page's own. Elements and attributes outside an allow-list
    are dropped.

    Args:
        chart: A Vega-Lite specification.
        title: What the chart shows, read out in its place.
        description: Its main figures or how to read it.
    """
    drawn = ElementTree.fromstring(
        vl_convert.vegalite_to_svg(json.dumps(chart), vl_version=_VERSION)
    )
    prefix = (
        "c" + hashlib.sha256(f"{title}\0{ElementTree.tostring(drawn)!r}".encode()).hexdigest()[:10]
    )
    _clean(drawn, prefix)
    drawn.set("role", "img")
    drawn.set("aria-labelledby", f"{prefix}-title {prefix}-desc")
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(f"{{{_NAMESPACE}}}{tag}", {"id": f"{prefix}-{tag}"})
        element.text = text
        drawn.insert(position, element)
    return Markup(ElementTree.tostring(drawn, encoding="unicode"))


def _clean(element: ElementTree.Element, prefix: str) -> None:
    for name, value in list(element.attrib.items()):
        if name not in _ATTRIBUTES or (name, value) == ("opacity", "1"):
            del element.attrib[name]
            continue
        if name == "id":
            value = f"{prefix}-{value}"
        elif name in _GEOMETRY:
            value = _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value)
        element.set(name, _REFERENCE.sub(rf"url(#{prefix}-\1)", value))
    for child in list(element):
        tag = child.tag.removeprefix(f"{{{_NAMESPACE}}}")
        if tag not in _TAGS or _draws_nothing(child, tag):
            element.remove(child)
        else:
            _clean(child, prefix)


def _draws_nothing(element: ElementTree.Element, tag: str) -> bool:
    if tag == "path":
        return element.get("d", "") in ("", "M0,0h0v0h0Z") or element.get("display") == "none"
    return tag == "g" and not len(element)
