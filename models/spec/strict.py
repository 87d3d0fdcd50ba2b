"""The base of every configuration model."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*$")
DURATION_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Strict(BaseModel):
    """Frozen, refuses unknown keys, values of the wrong type and numbers that are not finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, populate_by_name=True, allow_inf_nan=False
    )


WRITTEN = {"written": True}
"""Validation context of values that a person wrote, not those of a dumped configuration."""


def parse_duration_ms(value: Any, info: ValidationInfo) -> Any:
    """Turns ``'90s'``, ``'30m'``, ``'24h'`` or ``'7d'`` into milliseconds.

    Args:
        value: The text; integers pass through as milliseconds, so that a dumped config loads.
        info: Tells whether a person wrote the value: then only 0 may lack a unit.

    Raises:
        ValueError: The value is not a number with a unit.
    """
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if is_number and value != 0 and info.context == WRITTEN:
        value = str(value)
    if isinstance(value, str):
        match = _DURATION.match(value)
        if match is None:
            raise ValueError(
                f"a duration is a number with a unit of ms, s, m, h or d, as in '30m'; "
                f"received {value!r}"
            )
        return round(float(match[1]) * DURATION_UNITS_MS[match[2]])
    return value


DurationMs = Annotated[
    int,
    Field(ge=0),
    BeforeValidator(
        parse_duration_ms,
        json_schema_input_type=Annotated[str, Field(pattern=_DURATION.pattern)] | Literal[0],
    ),
]


_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(KiB|MiB|GiB)\s*$")
SIZE_UNITS_BYTES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_size_bytes(value: Any) -> Any:
    """Turns ``'64 MiB'`` or ``'1.5GiB'`` into bytes.

    Args:
        value: The text; integers pass through as bytes (so that a dumped config loads).

    Raises:
        ValueError: The text is not a number with a unit.
    """
    if isinstance(value, str):
        match = _SIZE.match(value)
        if match is None:
            raise ValueError(
                f"a size is a number with a unit of KiB, MiB or GiB, as in '1.5GiB'; "
                f"received {value!r}"
            )
        return round(float(match[1]) * SIZE_UNITS_BYTES[match[2]])
    return value


SizeBytes = Annotated[
    int,
    BeforeValidator(
        parse_size_bytes,
        json_schema_input_type=Annotated[str, Field(pattern=_SIZE.pattern)] | int,
    ),
    Field(ge=1),
]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else _as_tuple(value)


Names = Annotated[
    tuple[str, ...], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str])
]
"""One name or a list of names."""

AsTuple = BeforeValidator(_as_tuple)
"""Lets a YAML list stand where a tuple is wanted under strict typing."""
