"""As-of features looked up by entity: opens in milliseconds, answers batches, needs NumPy alone."""

from __future__ import annotations

import itertools
import json
import mmap
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from models.spec.errors import DataError
from serving.errors import InvalidRequestError
from serving.snapshot_format import (
    FILE_NAME,
    KEY_SEPARATOR,
    MAGIC,
    TAIL,
    Array,
    RateOf,
    Texts,
    arrays_in,
    key_hashes,
    offsets_of,
    spread,
)

Values: TypeAlias = "Array | list[list[str]]"
"""Float64 [N] with NaN for missing values, or N lists of texts."""


@dataclass(frozen=True)
class LookedUp:
    """Features of N entities.

    Attributes:
        values: Each wanted feature, N values.
        num_unknown: By entity columns, how many of the N had no events.
    """

    values: Mapping[str, Values]
    num_unknown: Mapping[tuple[str, ...], int]


class FeatureSnapshot:
    """The as-of features of all entities at one time, as a run wrote them.

    The file is mapped, not read: the operating system loads the pages that look-ups touch, and
    processes on one machine share them. A newer file may take its place at any time; this one
    stays as it was opened. Safe to share between threads.

    Example:
        >>> snapshot = FeatureSnapshot.open("work/runs/RUN_ID/features")  # doctest: +SKIP
        >>> snapshot.look_up(["item_clicks"], {"item_id": ["a", "b"]}).values  # doctest: +SKIP
        {'item_clicks': array([12.,  0.])}

    Attributes:
        as_of_ms: Time at which a request would see these values, in milliseconds since 1970.
        rates: Ratios that are computed from looked-up features, by name.
        definitions: Hash of what each of `features` means, by name.
    """

    def __init__(self, content: Array, header: Mapping[str, Any]) -> None:
        """Finds the arrays; `open` does the rest."""
        self.as_of_ms = int(header["as_of_ms"])
        self.rates = {each["name"]: RateOf(**each) for each in header["rates"]}
        self.definitions: Mapping[str, str] = {
            each["name"]: each["definition"]
            for group in (*(e["features"] for e in header["entities"]), header["rates"])
            for each in group
        }
        self._sets = [_Entities.of(each, content) for each in header["entities"]]
        self._set_of = {name: entities for entities in self._sets for name in entities.features}

    @classmethod
    def open(cls, path: str | Path) -> FeatureSnapshot:
        """Maps a snapshot.

        Args:
            path: The file, or the run's features folder that holds it.

        Raises:
            DataError: There is none, or it is not whole.
        """
        file = Path(path)
        if file.is_dir():
            file = file / FILE_NAME
        try:
            with file.open("rb") as opened:
                mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise DataError(
                f"cannot open the feature snapshot {file}",
                received=getattr(error, "strerror", None) or str(error),
                remedy="give runs/RUN_ID/features of a finished run",
            ) from error
        return cls(np.frombuffer(mapped, np.uint8), _header(mapped, file))

    @property
    def features(self) -> tuple[str, ...]:
        """Names of what can be looked up or computed, sorted."""
        return tuple(sorted([*self._set_of, *self.rates]))

    @property
    def entity_columns(self) -> frozenset[str]:
        """Columns of all entity keys."""
        return frozenset(column for entities in self._sets for column in entities.columns)

    def num_entities(self, *columns: str) -> int:
        """Number of entities with these key columns."""
        return sum(len(e.keys) for e in self._sets if e.columns == columns)

    def columns_of(self, feature: str) -> tuple[str, ...]:
        """Returns the entity columns that a feature is looked up by; both sides' for a rate."""
        if feature in self.rates:
            rate = self.rates[feature]
            both = (*self.columns_of(rate.numerator), *self.columns_of(rate.denominator))
            return tuple(dict.fromkeys(both))
        return self._set_of[feature].columns

    def look_up(
        self,
        wanted: Sequence[str],
        entities: Mapping[str, Sequence[Any]],
        *,
        at_ms: int | None = None,
    ) -> LookedUp:
        """Looks features up.

        Args:
            wanted: Some of `features`.
            entities: Values of the entity columns that they need, N each: text, integers, flags;
                None for a missing one.
            at_ms: Time of the request: ages go on from the snapshot's time to it. The snapshot's
                own time if None.

        Returns:
            The values. An entity without events, and one whose key is missing, has what training
            saw for it: 0 for counts and sums, no list values, the prior of a rate, else a missing
            value.

        Raises:
            InvalidRequestError: An entity value is of another type.
        """
        elapsed_ms = 0 if at_ms is None else at_ms - self.as_of_ms
        places: dict[tuple[str, ...], Array] = {}

        def value_of(name: str) -> Values:
            if name in self.rates:
                rate = self.rates[name]
                top, bottom = (np.asarray(value_of(n)) for n in (rate.numerator, rate.denominator))
                prior = rate.prior_rate * rate.prior_strength
                return np.asarray((top + prior) / (bottom + rate.prior_strength))
            found = self._set_of[name]
            if found.columns not in places:
                keys = key_texts([entities[column] for column in found.columns], found.columns)
                places[found.columns] = found.places(*keys)
            return found.features[name].values(places[found.columns], elapsed_ms)

        return LookedUp(
            values={name: value_of(name) for name in wanted},
            num_unknown={c: int(np.count_nonzero(p < 0)) for c, p in places.items()},
        )


@dataclass(frozen=True)
class _Numbers:
    """A number per entity, where the file has it."""

    stored: Array
    default: float
    elapses: bool

    def values(self, places: Array, elapsed_ms: int) -> Array:
        found = np.full(len(places), self.default, dtype=np.float64)
        known = places >= 0
        found[known] = self.stored[places[known]]
        if self.elapses and elapsed_ms:
            # In whole milliseconds, as ingestion counts: the sum of two roundings would differ.
            found = (np.rint(found * 1000.0) + elapsed_ms) / 1000.0
        return found


@dataclass(frozen=True)
class _Lists:
    """A list of texts per entity, where the file has it."""

    offsets: Array
    codes: Array
    dictionary: Texts

    def values(self, places: Array, elapsed_ms: int) -> list[list[str]]:
        del elapsed_ms
        known = places >= 0
        lengths = np.zeros(len(places), np.int64)
        starts = np.zeros(len(places), np.int64)
        starts[known] = self.offsets[places[known]]
        lengths[known] = self.offsets[places[known] + 1].astype(np.int64) - starts[known]
        texts = self.dictionary.take(self.codes[spread(starts, lengths)])
        content, cuts = texts.content.tobytes(), texts.offsets.tolist()
        flat = [content[a:b].decode() for a, b in itertools.pairwise(cuts)]
        ends = offsets_of(lengths).tolist()
        return [flat[a:b] for a, b in itertools.pairwise(ends)]


@dataclass(frozen=True)
class _Entities:
    """One entity set, where the file has it."""

    columns: tuple[str, ...]
    seed: int
    hashes: Array
    keys: Texts
    features: Mapping[str, _Numbers | _Lists]

    @classmethod
    def of(cls, header: Mapping[str, Any], content: Array) -> _Entities:
        def array(where: Mapping[str, Any]) -> Array:
            return np.frombuffer(content, where["dtype"], where["size"], where["offset"])

        def texts(where: Mapping[str, Any]) -> Texts:
            return Texts(array(where["content"]), array(where["offsets"]))

        features: dict[str, _Numbers | _Lists] = {}
        for each in header["features"]:
            if each["kind"] == "number":
                default = np.nan if each["default"] is None else each["default"]
                features[each["name"]] = _Numbers(array(each["values"]), default, each["elapses"])
            else:
                features[each["name"]] = _Lists(
                    array(each["offsets"]), array(each["codes"]), texts(each["dictionary"])
                )
        return cls(
            tuple(header["columns"]),
            header["seed"],
            array(header["hashes"]),
            texts(header["keys"]),
            features,
        )

    def places(self, keys: Texts, present: Array) -> Array:
        """Finds entities: positions in the set, -1 for those that have no events, [keys]."""
        hashes = key_hashes(keys, self.seed)
        places = np.searchsorted(self.hashes, hashes)
        places[places == len(self.hashes)] = 0
        if not len(self.hashes):
            return np.full(len(keys), -1)
        starts = self.keys.offsets[places].astype(np.int64)
        lengths = self.keys.offsets[places + 1].astype(np.int64) - starts
        same = present & (self.hashes[places] == hashes) & (lengths == np.diff(keys.offsets))
        # A hash of 64 bits is nearly proof; the bytes are proof.
        rows = np.flatnonzero(same)
        asked = spread(keys.offsets[:-1][rows], lengths[rows])
        stored = spread(starts[rows], lengths[rows])
        differs = keys.content[asked] != self.keys.content[stored]
        same[np.repeat(rows, lengths[rows])[differs]] = False
        return np.where(same, places, -1)


def key_texts(parts: Sequence[Sequence[Any]], columns: Sequence[str]) -> tuple[Texts, Array]:
    """Formats entity keys as the logs' keys are: integers in decimal, `true` and `false`.

    Args:
        parts: Per entity column N values.
        columns: Their names, for errors.

    Returns:
        The keys, and which of them are present: no part is None.

    Raises:
        InvalidRequestError: A value is neither text, integer nor flag.
    """
    texts = [[_text(v, name) for v in values] for values, name in zip(parts, columns, strict=True)]
    present = np.ones(len(texts[0]), dtype=bool)
    for values in parts:
        present &= np.fromiter((value is not None for value in values), bool, len(values))
    joined = texts[0] if len(texts) == 1 else map(KEY_SEPARATOR.join, zip(*texts, strict=True))
    return Texts.of(list(joined)), present


def _text(value: Any, column: str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    if isinstance(value, bool | np.bool_):
        return b"true" if value else b"false"
    if isinstance(value, int | np.integer):
        return b"%d" % value
    raise InvalidRequestError(
        f"a value of the entity column {column!r} cannot be looked up",
        constraint="text, an integer or a flag; None for a missing value",
        received=type(value).__name__,
    )


def _header(mapped: mmap.mmap, file: Path) -> Any:
    """Reads the header and checks that every array it describes is there."""
    broken = DataError(
        f"{file} is not a whole feature snapshot",
        constraint="a file that a run of this version of polyrank wrote, not cut or changed since",
        remedy="copy it again from runs/RUN_ID/features, or run again after an update",
    )
    if len(mapped) < len(MAGIC) + TAIL.size or mapped[: len(MAGIC)] != MAGIC:
        raise broken
    length, checksum, magic = TAIL.unpack(mapped[-TAIL.size :])
    start = len(mapped) - TAIL.size - length
    if magic != MAGIC or start < len(MAGIC):
        raise broken
    text = mapped[start : start + length]
    if zlib.crc32(text) != checksum:
        raise broken
    header = json.loads(text)
    for array in arrays_in(header):
        if array["offset"] + array["size"] * np.dtype(array["dtype"]).itemsize > start:
            raise broken
    return header
