"""Writes `docs/configuration.md` from the configuration model: ``python -m pipeline.reference``."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from models.spec.metric import METRICS
from models.spec.strict import (
    DURATION_UNITS_MS,
    SIZE_UNITS_BYTES,
    parse_duration_ms,
    parse_size_bytes,
)
from pipeline.config import Config

TARGET = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
_INTRODUCTION = """# Configuration reference

Made from the code by `python -m pipeline.reference`; a test fails when it is stale. One YAML file
describes one pipeline. Unknown keys are refused with the nearest valid name. Durations are written
with a unit: `90s`, `30m`, `24h`, `7d`; so are sizes: `64MiB`, `8GiB`. `--set key.path=value`
overrides a value of the file.

Keys in **bold** are required.
"""


def reference() -> str:
    """Returns the page: one section per model, reached from `Config` in reading order."""
    sections = [_INTRODUCTION]
    for model in models():
        document = (model.__doc__ or "").strip()
        sections.append(f"\n## {model.__name__}\n\n{_dedent(document)}\n\n")
        sections.append("| key | type | default | meaning |\n|---|---|---|---|\n")
        for name, field in model.model_fields.items():
            sections.append(_row(name, field))
    sections.append(_metrics())
    return "".join(part if part.endswith("\n") else part + "\n" for part in sections)


def _metrics() -> str:
    lines = [
        "\n## Metrics\n",
        "What `metrics`, `gates` and `objective` may name. The report says what each means, under "
        "*How to\nread this page*.\n",
        "| metric | of tasks | better | values |\n|---|---|---|---|",
    ]
    better = {True: "higher", False: "lower", None: "near 1; not in `objective`"}
    for metric in METRICS.values():
        kinds = ", ".join(sorted(metric.kinds))
        least, most = (f"{bound:g}" for bound in (metric.least, metric.most))
        values = {"-inf": "any", "0": "0 or more"}[least] if most == "inf" else f"{least} to {most}"
        inside = ", inside slates (or users)" * metric.grouped
        name = f"`{metric.name}`{inside}"
        lines.append(f"| {name} | {kinds} | {better[metric.higher_is_better]} | {values} |")
    return "\n".join(lines)


def models() -> list[type[BaseModel]]:
    """Returns every model that a configuration consists of, `Config` first."""
    found: list[type[BaseModel]] = []
    waiting: list[type[BaseModel]] = [Config]
    while waiting:
        model = waiting.pop(0)
        if model in found:
            continue
        found.append(model)
        for field in model.model_fields.values():
            waiting += _nested(field.annotation)
    return found


def _nested(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _nested(argument)]


def _row(name: str, field: FieldInfo) -> str:
    required = field.is_required()
    shown = f"**`{name}`**" if required else f"`{name}`"
    return (
        f"| {shown} | {_unit(field.metadata) or _type(field.annotation)} | {_default(field)} "
        f"| {(field.description or '').replace('|', chr(92) + '|')} |\n"
    )


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default is PydanticUndefined or field.default is None:
        return ""
    if isinstance(field.default, BaseModel):
        return f"all defaults of {type(field.default).__name__}"
    if field.default in ((), {}, ""):
        return ""
    if unit := _unit(field.metadata):
        return f"`{_written(field.default, unit)}`"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _unit(metadata: Iterable[Any]) -> str:
    """Says whether a value is written with a unit, which its type, a number, does not show."""
    parsers = {getattr(each, "func", None) for each in metadata}
    names = {parse_duration_ms: "duration", parse_size_bytes: "size"}
    return next((name for parser, name in names.items() if parser in parsers), "")


def _written(value: int, unit: str) -> str:
    """Writes a default as a configuration would."""
    units = DURATION_UNITS_MS if unit == "duration" else SIZE_UNITS_BYTES
    fitting = [name for name, size in units.items() if value and value % size == 0]
    return f"{value // units[fitting[-1]]}{fitting[-1]}" if fitting else str(value)


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if annotation is type(None):
        return ""
    if origin is typing.Annotated:
        inner, *metadata = get_args(annotation)
        return _unit(metadata) or _type(inner)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(t for a in get_args(annotation) if (t := _type(a))))
    if origin is dict:
        return f"mapping of name to {_type(get_args(annotation)[1])}"
    if origin is tuple:
        return f"list of {_type(get_args(annotation)[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(
        getattr(annotation, "__name__", str(annotation)), str(annotation)
    )


def _dedent(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
