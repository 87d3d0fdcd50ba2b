"""Counting events before a time, per entity, by binary search."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.spec.errors import DataError

Ints = NDArray[np.int64]


class TimeIndex:
    """Finds how many of the sorted events precede (entity, time) pairs.

    Events are sorted by entity code, then time. Both are folded into one integer,
    `code * span + (time - first time)`, so that one search serves all entities.

    Attributes:
        starts: Position of the first event of each code, and the number of events at the end,
            [codes + 1].
    """

    def __init__(self, codes: Ints, times: Ints, num_codes: int) -> None:
        """Builds the index.

        Args:
            codes: Entity of each event, 0 to `num_codes` - 1, ascending, [events].
            times: Time of each event, ascending within an entity, [events].
            num_codes: Number of entities.

        Raises:
            DataError: Entities times time span exceed 63 bits.
        """
        self._low = int(times.min()) if len(times) else 0
        self._span = (int(times.max()) - self._low + 2) if len(times) else 2
        if (num_codes + 1) * self._span >= 2**63:
            raise DataError(
                f"{num_codes} entities over {self._span} ms are too many for one shard",
                remedy="raise beam.num_shards, or narrow logs.min_time and logs.max_time",
            )
        self._folded = codes * self._span + (times - self._low)
        self.starts: Ints = np.searchsorted(
            self._folded, np.arange(num_codes + 1, dtype=np.int64) * self._span
        ).astype(np.int64)

    def before(self, codes: Ints, bounds: Ints) -> Ints:
        """Counts the events sorted before each (code, bound): time < bound within the code.

        Args:
            codes: Entity of each query, [queries].
            bounds: Exclusive upper end of the time, [queries].

        Returns:
            Positions in the sorted events, from `starts[code]` to `starts[code + 1]`, [queries].
        """
        offsets = np.clip(bounds - self._low, 0, self._span - 1)
        return np.searchsorted(self._folded, codes * self._span + offsets).astype(np.int64)


def entity_codes(parts: list[list[pl.Series]]) -> tuple[list[Ints], int]:
    """Numbers the distinct entities of several tables together.

    Args:
        parts: For each table its entity columns as text, all with the same number of columns.

    Returns:
        For each table the codes of its rows, -1 where any column is null; the number of codes.
    """
    lengths = [len(columns[0]) for columns in parts]
    total = sum(lengths)
    combined = np.zeros(total, dtype=np.int64)
    is_null = np.zeros(total, dtype=bool)
    num_codes = 1
    for index in range(len(parts[0])):
        values = pa.chunked_array(
            [c for columns in parts for c in _chunks(columns[index])], pa.large_string()
        ).combine_chunks()
        encoded = values.dictionary_encode()
        is_null |= values.is_null().to_numpy(zero_copy_only=False)
        codes = pc.fill_null(encoded.indices, 0).to_numpy().astype(np.int64)
        if index == 0:
            combined, num_codes = codes, len(encoded.dictionary)
            continue
        pairs = pa.array(combined * len(encoded.dictionary) + codes).dictionary_encode()
        combined = pairs.indices.to_numpy().astype(np.int64)
        num_codes = len(pairs.dictionary)
    combined[is_null] = -1
    bounds = np.cumsum([0, *lengths])
    return [combined[a:b] for a, b in itertools.pairwise(bounds)], num_codes


def as_key_text(values: pl.Series) -> pl.Series:
    """Formats key values as the text that identifies them: integers in decimal, true and false.

    Keys of different types (an integer in one log, text in another) meet in this form.
    """
    if values.dtype == pl.Datetime:
        values = values.dt.epoch("ms")
    return values.cast(pl.String)


def _chunks(values: pl.Series) -> list[pa.Array]:
    arrow = values.to_arrow()
    return arrow.chunks if isinstance(arrow, pa.ChunkedArray) else [arrow]
