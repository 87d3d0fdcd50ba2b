"""The base of every configuration model."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*$")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Strict(BaseModel):
    """Frozen, refuses unknown keys and values of the wrong type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


def parse_duration_ms(value: Any) -> Any:
    """Turns ``'90s'``, ``'30m'``, ``'24h'`` or ``'7d'`` into milliseconds.

    Args:
        value: The text; integers pass through as milliseconds (so that a dumped config loads).

    Raises:
        ValueError: The text is not a number with a unit.
    """
    if isinstance(value, str):
        match = _DURATION.match(value)
        if match is None:
            raise ValueError(
                f"a duration is a number with a unit of ms, s, m, h or d, as in '30m'; "
                f"received {value!r}"
            )
        return round(float(match[1]) * _UNIT_MS[match[2]])
    return value


DurationMs = Annotated[
    int,
    BeforeValidator(
        parse_duration_ms,
        json_schema_input_type=Annotated[str, Field(pattern=_DURATION.pattern)] | int,
    ),
    Field(ge=0),
]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else _as_tuple(value)


Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
"""One name or a list of names."""

AsTuple = BeforeValidator(_as_tuple)
"""Lets a YAML list stand where a tuple is wanted under strict typing."""
