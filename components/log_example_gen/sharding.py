"""Splits tables by a stable hash of key columns."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from components.log_example_gen.time_index import as_key_text

_BASE = 0x9E3779B97F4A7C15
_BASE_INVERSE = pow(_BASE, -1, 2**64)
_SEPARATOR = 0x100
_MISSING = 0x101
_CHUNK_ROWS = 8_192
"""Rows hashed at a time, so that the work stays in the processor's cache."""
_KEPT_POWERS = 2**18
"""Enough for a chunk of keys of 32 bytes; longer ones make their own."""

MAX_TABLE_ROWS = 65_536
"""Longest table sent between stages: elements must stay far below Beam's 2 GB."""


def shard_of(keys: list[pl.Series], num_shards: int) -> NDArray[np.int64]:
    """Assigns rows to shards by the text of their keys.

    Args:
        keys: Key columns, [rows] each; null is a value of its own.
        num_shards: Number of shards.

    Returns:
        Shard of each row, 0 to `num_shards` - 1, [rows].
    """
    if num_shards == 1:
        return np.zeros(len(keys[0]), dtype=np.int64)
    shards: NDArray[np.int64] = (key_hash(keys) % np.uint64(num_shards)).astype(np.int64)
    return shards


def key_hash(keys: list[pl.Series]) -> NDArray[np.uint64]:
    """Hashes the text of keys.

    The hash is a polynomial over the UTF-8 bytes modulo 2^64, computed for all rows at once from
    prefix sums, then mixed (Steele 2014, the finaliser of SplitMix64). It is the same on every
    machine, in every process and version, which Python's and the data frame library's are not.

    Args:
        keys: Key columns, [rows] each; null is a value of its own.

    Returns:
        uint64 [rows].
    """
    texts = [as_key_text(key) for key in keys]
    hashes = np.empty(len(texts[0]), dtype=np.uint64)
    for begin in range(0, len(hashes), _CHUNK_ROWS):
        total = np.zeros(len(texts[0][begin : begin + _CHUNK_ROWS]), dtype=np.uint64)
        with np.errstate(over="ignore"):
            for text in texts:
                part = _text_hash(text.slice(begin, _CHUNK_ROWS))
                total = _mixed(total * np.uint64(_BASE) + part)
        hashes[begin : begin + _CHUNK_ROWS] = total
    return hashes


def split_by_shard(
    frame: pl.DataFrame, keys: list[pl.Series], num_shards: int
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yields the rows of each shard, in tables of bounded length.

    Args:
        frame: Rows.
        keys: Key columns of the rows.
        num_shards: Number of shards.
    """
    if frame.is_empty():
        return
    if num_shards == 1:
        for part in frame.iter_slices(MAX_TABLE_ROWS):
            yield 0, part
        return
    shards = shard_of(keys, num_shards)
    order = np.argsort(shards, kind="stable")
    present, starts = np.unique(shards[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    for shard, start, end in zip(present, starts, ends, strict=True):
        for begin in range(start, end, MAX_TABLE_ROWS):
            yield int(shard), frame[order[begin : min(begin + MAX_TABLE_ROWS, end)]]


def _text_hash(text: pl.Series) -> NDArray[np.uint64]:
    arrow = text.to_arrow().cast(pa.large_string())
    offsets = np.frombuffer(arrow.buffers()[1], np.int64)[arrow.offset :][: len(arrow) + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    data = arrow.buffers()[2]
    content = np.frombuffer(data, np.uint8)[first:last] if data else np.zeros(0, np.uint8)
    # sum of (byte + 1) * base^i over the value's bytes, shifted back to begin at base^0.
    powers, inverse_powers = _powers(len(content) + 1)
    prefix = np.zeros(len(content) + 1, dtype=np.uint64)
    np.cumsum((content.astype(np.uint64) + np.uint64(1)) * powers[: len(content)], out=prefix[1:])
    ends = offsets - first
    hashed = (prefix[ends[1:]] - prefix[ends[:-1]]) * inverse_powers[ends[:-1]]
    hashed = hashed * np.uint64(_BASE) + np.uint64(_SEPARATOR)
    return np.where(text.is_null().to_numpy(), np.uint64(_MISSING), hashed)


def _powers(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Returns at least `count` powers of the base and of its inverse, from the 0th on."""
    return _kept_powers() if count <= _KEPT_POWERS else _make_powers(count)


@functools.cache
def _kept_powers() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    return _make_powers(_KEPT_POWERS)


def _make_powers(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    exponents = np.arange(count, dtype=np.uint64)
    return np.power(np.uint64(_BASE), exponents), np.power(np.uint64(_BASE_INVERSE), exponents)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
