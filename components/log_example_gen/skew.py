"""How far logged features are from what the logs say they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from components.log_example_gen.plan import Plan
from components.log_example_gen.row_names import own_column
from components.log_example_gen.slate import rate
from components.log_example_gen.splits import SPLIT, SPLITS
from components.log_example_gen.tally import Tally, as_float, exact_sums

TOLERANCE = 1e-5
"""Numbers that differ by less than this share of the larger one are equal: logs are rounded."""

_KINDS = ("rows", "differing", "both", "absolute")


def skew_counts(rows: pl.DataFrame, plan: Plan) -> Tally:
    """Compares logged features with our own computation of them.

    Args:
        rows: Examples with split, logged values and our own.
        plan: Features.

    Returns:
        ``("skew", feature, split, kind)``: rows where either value exists; differing ones, those
        where only one exists among them; rows where both do; and the sum of the absolute
        differences there (0 for lists).
    """
    tally: Tally = {}
    for name in plan.logged_features:
        logged, own = rows[name], _own(rows, name, plan)
        exists = _exists(logged) | _exists(own)
        both = _exists(logged) & _exists(own)
        if isinstance(own.dtype, pl.List):
            size = np.zeros(len(rows))
            same = (logged.fill_null([]).list.join("\0") == own.list.join("\0")).to_numpy()
            both = exists
        else:
            left, right = (s.cast(pl.Float64).fill_null(0).to_numpy() for s in (logged, own))
            size = np.abs(left - right)
            same = both & (size <= TOLERANCE * np.maximum(np.abs(left), np.abs(right)))
        for split in SPLITS:
            inside = (rows[SPLIT] == split).to_numpy() & exists
            found = (
                inside.sum(),
                (inside & ~same).sum(),
                (inside & both).sum(),
                exact_sums(
                    pl.repeat(split, int((inside & both).sum()), dtype=pl.String, eager=True),
                    pl.Series(size[inside & both]),
                ).get(split, 0),
            )
            tally |= {
                ("skew", name, split, kind): int(value)
                for kind, value in zip(_KINDS, found, strict=True)
            }
    return tally


def skew_account(tally: Tally, plan: Plan) -> dict[str, Any]:
    """Puts the counts together: by logged feature and split."""
    return {
        name: {
            split: {
                kind: as_float(value) if kind == "absolute" else value
                for kind in _KINDS
                for value in [tally.get(("skew", name, split, kind), 0)]
            }
            for split in SPLITS
        }
        for name in plan.logged_features
    }


def _own(rows: pl.DataFrame, name: str, plan: Plan) -> pl.Series:
    spec = plan.ranking.features[name].rate
    if spec is None:
        return rows[own_column(name)]
    top, bottom = (
        rows[side if plan.ranking.features[side].source == "computed" else own_column(side)]
        for side in (spec.numerator, spec.denominator)
    )
    return rate(top, bottom, spec)


def _exists(values: pl.Series) -> np.ndarray[Any, np.dtype[np.bool_]]:
    present = values.is_not_null()
    if isinstance(values.dtype, pl.List):
        present &= (values.list.len() > 0).fill_null(False)
    found: np.ndarray[Any, np.dtype[np.bool_]] = present.to_numpy()
    return found
