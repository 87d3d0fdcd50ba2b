"""Hides people's data the moment a file is read: keyed hashes take the place of values."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import polars as pl
import pyarrow as pa

from components.log_example_gen.row_names import SOURCE_FILE, SOURCE_ROW
from components.log_example_gen.spec import DatasetPrivacy, Erasure
from models.spec.errors import DataError
from models.spec.pii_key import PiiKey

_DIGEST_CHARACTERS = 32


class Pseudonyms:
    """Replaces values of people's data by keyed hashes, each distinct value hashed once.

    Attributes:
        person: Column that identifies a person.
        erased: Hashes of the people to leave out.

    Args:
        key: The key.
        person: Column that identifies a person.
        erased: Hashes of the people to leave out, in any order.
    """

    def __init__(self, key: PiiKey, person: str, erased: frozenset[str] = frozenset()) -> None:
        self._key = key
        self.person = person
        self.erased = pl.Series("erased", sorted(erased), dtype=pl.String)

    @classmethod
    def of(cls, privacy: DatasetPrivacy) -> Pseudonyms:
        """Takes key and erasure list from where a dataset says they are.

        Raises:
            ConfigError: The key is missing, or is not the one of the run.
            DataError: The erasure list is missing, or is not the one of the run.
        """
        key = PiiKey.from_environment(privacy.key_env, privacy.hash_characters)
        key.check(privacy.key_fingerprint)
        erased: frozenset[str] = frozenset()
        if privacy.erasure is not None:
            erased = _erased(key, privacy.erasure)
        return cls(key, privacy.person, erased)

    def hashed(self, values: pl.Series) -> pl.Series:
        """Hashes text, or the elements of lists of text; null and '' stay as they are.

        Args:
            values: String or List(String), [rows].
        """
        if isinstance(values.dtype, pl.List):
            arrow = values.to_arrow()
            elements = self.hashed(pl.Series(arrow.values, dtype=pl.String))
            rebuilt = pl.Series(
                values.name,
                pa.LargeListArray.from_arrays(arrow.offsets, elements.to_arrow()),
                dtype=pl.List(pl.String),
            )
            return rebuilt.set(values.is_null(), None) if values.null_count() else rebuilt
        distinct = values.drop_nulls().unique()
        hashes = [self._key.hash(text) for text in distinct]
        known = pl.DataFrame({"text": distinct, "hash": pl.Series(hashes, dtype=pl.String)})
        # Left join: a value without a hash could only become null, never pass through.
        return (
            values.alias("text")
            .to_frame()
            .join(known, on="text", how="left", maintain_order="left")["hash"]
            .alias(values.name)
        )

    def is_erased(self, rows: pl.DataFrame) -> pl.Series:
        """Tells which rows are of people to leave out, [rows].

        Args:
            rows: Canonical rows, hashed; of any stream.
        """
        if self.person not in rows.columns or self.erased.is_empty():
            return pl.repeat(False, len(rows), dtype=pl.Boolean, eager=True)
        return rows[self.person].is_in(self.erased.implode()).fill_null(False)

    def withheld(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Hashes everything in rows that the reader refuses.

        A broken row may hold anything anywhere: an address where a price belongs.

        Args:
            frame: Source columns of any type, with file and row number.
        """
        places = (SOURCE_FILE, SOURCE_ROW)
        return frame.with_columns(
            self.hashed(_as_text(frame[name])) for name in frame.columns if name not in places
        )


def read_erasure(path: Path, key: PiiKey) -> Erasure:
    """Reads how many people a list names, and which list it is.

    Args:
        path: A text file with one raw id a line; blank lines do not count.
        key: The key.

    Raises:
        DataError: The file cannot be read.
    """
    ids = _read_ids(path)
    return Erasure(path=str(path.resolve()), count=len(ids), digest=_digest(key, ids))


def _erased(key: PiiKey, erasure: Erasure) -> frozenset[str]:
    ids = _read_ids(Path(erasure.path))
    if _digest(key, ids) != erasure.digest:
        raise DataError(
            f"the erasure list {erasure.path} is not the one the run began with",
            constraint=f"{erasure.count} ids with the digest {erasure.digest}",
            received=f"{len(ids)} ids with the digest {_digest(key, ids)}",
            remedy="start the run again: another list is another run",
        )
    return frozenset(map(key.hash, ids))


@lru_cache(maxsize=2)
def _ids_of(path: Path, modified_ns: int) -> frozenset[str]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return frozenset(text for line in lines if (text := line.strip()))


def _read_ids(path: Path) -> frozenset[str]:
    try:
        return _ids_of(path, path.stat().st_mtime_ns)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the erasure list {path}",
            constraint="a UTF-8 text file with one id a line",
            received=getattr(error, "strerror", None) or type(error).__name__,
            remedy="give it with --erase",
        ) from None


def _digest(key: PiiKey, ids: frozenset[str]) -> str:
    """Hashes a list by its hashed ids: of the raw ones, a short list could be guessed."""
    content = "\n".join(sorted(map(key.hash, ids)))
    return hashlib.sha256(content.encode()).hexdigest()[:_DIGEST_CHARACTERS]


def _as_text(values: pl.Series) -> pl.Series:
    if isinstance(values.dtype, pl.List):
        if isinstance(values.dtype.inner, pl.List | pl.Array | pl.Struct | pl.Binary):
            return _unshown(values)
        return values.cast(pl.List(pl.String), strict=False)
    if isinstance(values.dtype, pl.Array | pl.Struct | pl.Object | pl.Binary):
        return _unshown(values)
    return values.cast(pl.String, strict=False)


def _unshown(values: pl.Series) -> pl.Series:
    return pl.repeat("...", len(values), dtype=pl.String, eager=True).alias(values.name)
