"""The file that as-of features are looked up in: arrays one after the other, described at the end.

    magic | array | array | ... | header (JSON) | length of the header, its CRC-32 | magic

Arrays are little-endian and start at multiples of 64 bytes, so that a reader maps the file and
uses them where they lie; nothing is parsed but the header. The entities of one set are sorted by
a 64-bit hash of their key, which is unique within the set (the writer picks a seed that makes it
so); the keys themselves are kept, so that an entity that was never seen is never mistaken for
another one.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Hashes: TypeAlias = NDArray[np.uint64]

MAGIC = b"PRSNAP02"
TAIL = struct.Struct("<QI8s")
"""Length of the header, its CRC-32, magic."""

FILE_NAME = "snapshot.lookup"
"""Name of the file in a run's features folder."""

KEY_SEPARATOR = b"\xff"
"""Between the parts of a key; UTF-8 never holds this byte, so parts cannot run into each other."""

_ALIGNMENT = 64
_MAX_SEEDS = 16
_FNV_PRIME = np.uint64(0x00000100000001B3)
_FNV_BASIS = np.uint64(0xCBF29CE484222325)


@dataclass(frozen=True)
class Texts:
    """Byte strings one after the other.

    Attributes:
        content: Their bytes, uint8.
        offsets: Where each starts, and the end of the last, [count + 1].
    """

    content: Array
    offsets: Array

    def __len__(self) -> int:
        """Number of strings."""
        return len(self.offsets) - 1

    @classmethod
    def of(cls, values: Sequence[bytes]) -> Texts:
        """Joins strings."""
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        return cls(np.frombuffer(b"".join(values), np.uint8), offsets_of(lengths))

    def take(self, positions: Array) -> Texts:
        """Selects strings by position."""
        starts = self.offsets[positions].astype(np.int64)
        lengths = self.offsets[np.asarray(positions) + 1].astype(np.int64) - starts
        offsets = offsets_of(lengths)
        return Texts(self.content[spread(starts, lengths)], offsets)


@dataclass(frozen=True)
class Numbers:
    """One number per entity.

    Attributes:
        name: Feature name.
        definition: Hash of what it means.
        values: Float64, NaN where missing, [entities].
        default: What an entity without events has; NaN for missing.
        elapses: Whether the value grows with the time since the snapshot (ages, in seconds).
    """

    name: str
    definition: str
    values: Array
    default: float
    elapses: bool


@dataclass(frozen=True)
class Lists:
    """A list of texts per entity; an entity without events has none.

    Attributes:
        name: Feature name.
        definition: Hash of what it means.
        offsets: Where each entity's list starts among the codes, [entities + 1].
        codes: Positions in `dictionary`, [values].
        dictionary: The distinct texts.
    """

    name: str
    definition: str
    offsets: Array
    codes: Array
    dictionary: Texts


@dataclass(frozen=True)
class EntitySet:
    """All entities of one kind with their features.

    Attributes:
        columns: Request columns whose values together name an entity.
        keys: Key of each entity: the columns' texts, joined by `KEY_SEPARATOR`, [entities].
        features: Their features.
    """

    columns: tuple[str, ...]
    keys: Texts
    features: tuple[Numbers | Lists, ...]


@dataclass(frozen=True)
class RateOf:
    """A smoothed ratio of two features of the snapshot; computed when it is asked for."""

    name: str
    definition: str
    numerator: str
    denominator: str
    prior_rate: float
    prior_strength: float


def write_snapshot(
    path: Path, as_of_ms: int, entity_sets: Iterable[EntitySet], rates: Sequence[RateOf]
) -> None:
    """Writes a snapshot; a reader sees the old file or the whole new one.

    Args:
        path: The file.
        as_of_ms: Time at which a request would see these values, in milliseconds since 1970.
        entity_sets: Taken one at a time, so that only one is in memory.
        rates: Ratios of their features.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("wb") as file:
        file.write(MAGIC)
        writer = _ArrayWriter(file)
        header = {
            "as_of_ms": as_of_ms,
            "entities": [_write_entities(entities, writer) for entities in entity_sets],
            "rates": [vars(rate) for rate in rates],
        }
        text = json.dumps(header, allow_nan=False).encode()
        file.write(text)
        file.write(TAIL.pack(len(text), zlib.crc32(text), MAGIC))
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


@dataclass
class _ArrayWriter:
    """Appends arrays and says where they lie."""

    file: BinaryIO
    written: int = field(default=0)

    def __call__(self, values: Array) -> dict[str, Any]:
        position = self.file.tell()
        self.file.write(b"\0" * (-position % _ALIGNMENT))
        offset = self.file.tell()
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        self.file.write(little.data)
        return {"offset": offset, "dtype": little.dtype.str, "size": len(little)}


def _write_entities(entities: EntitySet, write: _ArrayWriter) -> dict[str, Any]:
    seed, hashes = _unique_hashes(entities.keys)
    order = np.argsort(hashes)
    keys = entities.keys.take(order)
    return {
        "columns": list(entities.columns),
        "seed": seed,
        "hashes": write(hashes[order]),
        "keys": _write_texts(keys, write),
        "features": [_write_feature(feature, order, write) for feature in entities.features],
    }


def _write_feature(feature: Numbers | Lists, order: Array, write: _ArrayWriter) -> dict[str, Any]:
    if isinstance(feature, Numbers):
        return {
            "name": feature.name,
            "definition": feature.definition,
            "kind": "number",
            "default": None if np.isnan(feature.default) else feature.default,
            "elapses": feature.elapses,
            "values": write(_smallest_floats(feature.values[order])),
        }
    starts = feature.offsets[order].astype(np.int64)
    lengths = feature.offsets[order + 1].astype(np.int64) - starts
    return {
        "name": feature.name,
        "definition": feature.definition,
        "kind": "texts",
        "offsets": write(_smallest_integers(offsets_of(lengths))),
        "codes": write(_smallest_integers(feature.codes[spread(starts, lengths)])),
        "dictionary": _write_texts(feature.dictionary, write),
    }


def _write_texts(texts: Texts, write: _ArrayWriter) -> dict[str, Any]:
    return {"content": write(texts.content), "offsets": write(_smallest_integers(texts.offsets))}


def _smallest_floats(values: Array) -> Array:
    """Halves the size where that changes no value: counts nearly always."""
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    same = np.array_equal(narrow.astype(np.float64), values, equal_nan=True)
    return narrow if same else values.astype(np.float64)


def _smallest_integers(values: Array) -> Array:
    return values.astype(np.min_scalar_type(int(values.max()) if len(values) else 0))


def _unique_hashes(keys: Texts) -> tuple[int, Hashes]:
    for seed in range(_MAX_SEEDS):
        hashes = key_hashes(keys, seed)
        if len(np.unique(hashes)) == len(hashes):
            return seed, hashes
    raise AssertionError("the same entity occurs twice")


# Keys ------------------------------------------------------------------------------------------


def key_hashes(keys: Texts, seed: int) -> Hashes:
    """Hashes keys: FNV-1a over the bytes (Fowler, Noll and Vo), mixed by SplitMix64's finaliser.

    All keys advance by one byte at a time, the longest first in line, so the cost is that of the
    bytes and not of the keys.

    Args:
        keys: The keys.
        seed: Another seed gives independent hashes.

    Returns:
        uint64 [keys].
    """
    lengths = np.diff(keys.offsets.astype(np.int64))
    order = np.argsort(-lengths, kind="stable")
    starts = keys.offsets[:-1].astype(np.int64)[order]
    # At byte j the keys still in line are the first ones: those longer than j.
    ascending = lengths[order][::-1]
    hashes = np.full(len(lengths), _FNV_BASIS ^ np.uint64(seed), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for j in range(int(lengths.max()) if len(lengths) else 0):
            count = len(ascending) - int(np.searchsorted(ascending, j, side="right"))
            hashes[:count] ^= keys.content[starts[:count] + j]
            hashes[:count] *= _FNV_PRIME
        hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found = np.empty_like(hashes)
    found[order] = hashes ^ (hashes >> np.uint64(31))
    return found


def offsets_of(lengths: Array) -> Array:
    """Turns lengths [n] into starts and the last end, [n + 1]."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def spread(starts: Array, lengths: Array) -> Array:
    """Lists the positions `start`, `start + 1`, ... of every range, one range after the other."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(int(lengths.sum()))


def arrays_in(node: Any) -> Iterator[dict[str, Any]]:
    """Yields the description of every array in a header."""
    if isinstance(node, dict):
        if node.keys() == {"offset", "dtype", "size"}:
            yield node
            return
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from arrays_in(each)
