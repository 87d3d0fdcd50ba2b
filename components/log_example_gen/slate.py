"""Rates and slate-relative features."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.log_example_gen.time_index import Ints, as_key_text, entity_codes
from models.spec.feature import SMALLEST_NUMBER, Rate, SlateRelative


def rate(numerator: pl.Series, denominator: pl.Series, spec: Rate) -> pl.Series:
    """Computes a smoothed ratio; missing where either side is."""
    return (numerator + spec.prior_rate * spec.prior_strength) / (denominator + spec.prior_strength)


def slate_groups(slate: pl.Series, split: pl.Series) -> Ints:
    """Numbers the slates: rows with equal slate and split share a number.

    A slate that straddles a boundary in time is two slates, so that no row sees a later split.
    """
    (codes,), _ = entity_codes([[as_key_text(slate), split]])
    return codes


def slate_relative(values: pl.Series, groups: Ints, spec: SlateRelative) -> pl.Series:
    """Computes a candidate's value relative to the other candidates of its slate.

    Values are rounded to float32 first, as examples and requests carry them: a rank must not
    depend on digits that serving does not have. Subnormal ones count as 0, as they do on
    processors and servers that flush them.

    Args:
        values: Numbers, null where missing, [rows].
        groups: Slate of each row, [rows].
        spec: rank, share, ratio_to_max or count, as `SlateRelative` defines them.

    Returns:
        float64, never missing, [rows].
    """
    if len(values) == 0:
        return pl.Series(values.name, [], dtype=pl.Float64)
    missing = values.is_null().to_numpy()
    numbers = values.cast(pl.Float32).fill_null(0).cast(pl.Float64).to_numpy()
    numbers = np.where(np.abs(numbers) < SMALLEST_NUMBER, 0.0, numbers)
    if spec.relation == "rank":
        result: NDArray[np.float64] = _rank(numbers, missing, groups)
    elif spec.relation == "count":
        result = np.bincount(groups, weights=np.where(missing, 0.0, 1.0)).astype(float)[groups]
    else:
        order = np.lexsort((numbers, groups))
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        ufunc = np.add if spec.relation == "share" else np.maximum
        lowest = 0.0 if spec.relation == "share" else -np.inf
        present = np.where(missing, lowest, numbers)[order]
        totals = np.empty(len(numbers))
        totals[order] = np.repeat(
            ufunc.reduceat(present, starts), np.diff(np.append(starts, len(order)))
        )
        usable = ~missing & (totals != 0)
        result = np.divide(numbers, totals, out=np.zeros(len(numbers)), where=usable)
    return pl.Series(values.name, result)


def _rank(
    numbers: NDArray[np.float64], missing: NDArray[np.bool_], groups: Ints
) -> NDArray[np.float64]:
    """Share of the slate's candidates with a strictly greater value, missing ones below all."""
    order = np.lexsort((-numbers, missing, groups))
    group, number, absent = groups[order], numbers[order], missing[order]
    new_group = np.diff(group, prepend=-1) != 0
    new_value = new_group.copy()
    new_value[1:] |= (absent[1:] != absent[:-1]) | (~absent[1:] & (number[1:] != number[:-1]))
    position = np.arange(len(order))
    group_start = np.maximum.accumulate(np.where(new_group, position, 0))
    value_start = np.maximum.accumulate(np.where(new_value, position, 0))
    sizes = np.diff(np.append(np.flatnonzero(new_group), len(order)))
    shares = np.empty(len(order))
    shares[order] = (value_start - group_start) / np.repeat(sizes, sizes)
    return shares
