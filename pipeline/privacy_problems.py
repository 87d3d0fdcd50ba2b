"""What makes a declaration of people's data wrong: types, halves of a join, a missing key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from models.spec.errors import unknown
from models.spec.feature import SharedEncoding
from models.spec.problem import Problem
from models.spec.ranking import IMPRESSIONS

if TYPE_CHECKING:
    from pipeline.config import Config

_TYPES = ("string", "list[string]")


def pii_features(config: Config) -> frozenset[str]:
    """Columns and derived features whose values are keyed hashes."""
    found = {name for name, column in config.columns.items() if column.pii}
    for name, feature in config.features.items():
        as_of = feature.as_of
        if as_of is None or as_of.aggregate != "last_values" or as_of.value is None:
            continue
        stream = config.logs.streams.get(as_of.events)
        own = {} if as_of.events == IMPRESSIONS or stream is None else stream.columns
        value = own.get(as_of.value) or config.columns.get(as_of.value)
        if value is not None and value.pii:
            found.add(name)
    return frozenset(found)


def privacy_problems(config: Config) -> Iterator[Problem]:
    """Yields every fault in the declaration of people's data."""
    declared = [
        (("columns", name, "pii"), column) for name, column in config.columns.items() if column.pii
    ]
    declared += [
        (("logs", "streams", stream, "columns", name, "pii"), column)  # type: ignore[misc]
        for stream, source in config.logs.streams.items()
        for name, column in source.columns.items()
        if column.pii
    ]
    for path, column in declared:
        if config.privacy is None:
            yield Problem(path, "needs the top-level key `privacy`, e.g. {key_env: PII_KEY}")
        if column.type not in _TYPES:
            yield Problem(
                path,
                f"a pii column becomes text: type string or list[string], received {column.type} "
                "(integer ids can be declared string)",
            )
    if config.privacy is not None and not declared:
        yield Problem(("privacy",), "no column is marked `pii: true`: nothing would be hidden")
    for name, column in config.columns.items():
        if column.pii and (column.join is not None or column.expression is not None):
            yield Problem(
                ("columns", name, "pii"),
                "belongs on the columns that are read from a log: what is computed from them has "
                "hashes already",
            )
    yield from _halves(config)
    yield from _shared_tables(config)
    yield from _person(config)


def _halves(config: Config) -> Iterator[Problem]:
    """A key hidden in one log and not in the other would join nothing."""
    for stream, source in config.logs.streams.items():
        for name, column in source.columns.items():
            other = config.columns.get(name)
            if other is None or other.join is not None or other.expression is not None:
                continue
            if other.pii != column.pii:
                yield Problem(
                    ("logs", "streams", stream, "columns", name),
                    f"pii is {str(column.pii).lower()} here and {str(other.pii).lower()} in "
                    f"columns.{name}: joins and as-of features would find nothing; declare both "
                    "alike",
                )


def _shared_tables(config: Config) -> Iterator[Problem]:
    hidden = pii_features(config)
    encodings = [("columns", n, c.encoding) for n, c in config.columns.items()]
    encodings += [("features", n, f.encoding) for n, f in config.features.items()]
    for section, name, encoding in encodings:
        if isinstance(encoding, SharedEncoding) and (name in hidden) != (
            encoding.feature in hidden
        ):
            yield Problem(
                (section, name, "encoding", "feature"),
                f"one of {name!r} and {encoding.feature!r} is pii and the other is not: they "
                "would share no value; declare both alike",
            )


def _person(config: Config) -> Iterator[Problem]:
    privacy = config.privacy
    if privacy is None or privacy.person is None:
        return
    scalar = [n for n, c in config.columns.items() if c.pii and c.type == "string"]
    if privacy.person not in scalar:
        yield Problem(("privacy", "person"), unknown("pii column", privacy.person, scalar))
