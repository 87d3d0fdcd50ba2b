"""The raw logs as SQL tables: an account of the past that shares no code with the ingestion.

Only the reader of files is shared. Everything that could leak is written a second time, in another
way: what the ingestion does with sorted arrays and binary searches, this does with plain joins
over conditions that can be read next to the definitions of `Join`, `AsOf`, `Rate` and
`SlateRelative`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import duckdb
import pyarrow as pa

from components.log_example_gen.pseudonyms import Pseudonyms
from components.log_example_gen.reader import Limits, read_source
from components.log_example_gen.row_names import EVENT_TIMESTAMP
from components.log_example_gen.spec import DatasetSpec, StreamColumn
from models.spec.column import Column, ColumnType
from models.spec.expression import referenced_columns
from models.spec.keys import TIMESTAMP
from models.spec.ranking import IMPRESSIONS

ROW = "row__id"
EVENT = "event__id"

_SQL_TYPES: dict[ColumnType, str] = {
    "string": "VARCHAR",
    "int": "BIGINT",
    "float": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMP",
    "list[string]": "VARCHAR[]",
    "list[int]": "BIGINT[]",
    "list[float]": "DOUBLE[]",
}


class RawWorld:
    """Impressions and events before the cut-off, without duplicates, in DuckDB.

    Tables and what their rows are: `impressions` (one per key, with `row__id`, time, logged
    columns and those computed from them), `events_<stream>`, `pairs_<stream>` (an event and an
    impression it belongs to, however late). `outcomes` adds the future columns to `impressions`.

    Args:
        dataset: Where the logs lie and what they mean.

    Raises:
        DataError: A log cannot be read.
    """

    def __init__(self, dataset: DatasetSpec) -> None:
        """Reads the logs and prepares the tables."""
        self.dataset = dataset
        self.ranking = dataset.ranking
        self._pseudonyms = Pseudonyms.of(dataset.privacy) if dataset.privacy else None
        self.connection = duckdb.connect(config={"enable_external_access": "false"})
        self.connection.execute("SET timezone = 'UTC'")
        self._make_impressions()
        for stream in dataset.logs.streams:
            self._make_events(stream)
            if dataset.logs.streams[stream].on:
                self._make_pairs(stream)
        self._make_outcomes()

    def close(self) -> None:
        """Frees the tables."""
        self.connection.close()

    def fetch(self, sql: str) -> pa.Table:
        """Runs a query."""
        return self.connection.sql(sql).to_arrow_table()

    def add(self, name: str, table: pa.Table) -> None:
        """Stores a table under a name."""
        self.connection.register("arrow__table", table)
        self.connection.execute(f"CREATE OR REPLACE TABLE {quoted(name)} AS FROM arrow__table")
        self.connection.unregister("arrow__table")

    @property
    def impression_types(self) -> dict[str, ColumnType]:
        """Declared types of the impressions' columns."""
        return {name: column.type for name, column in self.ranking.columns.items()}

    # Impressions -----------------------------------------------------------------------------

    def _make_impressions(self) -> None:
        logs, columns = self.dataset.logs, self._logged_columns()
        slate = (self.ranking.slate,) if self.ranking.slate else ()
        required = tuple(dict.fromkeys((*logs.impressions.key, *slate)))
        read = read_source(
            self.dataset.root,
            logs.impressions,
            columns,
            stream_name=IMPRESSIONS,
            required=tuple(name for name in required if name in columns),
            limits=Limits.of(logs),
            pseudonyms=self._pseudonyms,
        )
        self.add("raw__impressions", read.table)
        key = list_of(logs.impressions.key)
        # Of rows with one key and other contents the smallest is kept: by time, then key, then
        # what was known with the impression, and by what was not only if all that is equal.
        known = [n for n in sorted(columns) if not self._is_future(n)]
        late = [n for n in sorted(columns) if self._is_future(n)]
        order = ", ".join(f"{quoted(c)} NULLS FIRST" for c in (TIMESTAMP, *known, *late))
        self.connection.execute(
            f"""
            CREATE TABLE impressions AS
            WITH known AS (
                SELECT DISTINCT {list_of((TIMESTAMP, *columns))} FROM raw__impressions
                WHERE {quoted(TIMESTAMP)} < {self.dataset.window.cutoff}
            ), first_of_key AS (
                SELECT * FROM {self._with_expressions("known", future=False)}
                WHERE {" AND ".join(f"{quoted(name)} IS NOT NULL" for name in required)}
                QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {order}) = 1
            )
            SELECT row_number() OVER (ORDER BY {quoted(TIMESTAMP)}, {key}) AS {ROW}, *
            FROM first_of_key
            """
        )

    def _logged_columns(self) -> dict[str, StreamColumn]:
        """Columns that the impressions' log itself carries."""
        columns = {
            name: StreamColumn(type=column.type, source=column.source, pii=column.pii)
            for name, column in self.ranking.columns.items()
            if column.join is None and column.expression is None
        }
        for feature in (f for f in self.ranking.features if self._is_logged(f)):
            columns[feature] = self.dataset.logged_feature(feature)
        return columns

    def _is_logged(self, feature: str) -> bool:
        return self.ranking.features[feature].source == "logged"

    def _is_future(self, name: str) -> bool:
        column = self.ranking.columns.get(name)
        return column is not None and column.availability == "future"

    def _with_expressions(self, relation: str, *, future: bool) -> str:
        """Wraps a relation in one query per computed column, inputs first."""
        computed = {
            name: column
            for name, column in self.ranking.columns.items()
            if column.expression is not None and self._is_future(name) == future
        }
        done: set[str] = set()
        while len(done) < len(computed):
            for name, column in computed.items():
                assert column.expression is not None
                waits = referenced_columns(column.expression) & set(computed) - done
                if name not in done and not waits:
                    relation = (
                        f"(SELECT *, {_expression(column)} AS {quoted(name)} FROM {relation})"
                    )
                    done.add(name)
        return relation

    # Events ----------------------------------------------------------------------------------

    def _make_events(self, stream: str) -> None:
        logs = self.dataset.logs
        source = logs.streams[stream]
        read = read_source(
            self.dataset.root,
            source,
            source.columns,
            stream_name=stream,
            required=source.on,
            limits=Limits.of(logs),
            pseudonyms=self._pseudonyms,
        )
        self.add("raw__events", read.table)
        self.connection.execute(
            f"""
            CREATE TABLE {quoted(f"events_{stream}")} AS
            WITH known AS (
                SELECT DISTINCT {list_of((EVENT_TIMESTAMP, *source.columns))} FROM raw__events
                WHERE {EVENT_TIMESTAMP} < {self.dataset.window.cutoff}
            )
            SELECT row_number() OVER () AS {EVENT}, * FROM known
            """
        )

    def _make_pairs(self, stream: str) -> None:
        """Pairs events with the latest impressions at or before them that share their keys."""
        source = self.dataset.logs.streams[stream]
        on, events = source.on, quoted(f"events_{stream}")
        of_event = as_keys(on, {n: c.type for n, c in source.columns.items()})
        of_impression = as_keys(on, self.impression_types)
        self.connection.execute(
            f"""
            CREATE TABLE {quoted(f"pairs_{stream}")} AS
            WITH moments AS (SELECT DISTINCT {of_impression}, {TIMESTAMP} FROM impressions),
            belongs AS (
                SELECT e.{EVENT}, e.{EVENT_TIMESTAMP}, m.*
                FROM (SELECT {EVENT}, {EVENT_TIMESTAMP}, {of_event} FROM {events}) e
                ASOF JOIN moments m
                ON {equal("e", "m", key_names(on))} AND e.{EVENT_TIMESTAMP} >= m.{TIMESTAMP}
            )
            SELECT b.{EVENT}, b.{EVENT_TIMESTAMP}, i.{ROW}, i.{TIMESTAMP}
            FROM belongs b
            JOIN (SELECT {ROW}, {TIMESTAMP}, {of_impression} FROM impressions) i
            ON {equal("b", "i", (*key_names(on), TIMESTAMP))}
            """
        )

    # Outcomes --------------------------------------------------------------------------------

    def _make_outcomes(self) -> None:
        joined = {n: c for n, c in self.ranking.columns.items() if c.join is not None}
        relation = "impressions"
        for number, (name, column) in enumerate(joined.items()):
            assert column.join is not None
            join = column.join
            value = f"e.{quoted(join.value)}" if join.value else "NULL"
            aggregate = {
                "any": f"count(p.{EVENT}) > 0",
                "count": f"count(p.{EVENT})",
                "sum": f"coalesce(sum(CAST({value} AS DOUBLE)), 0)",
                "max": f"max({value})",
                "first": f"first({value} ORDER BY p.{EVENT_TIMESTAMP}, {value}) "
                f"FILTER ({value} IS NOT NULL)",
            }[join.aggregate]
            on = self.dataset.logs.streams[join.stream].on
            has_keys = " AND ".join(f"i.{quoted(key)} IS NOT NULL" for key in on)
            value_of_row = (
                f"CASE WHEN any_value({has_keys}) THEN {_cast(aggregate, column.type)} END"
            )
            # ASOF pairs an event with one time only; the window is what this column allows.
            self.connection.execute(
                f"""
                CREATE TABLE outcome__{number} AS
                SELECT i.{ROW}, {value_of_row} AS {quoted(name)}
                FROM impressions i
                LEFT JOIN {quoted(f"pairs_{join.stream}")} p
                ON p.{ROW} = i.{ROW} AND p.{EVENT_TIMESTAMP} < i.{TIMESTAMP} + {join.window}
                LEFT JOIN {quoted(f"events_{join.stream}")} e ON e.{EVENT} = p.{EVENT}
                GROUP BY i.{ROW}
                """
            )
            relation = f"(FROM {relation} JOIN outcome__{number} USING ({ROW}))"
        self.connection.execute(
            f"CREATE TABLE outcomes AS FROM {self._with_expressions(relation, future=True)}"
        )


def _cast(value: str, column_type: ColumnType) -> str:
    """Casts to a column's type; what is not a finite number is missing."""
    cast = f"CAST({value} AS {_SQL_TYPES[column_type]})"
    return f"(CASE WHEN isfinite({cast}) THEN {cast} END)" if column_type == "float" else cast


def _expression(column: Column) -> str:
    assert column.expression is not None
    return _cast(f"({column.expression})", column.type)


def quoted(name: str) -> str:
    """Quotes an identifier."""
    return '"' + name.replace('"', '""') + '"'


def list_of(names: Iterable[str]) -> str:
    """Writes a list of identifiers."""
    return ", ".join(map(quoted, names))


def key_names(columns: Sequence[str]) -> tuple[str, ...]:
    """Names of columns compared as keys; see `as_keys`."""
    return tuple(f"key__{number}" for number in range(len(columns)))


def as_keys(columns: Sequence[str], types: Mapping[str, ColumnType]) -> str:
    """Selects columns as the text that identifies them; two logs may type a key in two ways.

    Args:
        columns: The columns; the result names them `key__0`, `key__1`, ...
        types: Their types.
    """
    return ", ".join(
        f"{key_text(column, types[column])} AS {name}"
        for column, name in zip(columns, key_names(columns), strict=True)
    )


def key_text(column: str, column_type: ColumnType) -> str:
    """Writes a value as text: integers in decimal, times in milliseconds since 1970."""
    value = quoted(column)
    return f"CAST({f'epoch_ms({value})' if column_type == 'timestamp' else value} AS VARCHAR)"


def equal(left: str, right: str, names: Iterable[str]) -> str:
    """Writes the condition that two tables agree in some columns."""
    return " AND ".join(f"{left}.{quoted(n)} = {right}.{quoted(n)}" for n in names)
