"""SQL expressions in configurations: which columns one reads."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any


class ExpressionError(ValueError):
    """The text is not one SQL expression."""


@lru_cache(maxsize=1024)
def referenced_columns(expression: str) -> frozenset[str]:
    """Returns the names of the columns that a DuckDB expression reads.

    Args:
        expression: e.g. ``list_contains(clicked_ids, item_id)``.

    Raises:
        ExpressionError: It does not parse, is more than one expression, or its value depends on
            more than the row: a subquery, a window function, an aggregate, a random number or the
            current time. Rows are computed in shards, and must not depend on how.
    """
    import duckdb

    connection = duckdb.connect(config={"enable_external_access": "false"})
    try:
        row = connection.execute(
            "SELECT json_serialize_sql(?)", [f"SELECT ({expression})"]
        ).fetchone()
    finally:
        connection.close()
    assert row is not None
    tree = json.loads(row[0])
    if tree.get("error"):
        raise ExpressionError(
            f"not a DuckDB expression: {tree.get('error_message', 'syntax error')}; "
            f"received {expression!r}"
        )
    if len(tree["statements"]) != 1:
        raise ExpressionError(f"one expression is expected; received {expression!r}")
    found: set[str] = set()
    bound: set[str] = set()
    _reject_beyond_row(tree["statements"][0]["node"]["select_list"], expression)
    _collect(tree["statements"][0]["node"]["select_list"], found, bound)
    return frozenset(found - bound)


@lru_cache(maxsize=1)
def _functions_beyond_row() -> frozenset[str]:
    """Functions whose value depends on more than their arguments, and aggregates."""
    import duckdb

    connection = duckdb.connect()
    try:
        rows = connection.execute(
            "SELECT function_name FROM duckdb_functions() GROUP BY function_name "
            "HAVING bool_or(stability <> 'CONSISTENT') OR bool_and(function_type = 'aggregate')"
        ).fetchall()
    finally:
        connection.close()
    return frozenset(name for (name,) in rows)


def _reject_beyond_row(node: Any, expression: str) -> None:
    if isinstance(node, list):
        for each in node:
            _reject_beyond_row(each, expression)
    if not isinstance(node, dict):
        return
    name = str(node.get("function_name", "")).lower()
    kind = node.get("class")
    if kind == "WINDOW" or (kind == "FUNCTION" and name in _functions_beyond_row()):
        raise ExpressionError(
            f"{name or 'a window'}() depends on more than its row, but rows are computed in "
            f"shards; received {expression!r}; remedy: use as-of or slate-relative features"
        )
    for value in node.values():
        _reject_beyond_row(value, expression)


def _collect(node: Any, found: set[str], bound: set[str]) -> None:
    if isinstance(node, list):
        for each in node:
            _collect(each, found, bound)
        return
    if not isinstance(node, dict):
        return
    kind = node.get("class")
    if kind == "SUBQUERY":
        raise ExpressionError("subqueries are not allowed in column expressions")
    if kind == "COLUMN_REF":
        found.add(node["column_names"][0])
        return
    if kind == "LAMBDA":
        left: set[str] = set()
        _collect(node.get("lhs"), left, bound)
        bound |= left
        _collect(node.get("expr"), found, bound)
        return
    for value in node.values():
        _collect(value, found, bound)
