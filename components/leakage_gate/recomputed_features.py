"""As-of, rate and slate-relative features computed a second time, from their definitions."""

from __future__ import annotations

from components.leakage_gate.raw_world import (
    EVENT,
    ROW,
    RawWorld,
    as_keys,
    equal,
    key_names,
    key_text,
    list_of,
    quoted,
)
from components.log_example_gen.row_names import EVENT_TIMESTAMP
from models.spec.expression import referenced_columns
from models.spec.feature import SMALLEST_NUMBER, AsOf, Rate, SlateRelative
from models.spec.keys import TIMESTAMP
from models.spec.ranking import IMPRESSIONS

KNOWN_AT = "known__at"
_VALUE = "event__value"


class RecomputedFeatures:
    """Recomputes the derived features of some impressions.

    Args:
        world: The raw logs.
    """

    def __init__(self, world: RawWorld) -> None:
        """Keeps the world."""
        self._world = world
        self._ranking = world.ranking

    @property
    def names(self) -> tuple[str, ...]:
        """Derived features that are computed, not logged."""
        features = self._ranking.features
        return tuple(sorted(n for n, f in features.items() if f.source == "computed"))

    def compute(self, rows: str) -> str:
        """Computes all derived features of some impressions.

        Args:
            rows: Table of `row__id`.

        Returns:
            A query for `row__id` and one column per derived feature.
        """
        self._make_targets(rows)
        relation = "targets"
        columns = {name: f"i.{quoted(name)}" for name in self._logged_inputs()}
        if columns:
            wanted = ", ".join(f"{value} AS {quoted(name)}" for name, value in columns.items())
            relation = f"(SELECT t.*, {wanted} FROM targets t JOIN impressions i USING ({ROW}))"
        features = self._ranking.features
        for number, name in enumerate(self.names):
            as_of = features[name].as_of
            if as_of is not None:
                table = f"as_of__{number}"
                needed = "targets" if name in self._slate_inputs() else rows
                self._world.connection.execute(
                    f"CREATE OR REPLACE TABLE {table} AS {self._as_of(as_of, name, needed)}"
                )
                relation = f"(FROM {relation} LEFT JOIN {table} USING ({ROW}))"
        for name in self.names:
            rate = features[name].rate
            if rate is not None:
                relation = f"(SELECT *, {_rate(rate)} AS {quoted(name)} FROM {relation})"
        for name in self.names:
            slate = features[name].slate
            if slate is not None:
                relation = f"(SELECT *, {_relative(slate)} AS {quoted(name)} FROM {relation})"
        return f"SELECT * FROM {relation} WHERE {ROW} IN (SELECT {ROW} FROM {quoted(rows)})"

    def rows_at_boundaries(self, feature: str, limit: int) -> str:
        """Finds impressions for which one millisecond decides: `<` and `<=` differ there.

        An event of the same entity happened exactly at the impression's time less the lag, or
        exactly one window before that. For an age it must be the entity's first event.

        Args:
            feature: An as-of feature.
            limit: At most this many rows.

        Returns:
            A query for `row__id`.
        """
        as_of = self._ranking.features[feature].as_of
        assert as_of is not None
        lags = [as_of.availability_lag]
        if as_of.window is not None:
            lags.append(as_of.availability_lag + as_of.window)
        entity = as_keys(as_of.entity, self._world.impression_types)
        window = self._world.dataset.window
        hits = " UNION ".join(
            f"SELECT i.{ROW} FROM inside i SEMI JOIN events e "
            f"ON {equal('i', 'e', key_names(as_of.entity))} "
            f"AND i.{TIMESTAMP} - {lag} = e.{KNOWN_AT}"
            for lag in lags
        )
        events = self._events(as_of)
        if as_of.aggregate == "age":
            keys = list_of(key_names(as_of.entity))
            events = f"SELECT min({KNOWN_AT}) AS {KNOWN_AT}, {keys} FROM ({events}) GROUP BY {keys}"
        return f"""
            WITH events AS ({events}),
            inside AS (
                SELECT {ROW}, {TIMESTAMP}, {entity} FROM impressions
                WHERE {TIMESTAMP} >= {window.train_start} AND {TIMESTAMP} < {window.test_end}
            )
            SELECT {ROW} FROM ({hits}) ORDER BY hash({ROW}), {ROW} LIMIT {limit}
        """

    # Targets ---------------------------------------------------------------------------------

    def _make_targets(self, rows: str) -> None:
        """Makes the table of the rows and, where slates matter, of their fellow candidates."""
        window = self._world.dataset.window
        split = (
            f"CASE WHEN {TIMESTAMP} < {window.train_start} OR {TIMESTAMP} >= {window.test_end} "
            f"THEN -1 WHEN {TIMESTAMP} < {window.validation_start} THEN 0 "
            f"WHEN {TIMESTAMP} < {window.test_start} THEN 1 ELSE 2 END"
        )
        slate = "CAST(NULL AS VARCHAR)"
        condition = f"{ROW} IN (SELECT {ROW} FROM {quoted(rows)})"
        if self._ranking.slate is not None and self._has_slate_features():
            slate = key_text(self._ranking.slate, self._world.impression_types[self._ranking.slate])
            condition = (
                f"(slate__key, slate__split) IN (SELECT (slate__key, slate__split) FROM placed "
                f"WHERE {condition})"
            )
        self._world.connection.execute(
            f"""
            CREATE OR REPLACE TABLE targets AS
            WITH placed AS (
                SELECT {ROW}, {TIMESTAMP}, {slate} AS slate__key, {split} AS slate__split
                FROM impressions
            )
            FROM placed WHERE {condition}
            """
        )

    def _has_slate_features(self) -> bool:
        return any(self._ranking.features[name].slate is not None for name in self.names)

    def _logged_inputs(self) -> tuple[str, ...]:
        """Columns of the impressions that rates and slate features read."""
        read: set[str] = set()
        for name in self.names:
            feature = self._ranking.features[name]
            if feature.rate is not None:
                read |= {feature.rate.numerator, feature.rate.denominator}
            if feature.slate is not None:
                read.add(feature.slate.of)
        return tuple(sorted(read - set(self.names)))

    # As-of -----------------------------------------------------------------------------------

    def _slate_inputs(self) -> frozenset[str]:
        """As-of features that slate features compare, and so are needed of fellow candidates."""
        features = self._ranking.features
        inputs = {f.slate.of for f in features.values() if f.slate is not None}
        for name in sorted(inputs & set(features)):
            rate = features[name].rate
            if rate is not None:
                inputs |= {rate.numerator, rate.denominator}
        return frozenset(inputs)

    def _as_of(self, as_of: AsOf, name: str, rows: str) -> str:
        """Writes the query for one feature of some impressions: `row__id` and the value."""
        seconds = f"(t.{TIMESTAMP} - {{}}(e.{KNOWN_AT})) / 1000.0"
        value = {
            "count": f"CAST(count(e.{KNOWN_AT}) AS DOUBLE)",
            "sum": f"coalesce(sum(CAST(e.{_VALUE} AS DOUBLE)), 0)",
            "mean": f"avg(CAST(e.{_VALUE} AS DOUBLE))",
            "age": seconds.format("min"),
            "recency": seconds.format("max"),
            "last_values": f"(list(e.{_VALUE} ORDER BY e.{KNOWN_AT} DESC, e.{_VALUE}) "
            f"FILTER (e.{_VALUE} IS NOT NULL))[1:{as_of.length}]",
        }[as_of.aggregate]
        at = f"t.{TIMESTAMP} - {as_of.availability_lag}"
        oldest = f"AND e.{KNOWN_AT} >= {at} - {as_of.window}" if as_of.window is not None else ""
        keys = key_names(as_of.entity)
        entity = as_keys(as_of.entity, self._world.impression_types)
        return f"""
            WITH events AS ({self._events(as_of)}),
            rows_of AS (
                SELECT {ROW}, {TIMESTAMP}, {entity} FROM impressions
                WHERE {ROW} IN (SELECT {ROW} FROM {quoted(rows)})
            ),
            moments AS (SELECT DISTINCT {TIMESTAMP}, {list_of(keys)} FROM rows_of),
            found AS (
                SELECT t.*, {value} AS {quoted(name)}
                FROM moments t
                LEFT JOIN events e
                ON {equal("t", "e", keys)} AND e.{KNOWN_AT} < {at} {oldest}
                GROUP BY t.{TIMESTAMP}, {", ".join(f"t.{key}" for key in keys)}
            )
            SELECT r.{ROW}, f.{quoted(name)}
            FROM rows_of r JOIN found f
            ON f.{TIMESTAMP} = r.{TIMESTAMP}
            AND {" AND ".join(f"f.{key} IS NOT DISTINCT FROM r.{key}" for key in keys)}
        """

    def _events(self, as_of: AsOf) -> str:
        """Writes the query for the events of a feature: time, entity as keys, value."""
        read = {*as_of.entity, *([as_of.value] if as_of.value else [])}
        if as_of.where is not None:
            read |= referenced_columns(as_of.where)
        types = self._world.impression_types
        if as_of.events == IMPRESSIONS:
            future = [c for c in read if self._ranking.columns[c].availability == "future"]
            delay = max((self._ranking.maturity_ms(column) for column in future), default=0)
            source = "outcomes" if future else "impressions"
            time = f"{TIMESTAMP} + {delay}"
        else:
            columns = self._world.dataset.logs.streams[as_of.events].columns
            types = types | {name: column.type for name, column in columns.items()}
            source, time = quoted(f"events_{as_of.events}"), EVENT_TIMESTAMP
            lacking = sorted(read - set(columns))
            if lacking:
                source = self._with_impression_columns(as_of.events, lacking)
        value = "NULL"
        if as_of.value is not None:
            is_text = as_of.aggregate == "last_values"
            value = key_text(as_of.value, types[as_of.value]) if is_text else quoted(as_of.value)
        condition = (
            f"WHERE coalesce(CAST(({as_of.where}) AS BOOLEAN), false)" if as_of.where else ""
        )
        return (
            f"SELECT {time} AS {KNOWN_AT}, {as_keys(as_of.entity, types)}, {value} AS {_VALUE} "
            f"FROM {source} {condition}"
        )

    def _with_impression_columns(self, stream: str, lacking: list[str]) -> str:
        """Adds columns of the impressions to the events that belong to them in time.

        Of impressions that share the columns an event is counted once.
        """
        windows = [
            column.join.window
            for column in self._ranking.columns.values()
            if column.join is not None and column.join.stream == stream
        ]
        inside = f"WHERE p.{EVENT_TIMESTAMP} < p.{TIMESTAMP} + {max(windows)}" if windows else ""
        return (
            f"(SELECT DISTINCT e.*, {', '.join(f'i.{quoted(c)}' for c in lacking)} "
            f"FROM {quoted(f'pairs_{stream}')} p "
            f"JOIN {quoted(f'events_{stream}')} e ON e.{EVENT} = p.{EVENT} "
            f"JOIN impressions i ON i.{ROW} = p.{ROW} {inside})"
        )


def _rate(rate: Rate) -> str:
    return (
        f"({quoted(rate.numerator)} + {rate.prior_rate!r} * {rate.prior_strength!r}) / "
        f"({quoted(rate.denominator)} + {rate.prior_strength!r})"
    )


def _relative(slate: SlateRelative) -> str:
    """Writes a slate feature as a window function over `slate__key` and `slate__split`.

    Values are rounded to float32 first, as requests carry them; subnormal ones count as 0.
    """
    rounded = f"CAST(CAST({quoted(slate.of)} AS FLOAT) AS DOUBLE)"
    value = f"CASE WHEN abs({rounded}) < {SMALLEST_NUMBER!r} THEN 0 ELSE {rounded} END"
    candidates = "PARTITION BY slate__key, slate__split"
    if slate.relation == "rank":
        return (
            f"(rank() OVER ({candidates} ORDER BY {value} DESC NULLS LAST) - 1) "
            f"/ CAST(count(*) OVER ({candidates}) AS DOUBLE)"
        )
    if slate.relation == "count":
        return f"CAST(count({value}) OVER ({candidates}) AS DOUBLE)"
    whole = "sum" if slate.relation == "share" else "max"
    return f"coalesce(({value}) / nullif({whole}({value}) OVER ({candidates}), 0), 0)"
