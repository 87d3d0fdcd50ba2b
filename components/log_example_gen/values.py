"""Turns source values into the declared types, and says which ones cannot be."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from components.log_example_gen import sql
from components.log_example_gen.spec import TimeUnit
from models.spec.column import ColumnType
from models.spec.errors import DataError

TIME = pl.Datetime("ms")
"""Canonical type of `timestamp` columns: UTC, without a zone."""

CANONICAL: dict[ColumnType, pl.DataType] = {
    "string": pl.String(),
    "int": pl.Int64(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
    "timestamp": TIME,
    "list[string]": pl.List(pl.String),
    "list[int]": pl.List(pl.Int64),
    "list[float]": pl.List(pl.Float64),
}
"""Type of a column's values inside this package, by declared type."""

_MS_PER_UNIT: dict[TimeUnit, float] = {"us": 1e-3, "ms": 1, "s": 1e3}
_MAX_EXACT = float(2**53)
_TRUE, _FALSE = ["true", "1", "1.0"], ["false", "0", "0.0"]


@dataclass(frozen=True)
class Converted:
    """Values of the declared type.

    Attributes:
        values: Converted values, null where missing or impossible, [rows].
        impossible: True where there was a value that is not of the type, [rows].
    """

    values: pl.Series
    impossible: pl.Series


def convert(values: pl.Series, wanted: ColumnType, unit: TimeUnit) -> Converted:
    """Converts a column to its declared type.

    Text is parsed; NaN is a missing value; infinities, fractions where an int is declared and text
    that is not a value of the type are impossible.

    Args:
        values: A source column: typed, text, or JSON text of lists.
        wanted: Declared type.
        unit: Unit of integer timestamps.

    Raises:
        DataError: The column as a whole is of another kind (a list where scalars are declared).
    """
    if values.dtype == pl.Null:
        return _all_possible(values.cast(CANONICAL[wanted]))
    if wanted.startswith("list["):
        return _lists(values, wanted, unit)
    if isinstance(values.dtype, pl.List | pl.Array | pl.Struct):
        raise DataError(
            f"column {values.name!r} holds {values.dtype}",
            constraint=f"the declared type {wanted}",
            remedy=f"declare it list[{wanted}], or name it in the source's `explode`",
        )
    if wanted == "string":
        return _strings(values)
    if wanted == "int":
        return _ints(values)
    if wanted == "float":
        return _floats(values)
    if wanted == "bool":
        return _bools(values)
    times = time_ms(values, unit)
    return Converted(times.cast(TIME), _lost(_without_blanks(values), times))


def time_ms(values: pl.Series, unit: TimeUnit) -> pl.Series:
    """Converts times to int64 milliseconds since 1970 UTC; null where it is none.

    Args:
        values: Integers or floats in `unit`, dates and times with their own unit (zones are
            converted, local ones taken as UTC), text that is a number in `unit` or ISO 8601.
        unit: Unit of numbers.
    """
    dtype = values.dtype
    if dtype.is_temporal() and dtype not in (pl.Time, pl.Duration):
        as_time = values.cast(pl.Datetime("ms")) if dtype == pl.Date else values
        return as_time.dt.epoch("ms").alias(values.name)
    if dtype.is_integer():
        ticks = values.cast(pl.Int64, strict=False)
        # Multiplying a huge number would wrap around into the valid range.
        ticks = ticks.set(ticks.abs() > 2**53, None)
        scaled = ticks * 1000 if unit == "s" else ticks // 1000 if unit == "us" else ticks
        return scaled.alias(values.name)
    if dtype.is_float():
        scaled = values * _MS_PER_UNIT[unit]
        usable = scaled.is_finite() & (scaled.abs() < _MAX_EXACT)
        return scaled.set(~usable.fill_null(False), None).round().cast(pl.Int64)
    if dtype != pl.String:
        return pl.Series(values.name, [None], dtype=pl.Int64).new_from_index(0, len(values))
    text = _without_blanks(values)
    times = time_ms(text.cast(pl.Int64, strict=False), unit)
    left = text.is_not_null() & times.is_null()
    if left.any():
        times = times.zip_with(~left, time_ms(text.cast(pl.Float64, strict=False), unit))
        left = text.is_not_null() & times.is_null()
    if left.any():
        times = times.zip_with(~left, _iso_ms(text))
    return times.alias(values.name)


def _iso_ms(text: pl.Series) -> pl.Series:
    parsed = sql.query(
        "SELECT epoch_ms(TRY_CAST(CASE WHEN text NOT ILIKE '%inf%' THEN text END AS TIMESTAMPTZ)) "
        "AS ms FROM rows",
        pl.DataFrame({"text": text}),
    )
    return parsed["ms"].cast(pl.Int64)


def _strings(values: pl.Series) -> Converted:
    if values.dtype == pl.Binary:
        raise AssertionError("bytes are decoded by the readers")
    if values.dtype.is_float():
        # Integer ids become floats in tools that have no missing integers. Value by value, for the
        # text of one may not depend on what else its file holds.
        values = values.fill_nan(None)
        text = _whole(values.cast(pl.Float64)).cast(pl.String)
        return _all_possible(text.fill_null(values.cast(pl.String)))
    return _all_possible(values.cast(pl.String))


def _ints(values: pl.Series) -> Converted:
    if values.dtype == pl.String:
        text = _without_blanks(values)
        whole = text.cast(pl.Int64, strict=False)
        if whole.null_count() > text.null_count():
            whole = whole.fill_null(_whole(text.cast(pl.Float64, strict=False)))
        return Converted(whole, _lost(text, whole, nan_is_missing=True))
    if values.dtype.is_float() or values.dtype.is_decimal():
        numbers = values.cast(pl.Float64)
        whole = _whole(numbers)
        return Converted(whole, _lost(numbers.fill_nan(None), whole))
    whole = _number(values, "int").cast(pl.Int64, strict=False)
    return Converted(whole, _lost(values, whole))


def _floats(values: pl.Series) -> Converted:
    source = _without_blanks(values) if values.dtype == pl.String else _number(values, "float")
    numbers = source.cast(pl.Float64, strict=False)
    is_missing = source.is_null() | numbers.is_nan().fill_null(False)
    numbers = numbers.set(~numbers.is_finite().fill_null(False), None)
    return Converted(numbers, numbers.is_null() & ~is_missing)


def _bools(values: pl.Series) -> Converted:
    if values.dtype == pl.Boolean:
        return _all_possible(values)
    if values.dtype == pl.String:
        text = _without_blanks(values).str.to_lowercase()
        known = text.is_in([*_TRUE, *_FALSE]).fill_null(False)
        flags = text.is_in(_TRUE).set(~known, None)
        return Converted(flags, _lost(text, flags, nan_is_missing=True))
    numbers = _number(values, "bool").cast(pl.Float64).fill_nan(None)
    flags = (numbers == 1).set(~numbers.is_in([0.0, 1.0]).fill_null(False), None)
    return Converted(flags, _lost(numbers, flags))


def _lists(values: pl.Series, wanted: ColumnType, unit: TimeUnit) -> Converted:
    unparsed = None
    if values.dtype == pl.String:
        lists = parse_lists(values)
        unparsed, values = lists.impossible, lists.values
    if isinstance(values.dtype, pl.Array):
        values = values.arr.to_list()
    if not isinstance(values.dtype, pl.List):
        raise DataError(
            f"column {values.name!r} holds {values.dtype}",
            constraint=f"the declared type {wanted}",
            remedy="declare its own type",
        )
    arrow = values.to_arrow()
    inner: ColumnType = wanted[len("list[") : -1]  # type: ignore[assignment]
    elements = convert(pl.Series(values.name, arrow.values), inner, unit)
    rebuilt = pl.Series(
        values.name,
        pa.LargeListArray.from_arrays(arrow.offsets, elements.values.to_arrow()),
        dtype=CANONICAL[wanted],
    )
    rebuilt = rebuilt.set(values.is_null(), None) if values.null_count() else rebuilt
    impossible = pl.repeat(False, len(values), dtype=pl.Boolean, eager=True)
    if elements.impossible.any():
        flags = pa.LargeListArray.from_arrays(arrow.offsets, elements.impossible.to_arrow())
        impossible = pl.Series(flags, dtype=pl.List(pl.Boolean)).list.any().fill_null(False)
    return Converted(rebuilt, impossible if unparsed is None else impossible | unparsed)


def parse_lists(text: pl.Series) -> Converted:
    """Parses JSON arrays into lists of text.

    Args:
        text: JSON text; null and ``null`` are missing, anything else but an array impossible.
    """
    if len(text) == 0:
        empty = pl.Series(text.name, [], dtype=pl.List(pl.String))
        return Converted(empty, pl.Series([], dtype=pl.Boolean))
    lists = sql.query(
        "SELECT CASE WHEN try(json_type(text)) = 'ARRAY' "
        "THEN json_transform(text, '[\"VARCHAR\"]') END AS list FROM rows",
        pl.DataFrame({"text": text}),
    )["list"].alias(text.name)
    is_missing = text.is_null() | (text.str.strip_chars() == "null").fill_null(False)
    return Converted(lists, lists.is_null() & ~is_missing)


def _number(values: pl.Series, wanted: str) -> pl.Series:
    if values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null):
        return values
    raise DataError(
        f"column {values.name!r} holds {values.dtype}",
        constraint=f"the declared type {wanted}",
        remedy="declare it timestamp or string, or convert it with an expression",
    )


def _whole(numbers: pl.Series) -> pl.Series:
    """Integers where a number has no fraction, else null."""
    is_whole = numbers.is_finite() & (numbers == numbers.round()) & (numbers.abs() < _MAX_EXACT)
    return numbers.set(~is_whole.fill_null(False), None).cast(pl.Int64)


def _without_blanks(values: pl.Series) -> pl.Series:
    """Strips white space; blank text is a missing value."""
    if values.dtype != pl.String:
        return values
    stripped = values.str.strip_chars()
    return stripped.set((stripped == "").fill_null(False), None)


def _lost(before: pl.Series, after: pl.Series, *, nan_is_missing: bool = False) -> pl.Series:
    lost = before.is_not_null() & after.is_null()
    if nan_is_missing and before.dtype == pl.String and lost.any():
        lost = lost & (before.str.to_lowercase() != "nan").fill_null(True)
    return lost


def _all_possible(values: pl.Series) -> Converted:
    return Converted(values, pl.repeat(False, len(values), dtype=pl.Boolean, eager=True))
