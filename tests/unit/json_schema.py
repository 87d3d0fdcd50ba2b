"""Says where a document breaks a JSON Schema, as an editor would; the keywords pydantic writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float),
    "boolean": bool, "null": type(None),
}  # fmt: skip
_IGNORED = {
    "$defs", "title", "description", "default", "discriminator",
    "properties", "patternProperties", "required",  # looked at together, with the object
}  # fmt: skip


def violations(schema: dict[str, Any], node: Any, root: dict[str, Any]) -> Iterator[str]:
    """Yields one text per violation.

    Raises:
        NotImplementedError: The schema uses a keyword that is not checked here.
    """
    for keyword, wanted in schema.items():
        if keyword in _IGNORED or keyword == "additionalProperties":
            continue
        if keyword == "$ref":
            yield from violations(root["$defs"][wanted.removeprefix("#/$defs/")], node, root)
        elif keyword in ("anyOf", "oneOf"):
            found = [list(violations(each, node, root)) for each in wanted]
            if all(found):
                yield from min(found, key=len)
        elif keyword == "type":
            is_bool = isinstance(node, bool) and wanted != "boolean"
            if is_bool or not isinstance(node, _TYPES[wanted]):
                yield f"{node!r} is not of type {wanted}"
        elif keyword in ("const", "enum"):
            if node not in (wanted if keyword == "enum" else [wanted]):
                yield f"{node!r} is not {wanted!r}"
        elif keyword == "items":
            for each in node if isinstance(node, list) else ():
                yield from violations(wanted, each, root)
        elif keyword == "pattern":
            if isinstance(node, str) and not re.search(wanted, node):
                yield f"{node!r} does not match {wanted}"
        elif keyword in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
            if _is_number(node) and not _in_bound(keyword, node, wanted):
                yield f"{node} breaks {keyword} {wanted}"
        elif keyword in ("minItems", "minProperties"):
            if isinstance(node, list | dict) and len(node) < wanted:
                yield f"{node!r} has fewer than {wanted}"
        else:
            raise NotImplementedError(keyword)
    if isinstance(node, dict):
        yield from (f"lacks {name}" for name in schema.get("required", ()) if name not in node)
        for name, each in node.items():
            yield from (f"{name}: {text}" for text in _property(schema, name, each, root))


def _property(schema: dict[str, Any], name: str, node: Any, root: dict[str, Any]) -> Iterator[str]:
    patterns = schema.get("patternProperties", {})
    found = [schema["properties"][name]] if name in schema.get("properties", {}) else []
    found += [each for pattern, each in patterns.items() if re.search(pattern, name)]
    wanted = found or [schema.get("additionalProperties", True)]
    for each in wanted:
        if each is False:
            yield "unknown key"
        elif each is not True:
            yield from violations(each, node, root)


def _is_number(node: Any) -> bool:
    return isinstance(node, int | float) and not isinstance(node, bool)


def _in_bound(keyword: str, node: float, bound: float) -> bool:
    return {
        "minimum": node >= bound, "exclusiveMinimum": node > bound,
        "maximum": node <= bound, "exclusiveMaximum": node < bound,
    }[keyword]  # fmt: skip
