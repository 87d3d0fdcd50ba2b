"""Evaluates the SQL expressions of a configuration over frames."""

from __future__ import annotations

import re
from dataclasses import dataclass

import duckdb
import polars as pl

from components.log_example_gen import sql
from components.log_example_gen.values import CANONICAL
from models.spec.column import ColumnType
from models.spec.errors import ConfigError
from models.spec.expression import referenced_columns

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

_QUOTED = re.compile(r"'.*'")


@dataclass(frozen=True)
class Expression:
    """A computed column.

    Attributes:
        name: The column's name, or what the expression is for.
        type: Declared type.
        text: The SQL.
    """

    name: str
    type: ColumnType
    text: str

    @property
    def inputs(self) -> frozenset[str]:
        """Columns it reads."""
        return referenced_columns(self.text)


def in_order(expressions: list[Expression]) -> tuple[Expression, ...]:
    """Sorts expressions such that each comes after those it reads."""
    by_name = {expression.name: expression for expression in expressions}
    done: dict[str, Expression] = {}

    def add(expression: Expression) -> None:
        for name in sorted(expression.inputs):
            if name in by_name and name not in done:
                add(by_name[name])
        done[expression.name] = expression

    for expression in expressions:
        if expression.name not in done:
            add(expression)
    return tuple(done.values())


def evaluate(frame: pl.DataFrame, expressions: tuple[Expression, ...]) -> pl.DataFrame:
    """Adds computed columns.

    Args:
        frame: Rows with the columns that the expressions read.
        expressions: What to compute, in order.

    Returns:
        The frame with one more column for each, in its canonical type. NaN and
        infinities become null.

    Raises:
        ConfigError: An expression does not bind, fails on a value, or is not row by row.
    """
    for expression in expressions:
        frame = frame.with_columns(_values(frame, expression).alias(expression.name))
    return frame


def holds(frame: pl.DataFrame, condition: str, place: str) -> pl.Series:
    """Evaluates a condition; null counts as false.

    Args:
        frame: Rows with the columns that the condition reads.
        condition: SQL.
        place: For messages.

    Raises:
        ConfigError: As in `evaluate`.
    """
    return _values(frame, Expression(place, "bool", condition)).fill_null(False)


def _values(frame: pl.DataFrame, expression: Expression) -> pl.Series:
    if frame.is_empty():
        return pl.Series([], dtype=CANONICAL[expression.type])
    inputs = [name for name in frame.columns if name in expression.inputs] or frame.columns[:1]
    statement = f"SELECT CAST(({expression.text}) AS {_SQL_TYPES[expression.type]}) AS v FROM rows"
    try:
        values = sql.query(statement, frame.select(inputs))["v"]
    except duckdb.Error as error:
        raise ConfigError(
            f"expression of {expression.name!r} fails: {expression.text}",
            constraint=f"a value of type {expression.type} for every row",
            # The engine quotes the value it failed on, which may be somebody's.
            received=_QUOTED.sub("'...'", str(error).split("\n", 1)[0]),
            remedy="correct it; TRY_CAST(x AS type) and nullif(x, 0) give null where a value fails",
        ) from None
    if len(values) != len(frame):
        raise ConfigError(
            f"expression of {expression.name!r} is not row by row: {expression.text}",
            constraint=f"one value for each of {len(frame)} rows",
            received=f"{len(values)} values",
            remedy="use as-of or slate features for statistics over rows",
        )
    values = values.cast(CANONICAL[expression.type])
    if values.dtype.is_float():
        values = values.set(~values.is_finite().fill_null(False), None)
    return values
