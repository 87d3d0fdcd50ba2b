"""Counts that are made in many places and added up in one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

Tally = dict[tuple[str, ...], int]
"""Counts by path, e.g. ``('rows', 'clicks', 'dead', 'orphan')``.

Sums of fractions are whole numbers of a unit that divides every float: exact, and thus the same
whatever the order in which shards add up. `as_float` turns them back.
"""

_UNIT_BITS = 1127
_LOW_BITS = 26


def merged(tallies: Iterable[Tally]) -> Tally:
    """Adds counts up."""
    total: Tally = {}
    for tally in tallies:
        for path, count in tally.items():
            total[path] = total.get(path, 0) + count
    return total


def exact_sums(keys: pl.Series, values: pl.Series) -> dict[str, int]:
    """Sums numbers by key without rounding.

    Args:
        keys: Text, [rows].
        values: Finite numbers, [rows].

    Returns:
        The sum of each key in units of 2^-1127.
    """
    # value = mantissa * 2^(exponent - 53); halves of the mantissa add up without overflow.
    fraction, exponent = np.frexp(values.cast(pl.Float64).to_numpy())
    mantissa = (fraction * 2.0**53).astype(np.int64)
    parts = pl.DataFrame(
        {
            "key": keys,
            "exponent": exponent,
            "high": mantissa >> _LOW_BITS,
            "low": mantissa & (2**_LOW_BITS - 1),
        }
    )
    sums: dict[str, int] = {}
    for key, power, high, low in (
        parts.group_by("key", "exponent").agg(pl.col("high").sum(), pl.col("low").sum()).iter_rows()
    ):
        total = ((high << _LOW_BITS) + low) << (power + _UNIT_BITS - 53)
        sums[key] = sums.get(key, 0) + total
    return sums


def as_float(total: int) -> float:
    """Rounds a sum of `exact_sums` once."""
    return total / (1 << _UNIT_BITS)
