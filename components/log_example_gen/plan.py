"""What a dataset specification asks of each stage, worked out once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from components.log_example_gen.expressions import Expression, in_order
from components.log_example_gen.pseudonyms import Pseudonyms
from components.log_example_gen.row_names import own_column, time_column
from components.log_example_gen.row_source import Limits, RowSource
from components.log_example_gen.spec import DatasetSpec, StreamColumn
from models.spec.column import Column, ColumnType, Join
from models.spec.errors import ConfigError
from models.spec.expression import referenced_columns
from models.spec.feature import AsOf
from models.spec.keys import TIMESTAMP
from models.spec.ranking import IMPRESSIONS


@dataclass(frozen=True)
class EventSet:
    """The events that one or several as-of features look at.

    Attributes:
        stream_name: A stream, or `impressions`.
        entity: Columns whose values name the entity.
        where: Condition, or None.
        value: Column to aggregate, or None.
        is_text: The value is taken as text, for last values.
        from_impressions: Columns among these that the stream lacks: they come from the
            impressions that its events join.
        delay_ms: How long after an event's own time it is known; impressions whose outcome is
            read are known only when that is final.
    """

    stream_name: str
    entity: tuple[str, ...]
    where: str | None
    value: str | None
    is_text: bool
    from_impressions: tuple[str, ...]
    delay_ms: int


@dataclass(frozen=True)
class JoinGroup:
    """Streams that join impressions on the same keys.

    Attributes:
        on: The keys.
        streams: Names of the streams.
        columns: For each stream, the impression columns it becomes.
    """

    on: tuple[str, ...]
    streams: tuple[str, ...]
    columns: Mapping[str, Mapping[str, tuple[ColumnType, Join]]]


class Plan:
    """A dataset specification with everything derived from it.

    Attributes:
        spec: The specification.
        ranking: Its ranking problem.
        window: Its times.
        num_shards: Number of shards.
    """

    def __init__(self, spec: DatasetSpec) -> None:
        """Derives the plan.

        Raises:
            ConfigError: Something that only the data side can refuse, e.g. a future column as key.
        """
        self.spec = spec
        self.ranking = spec.ranking
        self.window = spec.window
        self.num_shards = spec.num_shards
        self._check()

    # Reading ---------------------------------------------------------------------------------

    @cached_property
    def sources(self) -> dict[str, RowSource]:
        """What to read of each log, by stream name."""
        limits = Limits.of(self.spec.logs)
        logs, privacy = self.spec.logs, self.spec.privacy
        pseudonyms = Pseudonyms.of(privacy) if privacy is not None else None
        sources = {
            IMPRESSIONS: RowSource(
                IMPRESSIONS,
                logs.impressions,
                self._log_columns,
                tuple(name for name in self.required if name in self._log_columns),
                limits,
                pseudonyms,
            )
        }
        for name, stream in sorted(logs.streams.items()):
            sources[name] = RowSource(name, stream, stream.columns, stream.on, limits, pseudonyms)
        return sources

    @cached_property
    def _log_columns(self) -> dict[str, StreamColumn]:
        columns = {
            name: StreamColumn(type=column.type, source=column.source, pii=column.pii)
            for name, column in self.ranking.columns.items()
            if column.join is None and column.expression is None
        }
        for name, feature in self.ranking.features.items():
            if feature.source == "logged":
                columns[name] = self.spec.logged_feature(name)
        return columns

    @cached_property
    def required(self) -> tuple[str, ...]:
        """Columns of impressions that must not be null: the key and the slate."""
        slate = (self.ranking.slate,) if self.ranking.slate else ()
        return tuple(dict.fromkeys([*self.spec.logs.impressions.key, *slate]))

    @cached_property
    def early_expressions(self) -> tuple[Expression, ...]:
        """Computed columns known with the decision, evaluated when impressions are read."""
        return self._expressions(lambda column: column.availability != "future")

    @cached_property
    def late_expressions(self) -> tuple[Expression, ...]:
        """Computed columns known later, evaluated after streams are joined."""
        return self._expressions(lambda column: column.availability == "future")

    @cached_property
    def completing_columns(self) -> tuple[str, ...]:
        """Impression columns that `late_expressions` and event sets of impressions read."""
        read = {name for expression in self.late_expressions for name in expression.inputs}
        for event_set in self.event_sets:
            if event_set.stream_name == IMPRESSIONS:
                read |= {*event_set.entity, *((event_set.value,) if event_set.value else ())}
                read |= referenced_columns(event_set.where) if event_set.where else set()
        late = {expression.name for expression in self.late_expressions}
        joined = {name for name, c in self.ranking.columns.items() if c.join is not None}
        return tuple(sorted(read - late - joined))

    def _expressions(self, wanted: Callable[[Column], bool]) -> tuple[Expression, ...]:
        return in_order(
            [
                Expression(name, column.type, column.expression)
                for name, column in sorted(self.ranking.columns.items())
                if column.expression is not None and wanted(column)
            ]
        )

    # Identity of rows ------------------------------------------------------------------------

    @cached_property
    def key(self) -> tuple[str, ...]:
        """Columns that identify an impression."""
        return self.spec.logs.impressions.key

    @cached_property
    def home_columns(self) -> tuple[str, ...]:
        """Columns whose hash says where an impression's results meet: slates stay together."""
        return (self.ranking.slate,) if self.ranking.slate else self.key

    @cached_property
    def dedupe_columns(self) -> tuple[str, ...]:
        """Columns whose hash says where duplicates of an impression meet."""
        return self.home_columns if set(self.home_columns) <= set(self.key) else self.key

    @cached_property
    def impression_order(self) -> tuple[str, ...]:
        """Canonical order of impressions: time, key, other columns, those of the future last.

        What is known late comes last, so that it cannot decide which of two conflicting rows is
        kept unless they agree in everything known before.
        """
        known = [n for n in self._log_columns if not self.is_future(n) and n not in self.key]
        future = [n for n in self._log_columns if self.is_future(n)]
        return (TIMESTAMP, *self.key, *sorted(known), *sorted(future))

    def event_order(self, stream_name: str) -> tuple[str, ...]:
        """Canonical order of a stream's events: time, keys, other columns by name."""
        stream = self.spec.logs.streams[stream_name]
        others = sorted(name for name in stream.columns if name not in stream.on)
        return (time_column(stream_name), *stream.on, *others)

    def is_future(self, name: str) -> bool:
        """Whether a column of the impressions is known only after them."""
        column = self.ranking.columns.get(name)
        return column is not None and column.availability == "future"

    # Joins -----------------------------------------------------------------------------------

    @cached_property
    def join_groups(self) -> tuple[JoinGroup, ...]:
        """Streams with `on` keys, grouped by these."""
        streams = self.spec.logs.streams
        groups: dict[tuple[str, ...], list[str]] = {}
        for name in sorted(streams):
            if streams[name].on:
                groups.setdefault(tuple(sorted(streams[name].on)), []).append(name)
        return tuple(
            JoinGroup(on, tuple(names), {name: self._joined_columns(name) for name in names})
            for on, names in sorted(groups.items())
        )

    def _joined_columns(self, stream_name: str) -> dict[str, tuple[ColumnType, Join]]:
        return {
            name: (column.type, column.join)
            for name, column in sorted(self.ranking.columns.items())
            if column.join is not None and column.join.stream == stream_name
        }

    @cached_property
    def arrival_columns(self) -> frozenset[str]:
        """Joined columns whose first event's time is kept: targets taken as they arrive."""
        tasks = self.ranking.tasks.values()
        return frozenset(task.target for task in tasks if task.takes_fake_negatives)

    def join_window_ms(self, stream_name: str) -> int | None:
        """The longest attribution window of a stream; None if nothing joins it."""
        windows = [join.window for _, join in self._joined_columns(stream_name).values()]
        return max(windows, default=None)

    def carried_columns(self, group: JoinGroup) -> tuple[str, ...]:
        """Impression columns that the group's streams need for as-of features."""
        return tuple(
            sorted(
                {
                    column
                    for event_set in self.event_sets
                    if event_set.stream_name in group.streams
                    for column in event_set.from_impressions
                }
            )
        )

    # As-of features --------------------------------------------------------------------------

    @cached_property
    def as_of_features(self) -> dict[str, AsOf]:
        """As-of features to compute, by name; logged ones by the name of our own computation."""
        return {
            name if feature.source == "computed" else own_column(name): feature.as_of
            for name, feature in sorted(self.ranking.features.items())
            if feature.as_of is not None
        }

    @cached_property
    def event_sets(self) -> tuple[EventSet, ...]:
        """Distinct event sets of the as-of features."""
        return tuple(dict.fromkeys(map(self.event_set_of, self.as_of_features.values())))

    @cached_property
    def entity_sets(self) -> tuple[tuple[str, ...], ...]:
        """Distinct entities of the as-of features, in order."""
        return tuple(sorted({feature.entity for feature in self.as_of_features.values()}))

    @cached_property
    def logged_features(self) -> tuple[str, ...]:
        """Logged as-of features and rates: those compared with our own computation, by name."""
        return tuple(
            name
            for name, feature in sorted(self.ranking.features.items())
            if feature.source == "logged" and feature.slate is None
        )

    def features_of(self, entity: tuple[str, ...]) -> dict[str, AsOf]:
        """As-of features of one entity."""
        return {n: f for n, f in self.as_of_features.items() if f.entity == entity}

    def event_set_of(self, feature: AsOf) -> EventSet:
        """The events a feature looks at."""
        read = {*feature.entity, *((feature.value,) if feature.value else ())}
        if feature.where is not None:
            read |= referenced_columns(feature.where)
        lacking: tuple[str, ...] = ()
        delay_ms = 0
        if feature.events == IMPRESSIONS:
            delays = [self.ranking.maturity_ms(name) for name in read if self.is_future(name)]
            delay_ms = max(delays, default=0)
        else:
            own = self.spec.logs.streams[feature.events].columns
            lacking = tuple(sorted(read - set(own)))
        return EventSet(
            stream_name=feature.events,
            entity=feature.entity,
            where=feature.where,
            value=feature.value,
            is_text=feature.aggregate == "last_values",
            from_impressions=lacking,
            delay_ms=delay_ms,
        )

    def type_of(self, stream_name: str, name: str) -> ColumnType:
        """Declared type of a column of a stream, or of the impressions where it lacks it."""
        if stream_name != IMPRESSIONS:
            own = self.spec.logs.streams[stream_name].columns.get(name)
            if own is not None:
                return own.type
        return self.ranking.columns[name].type

    # Checks ----------------------------------------------------------------------------------

    def _check(self) -> None:
        if not self.key:
            raise ConfigError(
                "logs.impressions.key is empty",
                constraint="the columns that identify an impression",
                received="[]",
                remedy="name them, e.g. [request_id, item_id]",
            )
        for name in [*self.ranking.key_columns, *self.spec.slice_columns, *self.key]:
            if self.is_future(name):
                raise ConfigError(
                    f"column {name!r} is a key, a group or a slice",
                    constraint="availability request or decision: it is written into the examples",
                    received="availability future",
                    remedy="take the role away, or declare when the value is really known",
                )
        for name, stream in self.spec.logs.streams.items():
            for key in stream.on:
                if self.is_future(key):
                    raise ConfigError(
                        f"stream {name!r} joins on column {key!r}",
                        constraint="keys known with the impression",
                        received="availability future",
                        remedy="join on keys that the request carries",
                    )
        for name, feature in self.as_of_features.items():
            for column in self.event_set_of(feature).from_impressions:
                if self.is_future(column):
                    raise ConfigError(
                        f"as-of feature {name!r} reads column {column!r} of the impressions",
                        constraint=f"for events of {feature.events!r}, columns of the stream or "
                        "columns known with the impression",
                        received="availability future",
                        remedy=f"use `events: impressions` with a `where` that reads {column!r}",
                    )
            if feature.value is not None:
                _check_value(
                    f"as-of feature {name!r}",
                    feature.aggregate,
                    self.type_of(feature.events, feature.value),
                )
        for name, joined in self.ranking.columns.items():
            if joined.join is not None and joined.join.value is not None:
                _check_value(
                    f"column {name!r}",
                    joined.join.aggregate,
                    self.type_of(joined.join.stream, joined.join.value),
                )


def _check_value(what: str, aggregate: str, value_type: ColumnType) -> None:
    is_number = value_type in ("int", "float", "bool")
    if value_type.startswith("list[") or (aggregate in ("sum", "mean") and not is_number):
        raise ConfigError(
            f"{what} takes the {aggregate} of a {value_type} column",
            constraint="a number" if aggregate in ("sum", "mean") else "a scalar",
            received=value_type,
            remedy="declare the value's type, name another value or another aggregate",
        )
