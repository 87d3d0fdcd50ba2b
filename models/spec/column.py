"""Columns: what a log carries, and when each value is known."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from models.spec.feature import Encoding
from models.spec.strict import AsTuple, DurationMs, Strict

Availability = Literal["request", "decision", "future"]
"""When a value is known: with the request, by the decision itself, or only afterwards."""

Role = Literal["feature", "target", "auxiliary_target", "weight", "mask", "key", "group"]

ColumnType = Literal[
    "string", "int", "float", "bool", "timestamp", "list[string]", "list[int]", "list[float]"
]

Aggregate = Literal["any", "count", "sum", "max", "first"]


class Join(Strict):
    """How events of a stream become a column of the impression they belong to.

    An event belongs to the latest impressions at or before it that share the stream's `on` keys
    (to all of them when they are simultaneous) if it happened less than `window` after them.
    """

    stream: str = Field(description="Name of an event stream under `logs.streams`.")
    aggregate: Aggregate = Field(
        description="any (0 or 1), count, sum, max, or first (the earliest event's value; of "
        "simultaneous events the smallest)."
    )
    value: str | None = Field(
        default=None, description="The stream's column to aggregate; for sum, max and first."
    )
    window: DurationMs = Field(
        description="Attribution window: an event counts in [impression, impression + window)."
    )


def _roles(value: object) -> object:
    return (
        (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
    )


class Column(Strict):
    """One column of an impression: type, availability, roles and where it comes from."""

    type: ColumnType = Field(description="Value type; list[...] for sequences and slates.")
    availability: Availability = Field(
        description="request (known when the ranking decision is made), decision (made by it: "
        "position, propensity) or future (known only after it)."
    )
    role: Annotated[
        tuple[Role, ...], BeforeValidator(_roles, json_schema_input_type=Role | list[Role])
    ] = Field(
        default=(),
        description="One or several of feature, target, auxiliary_target, weight, mask, key, "
        "group. A column without a role is only read where an expression names it.",
    )
    scope: Literal["context", "candidate"] = Field(
        default="candidate",
        description="context: one value per request (user, device); candidate: one per item. The "
        "rank signature takes context features once.",
    )
    source: str | None = Field(
        default=None, description="The log's own name for it; the column's name if absent."
    )
    join: Join | None = Field(
        default=None, description="Computed from an event stream instead of read from the log."
    )
    expression: str | None = Field(
        default=None,
        description="A DuckDB SQL expression over other columns of the impression, evaluated "
        "after slates are exploded and streams are joined. A null result is a missing value.",
    )
    known_after: DurationMs = Field(
        default=0,
        description="For future columns read from the log: how long after the impression the "
        "value is final. Joined columns use their window.",
    )
    encoding: Encoding | None = Field(
        default=None,
        description="How a feature enters the model; by type if absent (string: vocabulary, "
        "number: standardized).",
    )
    group: str = Field(
        default="main", description="Feature group; architectures receive one tensor a group."
    )
    max_length: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Sequences longer than this keep their first values."
    )
    pii: bool = Field(
        default=False,
        description="People's data: keyed hashes (see Privacy) take the place of the values before "
        "anything is written. Type string or list[string]; integer ids are read as text.",
    )
    suspicion_waived: bool = Field(
        default=False,
        description="Lets a request column pass the leakage gate although it alone predicts a "
        "served task suspiciously well. Say why in a comment.",
    )
    description: str = Field(
        default="", description="A note for readers of the file; nothing else uses it."
    )


ColumnNames = Annotated[tuple[str, ...], AsTuple]
