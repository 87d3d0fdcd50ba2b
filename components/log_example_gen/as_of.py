"""As-of features: statistics of events strictly before each impression, by binary search.

For an impression at time t and a feature with lag l and window w, let a = t - l. The events used
are those of the same entity whose time s satisfies a - w <= s < a. An event at exactly a is not
before it. age and recency are measured from t, in seconds. A null in an entity column means an
entity without events: count and sum 0, the others missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from components.log_example_gen.plan import EventSet
from components.log_example_gen.time_index import Ints, TimeIndex, entity_codes
from models.spec.feature import AsOf

KNOWN_AT = "known__at"
"""Time at which an event is known: its own, or later where its outcome is read."""
VALUE = "event__value"
"""The value that as-of features aggregate."""


@dataclass(frozen=True)
class Events:
    """Events of one set, sorted by entity and time.

    Attributes:
        known_at: Time of each event, [events].
        index: Search over them.
        value: What is aggregated: numbers, or text for last values; None for counts.
        sums: Running sum of the numbers within an entity, [events].
        counts: Running count of the numbers that are not missing, [events].
    """

    known_at: Ints
    index: TimeIndex
    value: pl.Series | None
    sums: NDArray[np.float64]
    counts: Ints


def as_of_values(
    features: Mapping[str, AsOf],
    event_sets: Mapping[str, EventSet],
    events: Mapping[EventSet, pl.DataFrame],
    entities: pl.DataFrame,
    times: Ints,
) -> pl.DataFrame:
    """Computes as-of features of one entity set.

    Args:
        features: The features, by name.
        event_sets: The event set of each feature.
        events: Events of each set: `KNOWN_AT`, the entity columns as text, `VALUE` if it has one;
            in any order.
        entities: Entity columns of the queries as text, [queries].
        times: Times of the queries in milliseconds, [queries].

    Returns:
        A column per feature: float64, or lists of text for last values, [queries].
    """
    sets = list(events)
    parts, num_codes = entity_codes(
        [entities.get_columns(), *([events[s][c] for c in s.entity] for s in sets)]
    )
    codes = parts[0]
    prepared = {
        event_set: _prepare(events[event_set], found, num_codes)
        for event_set, found in zip(sets, parts[1:], strict=True)
    }
    known = codes >= 0
    # Searches are several times faster over queries in order.
    order = np.flatnonzero(known)
    order = order[np.lexsort((times[order], codes[order]))]
    columns = []
    for name, feature in features.items():
        values = _feature(feature, prepared[event_sets[name]], codes[order], times[order])
        columns.append(_scattered(values, order, len(codes), feature).alias(name))
    return pl.DataFrame(columns)


def entities_of(events: Mapping[EventSet, pl.DataFrame], entity: tuple[str, ...]) -> pl.DataFrame:
    """Returns the distinct entities that have an event, sorted: those of a snapshot."""
    named = pl.concat([frame.select(entity) for frame in events.values()])
    return named.drop_nulls().unique().sort(*entity)


def _prepare(events: pl.DataFrame, codes: Ints, num_codes: int) -> Events:
    kept = events.with_columns(pl.Series("code", codes)).filter(pl.Series(codes >= 0))
    has_value = VALUE in kept.columns
    is_text = has_value and kept[VALUE].dtype == pl.String
    if is_text:
        # Last values are read backwards: newest first, equal times in ascending order of value.
        kept = kept.drop_nulls(VALUE).sort("code", KNOWN_AT, VALUE, descending=[False, False, True])
    else:
        kept = kept.sort("code", KNOWN_AT, *([VALUE] if has_value else []))
    code, known_at = kept["code"].to_numpy(), kept[KNOWN_AT].to_numpy()
    sums, counts = np.zeros(0), np.zeros(0, dtype=np.int64)
    if has_value and not is_text:
        # Sums restart with each entity: no entity's rounding depends on the others of its shard.
        running = kept.select(
            pl.col(VALUE).cast(pl.Float64).fill_null(0).cum_sum().over("code").alias("sums"),
            pl.col(VALUE).is_not_null().cast(pl.Int64).cum_sum().over("code").alias("counts"),
        )
        sums, counts = running["sums"].to_numpy(), running["counts"].to_numpy()
    value = kept[VALUE] if has_value else None
    return Events(known_at, TimeIndex(code, known_at, num_codes), value, sums, counts)


def _feature(feature: AsOf, events: Events, codes: Ints, times: Ints) -> pl.Series:
    """Computes one feature for queries whose entity is known."""
    bound = times - feature.availability_lag
    start = events.index.starts[codes]
    high = events.index.before(codes, bound)
    low = start if feature.window is None else events.index.before(codes, bound - feature.window)
    if feature.aggregate == "count":
        return pl.Series((high - low).astype(np.float64))
    if feature.aggregate == "age":
        return _seconds(times, events.known_at, start, start < high)
    if feature.aggregate == "recency":
        return _seconds(times, events.known_at, high - 1, start < high)
    if feature.aggregate == "last_values":
        assert feature.length is not None and events.value is not None
        return _last(events.value, low, high, feature.length)
    sums = _between(events.sums, start, low, high)
    if feature.aggregate == "sum":
        return pl.Series(sums)
    counts = _between(events.counts, start, low, high)
    means = np.divide(sums, counts, out=np.zeros(len(sums)), where=counts > 0)
    return pl.Series(means).set(pl.Series(counts == 0), None)


def _seconds(times: Ints, known_at: Ints, position: Ints, exists: NDArray[np.bool_]) -> pl.Series:
    at = known_at[np.where(exists, position, 0)] if len(known_at) else np.zeros_like(times)
    return pl.Series((times - at) / 1000.0).set(pl.Series(~exists), None)


def _between(
    running: NDArray[np.float64] | Ints, start: Ints, low: Ints, high: Ints
) -> NDArray[np.float64]:
    """Difference of running totals; exactly 0 where no event lies between."""
    if len(running) == 0:
        return np.zeros(len(low))
    upper = np.where(high > start, running[high - 1], 0)
    lower = np.where(low > start, running[low - 1], 0)
    difference: NDArray[np.float64] = np.where(high > low, upper - lower, 0).astype(np.float64)
    return difference


def _last(values: pl.Series, low: Ints, high: Ints, length: int) -> pl.Series:
    """Takes up to `length` values before `high`, the last one first."""
    counts = np.minimum(high - low, length)
    ends = np.cumsum(counts)
    offsets = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts)
    taken = values.gather(np.repeat(high - 1, counts) - offsets)
    return _as_lists(taken, counts)


def _as_lists(flat: pl.Series, counts: Ints) -> pl.Series:
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int64())
    return pl.Series(pa.LargeListArray.from_arrays(offsets, flat.to_arrow()))


def _scattered(values: pl.Series, order: Ints, num_queries: int, feature: AsOf) -> pl.Series:
    """Puts values back into the order of the queries; queries without entity get the default."""
    position = np.full(num_queries, len(values), dtype=np.int64)
    position[order] = np.arange(len(order))
    if feature.aggregate == "last_values":
        default = pl.Series([[]], dtype=pl.List(pl.String))
    else:
        default = pl.Series([feature.default], dtype=pl.Float64)
    return pl.concat([values.cast(default.dtype), default]).gather(position)
