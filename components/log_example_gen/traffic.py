"""When rows come and how they meet, day by day: what tells a broken pipe from a quiet day."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.log_example_gen.tally import Tally

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
BUCKETS_PER_DOUBLING = 4

Ints = NDArray[np.int64]

_TRAFFIC = "traffic"


def hour_counts(stream_name: str, times_ms: Ints) -> Tally:
    """Counts rows by day and hour of day (UTC).

    Args:
        stream_name: The log.
        times_ms: Times of its rows, [rows].
    """
    hours = times_ms % DAY_MS // HOUR_MS
    return _counts((_TRAFFIC, stream_name, "hours"), times_ms // DAY_MS, hours)


def delay_counts(stream_name: str, times_ms: Ints, delays_ms: Ints) -> Tally:
    """Counts events by how long after their impression they happened.

    Args:
        stream_name: The stream.
        times_ms: Times of the impressions, [events].
        delays_ms: Event minus impression, not negative, [events].
    """
    buckets = np.floor(BUCKETS_PER_DOUBLING * np.log2(1.0 + delays_ms)).astype(np.int64)
    return _counts((_TRAFFIC, stream_name, "delays"), times_ms // DAY_MS, buckets)


def unmatched_counts(stream_name: str, times_ms: Ints, reasons: NDArray[Any]) -> Tally:
    """Counts events that no impression has a use for, by day and reason.

    Args:
        stream_name: The stream.
        times_ms: Times of the events, [events].
        reasons: Why, [events].
    """
    return _counts((_TRAFFIC, stream_name, "unmatched"), times_ms // DAY_MS, reasons)


def bucket_seconds(bucket: int) -> float:
    """The middle of a bucket of delays, in seconds."""
    return float(2.0 ** ((bucket + 0.5) / BUCKETS_PER_DOUBLING) - 1.0) / 1000.0


def traffic(tally: Tally, stream_names: list[str]) -> dict[str, Any]:
    """Puts the counts into their final form.

    Args:
        tally: All counts of a run.
        stream_names: The logs.

    Returns:
        For each log `hours` (day: 24 counts), `delays` (day of the impression: {bucket: count})
        and `unmatched` (day: {reason: count}); days as ISO dates.
    """
    kinds = ("hours", "delays", "unmatched")
    found: dict[str, Any] = {name: {kind: {} for kind in kinds} for name in stream_names}
    for path, count in sorted(tally.items()):
        if path[0] != _TRAFFIC:
            continue
        _, stream, kind, day, key = path
        by_day = found[stream][kind]
        if kind == "hours":
            by_day.setdefault(day, [0] * 24)[int(key)] += int(count)
        else:
            by_day.setdefault(day, {})[key] = int(count)
    return found


def _counts(prefix: tuple[str, ...], days: Ints, keys: NDArray[Any]) -> Tally:
    tally: Tally = {}
    for day in np.unique(days):
        name = str(np.datetime64(int(day), "D"))
        values, counts = np.unique(keys[days == day], return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            tally[(*prefix, name, str(value))] = count
    return tally
