"""Completes requests with as-of features from a snapshot, of a stated and limited age."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import numpy as np

from serving.errors import InvalidRequestError, PreconditionError
from serving.snapshot import FeatureSnapshot


class StaleSnapshotError(PreconditionError):
    """The features at hand are older than allowed."""

    advice = "load the snapshot of a newer run, or raise max_age_seconds"


class OtherDefinitionError(PreconditionError):
    """A feature at hand means something else than the model was trained on."""

    advice = "load the snapshot of the run that pushed the model, runs/RUN_ID/features"


@dataclass(frozen=True)
class FilledFeatures:
    """Where the as-of features of a request came from.

    Attributes:
        as_of_ms: Time of the snapshot, in milliseconds since 1970.
        age_seconds: How long before the request that was.
        is_stale: Whether the age exceeds its limit.
        names: The features that were filled in, sorted.
        num_unknown: By entity columns, how many values of the request had no events.
    """

    as_of_ms: int
    age_seconds: float
    is_stale: bool
    names: tuple[str, ...]
    num_unknown: Mapping[tuple[str, ...], int]

    @property
    def as_of(self) -> str:
        """Time of the snapshot as ISO 8601."""
        moment = datetime.fromtimestamp(self.as_of_ms / 1000, tz=timezone.utc)
        return moment.isoformat(timespec="milliseconds")

    @property
    def age(self) -> str:
        """The age in words: ``1 day, 2:03:04 before`` the request, or ``after`` it."""
        side = "before" if self.age_seconds >= 0 else "after"
        return f"{timedelta(seconds=round(abs(self.age_seconds)))} {side}"


@dataclass(frozen=True)
class SnapshotFeatures:
    """Fills the features that a model takes and a request lacks.

    A value that the request carries itself is left alone. Entity columns that the model does not
    take are used and not sent.

    Example:
        >>> features = SnapshotFeatures(
        ...     FeatureSnapshot.open("runs/RUN_ID/features"), max_age_seconds=2 * 86_400
        ... )  # doctest: +SKIP
        >>> client = RankingClient("localhost:8500", "ranker", features=features)  # doctest: +SKIP

    Attributes:
        snapshot: The values.
        max_age_seconds: Limit of their age; none if None.
        when_stale: What an older snapshot means: ``refuse`` the request, or ``flag`` the answer.
        clock: Time of a request in milliseconds since 1970.
    """

    snapshot: FeatureSnapshot
    max_age_seconds: float | None = None
    when_stale: Literal["refuse", "flag"] = "refuse"
    clock: Callable[[], int] = lambda: round(time.time() * 1000)

    def fill_rows(
        self, inputs: Mapping[str, Any], wanted: Collection[str], definitions: Mapping[str, str]
    ) -> tuple[dict[str, Any], FilledFeatures]:
        """Completes rows of the `predict` signature.

        Args:
            inputs: Per input N values, entity columns among them.
            wanted: Inputs of the signature.
            definitions: What the model takes the features to mean, from its metadata.

        Returns:
            The inputs to send, and where the new ones came from.

        Raises:
            InvalidRequestError: An entity column is missing.
            OtherDefinitionError: The model takes a feature to mean something else.
            StaleSnapshotError: The snapshot is too old.
        """
        _, rows, filled = self.fill_slate({}, inputs, wanted, definitions)
        return rows, filled

    def fill_slate(
        self,
        context: Mapping[str, Any],
        candidates: Mapping[str, Any],
        wanted: Collection[str],
        definitions: Mapping[str, str],
    ) -> tuple[dict[str, Any], dict[str, Any], FilledFeatures]:
        """Completes a request of the `rank` signature.

        A feature whose entity is named by the context alone joins the context; else it has a value
        per candidate.

        Args:
            context: Values given once.
            candidates: Per feature N values.
            wanted: Inputs of the signature.
            definitions: What the model takes the features to mean, from its metadata.

        Returns:
            Context and candidates to send, and where the new values came from.

        Raises:
            InvalidRequestError: An entity column is missing.
            OtherDefinitionError: The model takes a feature to mean something else.
            StaleSnapshotError: The snapshot is too old.
        """
        at_ms = self.clock()
        is_stale = self._check_age(at_ms)
        given = context.keys() | candidates.keys()
        missing = [n for n in self.snapshot.features if n in wanted and n not in given]
        once: list[str] = []
        each: list[str] = []
        for name in missing:
            self._check_definition(name, definitions.get(name))
            columns = self.snapshot.columns_of(name)
            self._check_entity(name, columns, given)
            (once if set(columns) <= context.keys() else each).append(name)
        single = {n: [_one(context[n])] for n in self._columns_of(once)}
        num_rows = len(next(iter(candidates.values()), ()))
        repeated = {
            n: candidates[n] if n in candidates else [_one(context[n])] * num_rows
            for n in self._columns_of(each)
        }
        found = self.snapshot.look_up(once, single, at_ms=at_ms)
        found_each = self.snapshot.look_up(each, repeated, at_ms=at_ms)
        unused = self.snapshot.entity_columns - set(wanted)
        return (
            {n: v for n, v in context.items() if n not in unused} | _given_once(found.values),
            {n: v for n, v in candidates.items() if n not in unused} | dict(found_each.values),
            FilledFeatures(
                as_of_ms=self.snapshot.as_of_ms,
                age_seconds=(at_ms - self.snapshot.as_of_ms) / 1000,
                is_stale=is_stale,
                names=tuple(missing),
                num_unknown={**found.num_unknown, **found_each.num_unknown},
            ),
        )

    def _check_age(self, at_ms: int) -> bool:
        age_seconds = (at_ms - self.snapshot.as_of_ms) / 1000
        is_stale = self.max_age_seconds is not None and age_seconds > self.max_age_seconds
        if is_stale and self.when_stale == "refuse":
            raise StaleSnapshotError(
                "the as-of features are too old",
                constraint=f"at most {self.max_age_seconds:.12g} s",
                received=f"{age_seconds:.12g} s",
                remedy=StaleSnapshotError.advice,
            )
        return is_stale

    def _check_definition(self, name: str, definition: str | None) -> None:
        if definition != self.snapshot.definitions[name]:
            raise OtherDefinitionError(
                f"the snapshot's feature {name!r} is not the one the model was trained on",
                constraint=f"definition {definition}" if definition else "a model that defines it",
                received=f"definition {self.snapshot.definitions[name]}",
                remedy=OtherDefinitionError.advice,
            )

    def _columns_of(self, features: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(c for n in features for c in self.snapshot.columns_of(n)))

    @staticmethod
    def _check_entity(name: str, columns: Sequence[str], given: Collection[str]) -> None:
        absent = [column for column in columns if column not in given]
        if absent:
            raise InvalidRequestError(
                f"feature {name!r} cannot be looked up",
                constraint=f"the entity columns {', '.join(columns)} in the request",
                received=f"no {', '.join(absent)}",
                remedy="add them (None for a missing value), or send the feature itself",
            )


def _given_once(values: Mapping[str, Any]) -> dict[str, Any]:
    """Takes the only row of each, lists of texts included."""
    return {name: column[0] for name, column in values.items()}


def _one(value: Any) -> Any:
    """A context value may come with the leading dimension of 1."""
    is_single = isinstance(value, list | tuple | np.ndarray) and len(value) == 1
    return value[0] if is_single else value
