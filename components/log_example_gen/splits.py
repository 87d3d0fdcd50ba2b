"""Which split an impression belongs to, and what its labels may see."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.log_example_gen.spec import Window
from models.spec.keys import TIMESTAMP

SPLITS = ("train", "validation", "test")
SPLIT = "row__split"
"""Column that names the split of a row."""


def add_split(rows: pl.DataFrame, window: Window) -> pl.DataFrame:
    """Adds the split of each row; null outside the windows."""
    time = pl.col(TIMESTAMP)
    return rows.with_columns(
        pl.when((time < window.train_start) | (time >= window.test_end))
        .then(None)
        .when(time < window.validation_start)
        .then(pl.lit("train"))
        .when(time < window.test_start)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("test"))
        .alias(SPLIT)
    )


def split_cutoffs(rows: pl.DataFrame, window: Window) -> NDArray[np.int64]:
    """Returns the time before which events may enter each row's labels, [rows]."""
    is_train = (rows[SPLIT] == "train").to_numpy()
    return np.where(is_train, min(window.train_cutoff, window.cutoff), window.cutoff)
