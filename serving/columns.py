"""Columns as callers hold them (pandas, Arrow) become what the encoder takes: arrays and lists.

Neither library is imported here: a value can only be theirs if the caller imported them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.errors import InvalidRequestError


def as_columns(values: Any) -> dict[str, Any]:
    """Reads a dict of columns, a pandas DataFrame, or an Arrow Table or RecordBatch.

    Args:
        values: The columns.

    Returns:
        Per name a scalar, list or array; missing values are None or NaN.

    Raises:
        InvalidRequestError: It is none of these, a name is no text or comes twice.
    """
    if isinstance(values, Mapping):
        found = list(values.items())
    elif _is(values, "pandas", "DataFrame"):
        found = [(name, values.iloc[:, place]) for place, name in enumerate(values.columns)]
    elif _is(values, "pyarrow", "Table", "RecordBatch"):
        found = list(zip(values.schema.names, values.columns, strict=True))
    else:
        raise InvalidRequestError(
            "features are not given by name",
            constraint="a dict, a pandas DataFrame, an Arrow Table or RecordBatch",
            received=type(values).__name__,
            remedy="pass {feature: values}",
        )
    columns: dict[str, Any] = {}
    for name, column in found:
        if not isinstance(name, str) or name in columns:
            raise InvalidRequestError(
                "a feature's name is not usable",
                constraint="text, each name once",
                received=f"{name!r} twice" if name in columns else type(name).__name__,
                remedy="rename the column",
            )
        columns[name] = plain(column)
    return columns


def is_missing(value: Any) -> bool:
    """Whether a single value stands for a missing one: None, NaN or pandas' NA."""
    if value is None or isinstance(value, float):
        return value is None or value != value
    pandas = sys.modules.get("pandas")
    return pandas is not None and value is pandas.NA


def plain(column: Any) -> Any:
    """Turns a pandas or Arrow column into an array or list; returns anything else as it is.

    Args:
        column: A Series, Index, Array or ChunkedArray.
    """
    if _is(column, "pandas", "Series", "Index"):
        return _from_pandas(column)
    if _is(column, "pyarrow", "Array", "ChunkedArray"):
        return _from_arrow(column)
    return column


def _from_pandas(column: Any) -> Any:
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return column.to_numpy()
    # A missing string is NaN or pd.NA in pandas, neither of which is a string.
    missing = column.isna()
    return [
        None if absent else value for value, absent in zip(column.tolist(), missing, strict=True)
    ]


def _from_arrow(column: Any) -> Any:
    import pyarrow.types as types  # the caller has imported it

    number = types.is_integer(column.type) or types.is_floating(column.type)
    return column.to_numpy() if number and column.null_count == 0 else column.to_pylist()


def _is(value: Any, module: str, *names: str) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, tuple(getattr(loaded, n) for n in names))
