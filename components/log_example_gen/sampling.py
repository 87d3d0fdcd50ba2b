"""Negative downsampling: which negatives of a task are trained on."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.log_example_gen.plan import Plan
from components.log_example_gen.sharding import key_hash
from components.log_example_gen.splits import SPLIT
from components.log_example_gen.tally import Tally

_SALT = np.uint64(0xD1B54A32D192ED03)
"""Keeps the choice independent of the shard, which depends on the same hash."""


def with_sampled_negatives(
    rows: pl.DataFrame, labels: pl.DataFrame, plan: Plan
) -> tuple[pl.DataFrame, Tally]:
    """Takes the weight of most negatives away, in the train split.

    A row is kept for a task if its label is positive or `u(key) < negative_rate`, with u uniform
    in [0, 1) and made from the impression's key alone: the same row is kept in every run, and what
    a low rate keeps a higher one keeps too, so tasks with equal rates drop the same rows. Labels
    and masks stay as they are; a row that no task gives weight is skipped by the trainer.

    Args:
        rows: Keys and split.
        labels: What `labels` returned for these rows.
        plan: Tasks and keys.

    Returns:
        The labels with new weights; per task the negatives of the train split and those kept.
    """
    ranking = plan.ranking
    sampled = [n for n in sorted(ranking.tasks) if ranking.tasks[n].negative_rate < 1]
    if not sampled or rows.is_empty():
        return labels, {}
    chance = uniform_of([rows[name] for name in plan.key])
    in_train = (rows[SPLIT] == "train").to_numpy()
    tally: Tally = {}
    columns = []
    for name in sampled:
        trained = ranking.training_output(name)
        counts = labels[trained.mask_key].to_numpy() > 0
        negative = in_train & counts & (labels[trained.label_key].to_numpy() == 0)
        dropped = negative & (chance >= ranking.tasks[name].negative_rate)
        tally[("sampling", name, "negatives")] = int(negative.sum())
        tally[("sampling", name, "kept")] = int((negative & ~dropped).sum())
        for output in ranking.outputs_of(name):
            weight = labels[output.weight_key].to_numpy()
            columns.append(pl.Series(output.weight_key, np.where(dropped, 0, weight), pl.Float32))
    return labels.with_columns(columns), tally


def uniform_of(keys: list[pl.Series]) -> NDArray[np.float64]:
    """Turns keys into numbers in [0, 1), evenly spread, the same on every machine.

    Args:
        keys: Key columns, [rows] each.
    """
    with np.errstate(over="ignore"):
        salted = (key_hash(keys) ^ _SALT) * np.uint64(0x9E3779B97F4A7C15)
    return (salted >> np.uint64(11)).astype(np.float64) / 2.0**53
