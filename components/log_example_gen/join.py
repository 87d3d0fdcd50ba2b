"""Attributes events to impressions and aggregates them into columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.log_example_gen.dead_letters import dead_letters
from components.log_example_gen.row_names import EVENT_TIMESTAMP, HOME, ROW_ID, arrival_column
from components.log_example_gen.time_index import Ints, TimeIndex, as_key_text, entity_codes
from components.log_example_gen.values import CANONICAL
from models.spec.column import ColumnType, Join
from models.spec.keys import TIMESTAMP

_ORPHAN, _BEFORE = -1, -2
_MOMENT = "moment__number"


@dataclass(frozen=True)
class Moments:
    """Impressions of one join, grouped by keys and time: an event belongs to one such group.

    Attributes:
        rows: The impressions.
        of_row: Moment of each impression, -1 where a key is null, [rows].
        code: Keys of each moment, [moments].
        time: Time of each moment, ascending within a code, [moments].
        index: Search over them.
    """

    rows: pl.DataFrame
    of_row: Ints
    code: Ints
    time: Ints
    index: TimeIndex


@dataclass(frozen=True)
class Attribution:
    """Where the events of one stream belong.

    Attributes:
        events: The stream's events in canonical order.
        moment: Moment of each event; -1 for orphans, -2 before the first impression, [events].
        age_ms: Time since that moment, [events].
        window_ms: The longest attribution window of the stream, None without one.
    """

    events: pl.DataFrame
    moment: Ints
    age_ms: Ints
    window_ms: int | None

    @property
    def is_joined(self) -> NDArray[np.bool_]:
        """Events that belong to a moment and happened inside the longest window."""
        found: NDArray[np.bool_] = self.moment >= 0
        return found if self.window_ms is None else found & (self.age_ms < self.window_ms)

    @property
    def reasons(self) -> NDArray[np.object_]:
        """Why an event that is not joined is not: orphan, before_impression or late, [events]."""
        reasons = np.full(len(self.moment), "late", dtype=object)
        reasons[self.moment == _ORPHAN] = "orphan"
        reasons[self.moment == _BEFORE] = "before_impression"
        return reasons


def attribute(
    impressions: pl.DataFrame,
    streams: Mapping[str, tuple[pl.DataFrame, int | None]],
    on: tuple[str, ...],
) -> tuple[Moments, dict[str, Attribution]]:
    """Finds for every event the latest impressions at or before it with equal keys.

    Args:
        impressions: Rows with time and keys.
        streams: Events and longest window of each stream, by name.
        on: Key columns; compared as text.

    Returns:
        The moments of the impressions, and for each stream where its events belong.
    """
    tables = [impressions, *(events for events, _ in streams.values())]
    parts, num_codes = entity_codes([[as_key_text(table[name]) for name in on] for table in tables])
    codes, event_codes = parts[0], parts[1:]
    times = impressions[TIMESTAMP].to_numpy()
    usable = np.flatnonzero(codes >= 0)
    order = usable[np.lexsort((times[usable], codes[usable]))]
    code, time = codes[order], times[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (code[1:] != code[:-1]) | (time[1:] != time[:-1])
    of_row = np.full(len(codes), -1, dtype=np.int64)
    of_row[order] = np.cumsum(is_first) - 1
    code, time = code[is_first], time[is_first]
    moments = Moments(impressions, of_row, code, time, TimeIndex(code, time, num_codes))
    attributions = {
        name: _attribute(moments, events, found, window_ms)
        for (name, (events, window_ms)), found in zip(streams.items(), event_codes, strict=True)
    }
    return moments, attributions


def _attribute(
    moments: Moments, events: pl.DataFrame, codes: Ints, window_ms: int | None
) -> Attribution:
    times = events[EVENT_TIMESTAMP].to_numpy()
    starts, ends = moments.index.starts[codes], moments.index.starts[codes + 1]
    # An event at the time of an impression belongs to it: count impressions up to and including.
    found = moments.index.before(codes, times + 1) - 1
    moment = np.where(starts == ends, _ORPHAN, np.where(found < starts, _BEFORE, found))
    at = moments.time[np.maximum(moment, 0)] if len(moments.time) else np.zeros_like(times)
    return Attribution(events, moment, times - at, window_ms)


def refused_events(attribution: Attribution, *, stream_name: str, shown: list[str]) -> pl.DataFrame:
    """Returns dead letters of the events that no impression has a use for.

    An orphan has keys of no impression; it still counts in as-of features that read nothing but
    the stream's own columns. The same holds for events before the first impression and late ones.

    Args:
        attribution: Where the events belong.
        stream_name: The stream.
        shown: Columns of the raw text.
    """
    is_dead = pl.Series(~attribution.is_joined)
    reasons = pl.Series(attribution.reasons, dtype=pl.String)
    return dead_letters(
        attribution.events.filter(is_dead),
        reasons.filter(is_dead),
        stream_name=stream_name,
        shown=shown,
    )


def joined_columns(
    moments: Moments,
    attributions: Mapping[str, Attribution],
    columns: Mapping[str, Mapping[str, tuple[ColumnType, Join]]],
    arrivals: frozenset[str] = frozenset(),
) -> pl.DataFrame:
    """Aggregates events into columns of their impressions.

    An impression with a null key is none whose events are known: its columns are null, so that it
    is masked for what is learned from them, and not taken for one where nothing happened.

    Args:
        moments: The impressions.
        attributions: Where the events of each stream belong.
        columns: For each stream the columns it becomes.
        arrivals: Columns whose first event's age is wanted as well.

    Returns:
        `row__id`, `row__home`, the columns and the ages (null without an event), [rows].
    """
    found = [moments.rows[ROW_ID], moments.rows[HOME]]
    for stream_name, wanted in columns.items():
        attribution = attributions[stream_name]
        for name, (column_type, join) in wanted.items():
            per_moment = _aggregate(attribution, join, len(moments.time))
            values = _cast(per_moment, column_type)
            found.append(_gather(values, moments.of_row).alias(name))
            if name in arrivals:
                ages = _event_ages(attribution, join, len(moments.time), np.minimum)
                by_row = _gather(ages, moments.of_row)
                found.append(by_row.alias(arrival_column(name)))
    return pl.DataFrame(found)


def final_ages(moments: Moments, attribution: Attribution, join: Join, cutoff: int) -> Ints:
    """Tells how old impressions were when their joined value became final.

    Only impressions whose window has closed tell the truth about how values fill in.

    Args:
        moments: The impressions; simultaneous ones with the same keys count once.
        attribution: Where the events belong.
        join: How events become the value.
        cutoff: Time at which the run looks at the world.

    Returns:
        For every impression with an event whose window closed before the cut-off: the age in
        milliseconds at its first event (any, first) or at its last one (count, sum, max).
    """
    first = join.aggregate in ("any", "first")
    ufunc = np.minimum if first else np.maximum
    ages = _event_ages(attribution, join, len(moments.time), ufunc)
    closed = pl.Series(moments.time + join.window <= cutoff)
    found: Ints = ages.filter(closed & ages.is_not_null()).to_numpy()
    return found


def with_impression_columns(
    moments: Moments, attribution: Attribution, carried: tuple[str, ...]
) -> pl.DataFrame:
    """Adds columns of the impressions to the events that joined them.

    An event that joins several impressions counts once for each distinct combination of the
    columns taken from them.

    Args:
        moments: The impressions.
        attribution: Where the events belong.
        carried: Columns taken from the impressions.

    Returns:
        The events' columns and the carried ones.
    """
    events = attribution.events.with_columns(pl.Series(_MOMENT, attribution.moment))
    impressions = moments.rows.select(carried).with_columns(pl.Series(_MOMENT, moments.of_row))
    own = [name for name in events.columns if name not in carried]
    return (
        events.filter(pl.Series(attribution.is_joined))
        .select(own)
        .join(impressions.unique(), on=_MOMENT, how="inner")
        .drop(_MOMENT)
    )


def _event_ages(
    attribution: Attribution, join: Join, num_moments: int, ufunc: np.ufunc
) -> pl.Series:
    """Reduces the ages of the events inside the window: null where there is none, [moments]."""
    counted = (attribution.moment >= 0) & (attribution.age_ms < join.window)
    moment = attribution.moment[counted]
    unset = np.iinfo(np.int64).max if ufunc is np.minimum else -1
    ages = np.full(num_moments, unset, dtype=np.int64)
    ufunc.at(ages, moment, attribution.age_ms[counted])
    return pl.Series(ages).set(pl.Series(ages == unset), None)


def _aggregate(attribution: Attribution, join: Join, num_moments: int) -> pl.Series:
    counted = (attribution.moment >= 0) & (attribution.age_ms < join.window)
    moment = attribution.moment[counted]
    if join.aggregate in ("any", "count"):
        counts = np.bincount(moment, minlength=num_moments)
        return pl.Series(counts > 0 if join.aggregate == "any" else counts)
    assert join.value is not None
    values = attribution.events[join.value].filter(pl.Series(counted))
    times = attribution.events[EVENT_TIMESTAMP].filter(pl.Series(counted))
    # Sorted, so that neither sums nor first values depend on the order in which rows were read.
    ordered = (
        pl.DataFrame({"moment": moment, "time": times, "value": values})
        .drop_nulls("value")
        .sort("moment", "value" if join.aggregate == "max" else "time", "value")
    )
    group = ordered["moment"].to_numpy()
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    if join.aggregate == "sum":
        sums = np.zeros(num_moments)
        if len(starts):
            numbers = ordered["value"].cast(pl.Float64).to_numpy()
            sums[group[starts]] = np.add.reduceat(numbers, starts)
        return pl.Series(sums)
    ends = np.append(starts[1:], len(group))
    chosen = starts if join.aggregate == "first" else ends - 1
    position = np.full(num_moments, -1, dtype=np.int64)
    position[group[starts]] = chosen
    return _gather(ordered["value"], position)


def _gather(values: pl.Series, positions: Ints) -> pl.Series:
    """Takes values by position; -1 gives null."""
    absent = pl.Series(positions < 0)
    taken = (
        values.gather(np.maximum(positions, 0))
        if len(values)
        else pl.Series([None], dtype=values.dtype).new_from_index(0, len(positions))
    )
    return taken.set(absent, None) if absent.any() else taken


def _cast(values: pl.Series, column_type: ColumnType) -> pl.Series:
    target = CANONICAL[column_type]
    if target == pl.Boolean and values.dtype.is_numeric():
        return values != 0
    if target == pl.Int64 and values.dtype.is_float():
        return values.round().cast(pl.Int64)
    return values.cast(target)
