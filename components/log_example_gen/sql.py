"""DuckDB over frames: one connection a thread, no access to files, times in UTC."""

from __future__ import annotations

import threading

import duckdb
import polars as pl

_LOCAL = threading.local()


def query(sql: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Runs a statement over a frame named ``rows``; rows keep their order.

    Raises:
        duckdb.Error: The statement does not bind or fails on a value.
    """
    connection = _connection()
    connection.register("rows", rows.to_arrow())
    try:
        result = pl.from_arrow(connection.sql(sql).to_arrow_table())
    finally:
        connection.unregister("rows")
    assert isinstance(result, pl.DataFrame)
    return result


def quoted(name: str) -> str:
    """Quotes an identifier."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """Quotes a string."""
    return "'" + text.replace("'", "''") + "'"


def _connection() -> duckdb.DuckDBPyConnection:
    found: duckdb.DuckDBPyConnection | None = getattr(_LOCAL, "connection", None)
    if found is None:
        found = duckdb.connect(config={"enable_external_access": "false", "threads": 1})
        found.execute("SET timezone = 'UTC'")
        _LOCAL.connection = found
    return found
