"""Rows of a stream while they are still numbers: one array per column."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.population import Ints

Rows = dict[str, NDArray[Any]]
"""Columns of equal length under the names they get in the files.

Strings are integer codes until they are written: the number of the request, or a place in the
column's vocabulary; `NULL_CODE` is a missing string. Missing floats are NaN. `timestamp` is in
milliseconds, `NULL_TIME` where it is missing or damaged.
"""

NULL_CODE = -1
NULL_TIME = int(np.iinfo(np.int64).min)


def num_rows(rows: Rows) -> int:
    """Returns the number of rows."""
    return len(rows["timestamp"])


def taken(rows: Rows, index: Ints) -> Rows:
    """Returns copies of some rows, in the order of `index`."""
    return {name: values[index] for name, values in rows.items()}


def concatenated(parts: list[Rows]) -> Rows:
    """Stacks rows that have the same columns."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
