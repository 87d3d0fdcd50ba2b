"""Drops exact duplicates, and all but one of the impressions that share a key."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from components.log_example_gen.dead_letters import dead_letters
from components.log_example_gen.row_names import SOURCE_FILE, SOURCE_ROW
from models.spec.ranking import IMPRESSIONS


@dataclass(frozen=True)
class Distinct:
    """Rows without duplicates.

    Attributes:
        frame: Distinct rows in canonical order.
        num_duplicates: Rows dropped because an equal one is kept.
        dead: Rows refused because another one has their key.
    """

    frame: pl.DataFrame
    num_duplicates: int
    dead: pl.DataFrame


def drop_duplicates(frame: pl.DataFrame, order: tuple[str, ...]) -> Distinct:
    """Drops rows equal to another one in every column that was read.

    Args:
        frame: Rows.
        order: The columns compared, which also give the canonical order.
    """
    # File and row number decide which copy's place is reported, never what is kept.
    ordered = frame.sort([*order, SOURCE_FILE, SOURCE_ROW], nulls_last=False)
    kept = ordered.unique(list(order), keep="first", maintain_order=True)
    return Distinct(kept, len(frame) - len(kept), frame.clear())


def distinct_impressions(
    frame: pl.DataFrame, order: tuple[str, ...], key: tuple[str, ...], shown: list[str]
) -> Distinct:
    """Drops duplicate impressions and refuses those in conflict with an earlier one.

    Args:
        frame: Impressions.
        order: Columns compared, in canonical order.
        key: Columns that identify an impression.
        shown: Columns of the dead letters' raw text.

    Returns:
        One row per key: the smallest in canonical order.
    """
    distinct = drop_duplicates(frame, order)
    is_kept = distinct.frame.select(pl.struct(key).is_first_distinct()).to_series()
    return Distinct(
        distinct.frame.filter(is_kept),
        distinct.num_duplicates,
        dead_letters(
            distinct.frame.filter(~is_kept), "conflicting_key", stream_name=IMPRESSIONS, shown=shown
        ),
    )
