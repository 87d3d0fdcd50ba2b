"""Rows that cannot be used, with the reason and what they looked like."""

from __future__ import annotations

from typing import Literal

import polars as pl

from components.log_example_gen.row_names import SOURCE_FILE, SOURCE_ROW

Reason = Literal[
    "malformed",
    "oversized",
    "erased",
    "bad_timestamp",
    "empty",
    "repeated",
    "conflicting_key",
    "orphan",
    "before_impression",
    "late",
    "after_cutoff",
]
"""Why a row is dead.

malformed: a null key, text where a number belongs, invalid UTF-8, lists of unequal length, a line
that does not parse. oversized: a string over `max_string_bytes`. erased: a row of a person whom
the run's erasure list names; nothing of it is kept. bad_timestamp: no time, or one outside
`min_time` and `max_time`. empty: a row to explode whose lists have no element. repeated: a
candidate that its slate holds already, equal in every column; the first one is kept.
conflicting_key: an impression with the key of another one but other contents. orphan: an event
whose keys no impression has. before_impression: an event before the first impression with its
keys. late: an event after every attribution window of its stream. after_cutoff: an event at or
after the time at which the run looks at the world.
"""

SCHEMA = pl.Schema(
    {
        "stream": pl.String(),
        SOURCE_FILE: pl.Int32(),
        SOURCE_ROW: pl.Int64(),
        "reason": pl.String(),
        "raw": pl.String(),
    }
)
_MAX_RAW_BYTES = 1024
_MAX_LIST_SHOWN = 20


def no_dead_letters() -> pl.DataFrame:
    """Returns a frame of dead letters without rows."""
    return pl.DataFrame(schema=SCHEMA)


def dead_letters(
    rows: pl.DataFrame, reason: Reason | pl.Series, *, stream_name: str, shown: list[str]
) -> pl.DataFrame:
    """Turns rows into dead letters.

    Args:
        rows: The rows, with their file and row number.
        reason: One for all, or one for each.
        stream_name: The log they came from.
        shown: Columns that make up the raw text.

    Returns:
        A frame of `SCHEMA`; `raw` is the row as JSON text, cut to 1 kB.
    """
    if rows.is_empty():
        return no_dead_letters()
    texts = [_text(rows[name]) for name in shown]
    raw = (
        pl.DataFrame(texts).select(pl.struct(pl.all()).struct.json_encode()).to_series()
        if texts
        else pl.repeat("{}", len(rows), dtype=pl.String, eager=True)
    )
    return pl.DataFrame(
        {
            "stream": pl.repeat(stream_name, len(rows), dtype=pl.String, eager=True),
            SOURCE_FILE: rows[SOURCE_FILE],
            SOURCE_ROW: rows[SOURCE_ROW],
            "reason": reason
            if isinstance(reason, pl.Series)
            else pl.repeat(reason, len(rows), dtype=pl.String, eager=True),
            "raw": cut_text(raw),
        },
        schema=SCHEMA,
    )


def cut_text(text: pl.Series) -> pl.Series:
    """Cuts strings to 1 kB without splitting a character."""
    head = text.str.head(_MAX_RAW_BYTES)
    # A character takes at most four bytes.
    return head.to_frame("text").select(
        pl.when(pl.col("text").str.len_bytes() <= _MAX_RAW_BYTES)
        .then(pl.col("text"))
        .otherwise(pl.col("text").str.head(_MAX_RAW_BYTES // 4))
    )["text"]


def _text(values: pl.Series) -> pl.Series:
    if isinstance(values.dtype, pl.List):
        return values.list.head(_MAX_LIST_SHOWN).cast(pl.List(pl.String), strict=False)
    if values.dtype == pl.Binary:
        return values.bin.slice(0, _MAX_RAW_BYTES).bin.encode("hex")
    if values.dtype in (pl.Struct, pl.Object):
        return pl.repeat("...", len(values), eager=True).alias(values.name)
    return values.cast(pl.String, strict=False).str.head(_MAX_RAW_BYTES)
