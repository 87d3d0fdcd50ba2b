"""How the logs flow: days with too few rows, events that find nothing, clocks that moved."""

from __future__ import annotations

import datetime
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from components.data_gate.finding import Finding, share
from components.data_gate.limits import Limits
from components.log_example_gen.traffic import bucket_seconds

_HOURS_A_DAY = 24
_HOUR_MS = 3_600_000
_CHANCE_ERRORS = 5.0
"""A figure that moved by less than this many standard errors may have moved by chance."""

_EPOCH = datetime.date(1970, 1, 1)


@dataclass(frozen=True)
class Flow:
    """One log during whole days.

    Attributes:
        days: Rows of each day, a day being 24 hours from the end backwards, oldest first.
        hours: Rows by hour of day.
        delays: Events by bucket of their delay.
        unmatched: Events without impression, by reason.
        num_rows: All rows.
    """

    days: tuple[int, ...]
    hours: tuple[int, ...]
    delays: Counter[int]
    unmatched: Counter[str]
    num_rows: int


def traffic_findings(
    now: Mapping[str, Any], previous: Mapping[str, Any], limits: Limits
) -> tuple[list[Finding], list[str]]:
    """Compares the new days of every log with the previous window.

    New are the days since the previous window's end; of two windows that share their days (a
    repeated run with another configuration) all of them. Only whole days are compared, up to the
    end of the test window: after it, events have not come in yet.

    Args:
        now: The content of `accounts.json`.
        previous: That of the previous window.
        limits: `max_volume_drop`, `max_join_drop`, `max_clock_drift`.

    Returns:
        The findings, and what could not be compared.
    """
    start, end = _hours_of(now["window"])
    before_start, before_end = _hours_of(previous["window"])
    start = max(start, before_end) if end - before_end >= _HOURS_A_DAY else start
    if end - start < _HOURS_A_DAY or before_end - before_start < _HOURS_A_DAY:
        return [], ["traffic: not compared, a window is shorter than a day"]
    findings: list[Finding] = []
    for stream, recorded in sorted(now["traffic"].items()):
        earlier = previous["traffic"].get(stream)
        if earlier is None:
            continue
        new, old = _flow(recorded, start, end), _flow(earlier, before_start, before_end)
        for found in (
            _volume_drop(stream, new, old, limits),
            _broken_join(stream, new, old, limits),
            _moved_hours(stream, new, old, limits),
            _moved_delays(stream, new, old, limits),
        ):
            if found is not None:
                findings.append(found)
    return findings, []


def _hours_of(window: Mapping[str, Any]) -> tuple[int, int]:
    """Whole hours since 1970 from the start of train to the end of test."""
    return -(-window["train"][0] // _HOUR_MS), window["test"][1] // _HOUR_MS


def _flow(recorded: Mapping[str, Any], start: int, end: int) -> Flow:
    num_days = (end - start) // _HOURS_A_DAY
    start = end - num_days * _HOURS_A_DAY
    days, hours = [0] * num_days, [0] * _HOURS_A_DAY
    for day, counts in recorded["hours"].items():
        midnight = _day_number(day) * _HOURS_A_DAY
        for hour, count in enumerate(counts):
            if start <= midnight + hour < end:
                days[(midnight + hour - start) // _HOURS_A_DAY] += count
                hours[hour] += count
    delays: Counter[int] = Counter()
    for counts in _within(recorded["delays"], start, end):
        delays.update({int(bucket): count for bucket, count in counts.items()})
    unmatched: Counter[str] = Counter()
    for counts in _within(recorded["unmatched"], start, end):
        unmatched.update(counts)
    return Flow(tuple(days), tuple(hours), delays, unmatched, sum(days))


def _within(by_day: Mapping[str, Any], start: int, end: int) -> Iterable[Mapping[str, int]]:
    """Yields what happened on calendar days that lie more than half inside."""
    for day, counts in by_day.items():
        noon = _day_number(day) * _HOURS_A_DAY + _HOURS_A_DAY // 2
        if start <= noon < end:
            yield counts


def _day_number(day: str) -> int:
    return (datetime.date.fromisoformat(day) - _EPOCH).days


def _volume_drop(stream: str, new: Flow, old: Flow, limits: Limits) -> Finding | None:
    before, after = statistics.median(old.days), min(new.days)
    drop = before - after
    if not before or drop <= limits.max_volume_drop * before or drop <= _chance(before, after):
        return None
    days = f"1 of {len(new.days)} days" if len(new.days) > 1 else "the new day"
    return Finding(
        "volume_drop",
        "stream",
        stream,
        f"too few rows on {days}",
        "its rows a day",
        f"{before:g}",
        f"{after:g}",
        f"max_volume_drop {share(limits.max_volume_drop)}",
        "bring the missing files, and look whether a producer or a partition is gone",
    )


def _broken_join(stream: str, new: Flow, old: Flow, limits: Limits) -> Finding | None:
    """Finds a stream whose events belong to an impression less often."""
    lost = [sum(flow.unmatched.values()) for flow in (old, new)]
    if not old.num_rows or not new.num_rows or not any(lost):
        return None
    before, after = 1 - lost[0] / old.num_rows, 1 - lost[1] / new.num_rows
    error = math.sqrt(0.25 / old.num_rows + 0.25 / new.num_rows)
    if before - after <= max(limits.max_join_drop, _CHANCE_ERRORS * error):
        return None
    rose = {
        reason: new.unmatched[reason] / new.num_rows - old.unmatched[reason] / old.num_rows
        for reason in sorted(new.unmatched)
    }
    reason = max(rose, key=lambda each: rose[each])
    if reason == "orphan":
        return Finding(
            "broken_join",
            "stream",
            stream,
            "broken join, its events have keys of no impression",
            "the share of its events that belong to one",
            share(before),
            share(after),
            f"max_join_drop {share(limits.max_join_drop)}",
            "compare the keys of both logs: type, prefix, hashing, a stale id",
        )
    how = "before" if reason == "before_impression" else "long after"
    return Finding(
        "clock_shift",
        "stream",
        stream,
        f"clock shift, its events happen {how} their impressions",
        "the share of its events that belong to one",
        share(before),
        share(after),
        f"max_join_drop {share(limits.max_join_drop)}",
        "compare the clocks and time zones of both logs",
    )


def _moved_hours(stream: str, new: Flow, old: Flow, limits: Limits) -> Finding | None:
    """Finds a profile over the day that fits the previous one much better after turning it.

    On the day of the change itself the hours at the seam are missing rather than turned, so the
    better of the two counts.
    """
    if not new.num_rows or not old.num_rows:
        return None
    profile = [count / new.num_rows for count in new.hours]
    before = [count / old.num_rows for count in old.hours]
    distances = {shift: _turned_distance(profile, before, shift) for shift in range(-11, 13)}
    shift = min(distances, key=lambda each: (distances[each], abs(each)))
    gain = distances[0] - distances[shift]
    # Rows of a slate come together: this is more than ten times the noise of independent rows.
    chance = math.sqrt(_HOURS_A_DAY / min(new.num_rows, old.num_rows))
    if gain <= max(limits.max_clock_drift, chance):
        return None
    return Finding(
        "clock_shift",
        "stream",
        stream,
        f"clock shift, its day runs {abs(shift)} h {'later' if shift > 0 else 'earlier'}",
        "the part of the difference in hours of day that turning it back explains",
        "0",
        f"{gain:.3f} of {distances[0]:.3f}",
        f"max_clock_drift {limits.max_clock_drift:g}",
        "compare the time zone and the clock of what writes this log",
    )


def _turned_distance(profile: list[float], before: list[float], shift: int) -> float:
    turned = [before[(hour - shift) % _HOURS_A_DAY] for hour in range(_HOURS_A_DAY)]
    cut = [v if 0 <= hour - shift < _HOURS_A_DAY else 0.0 for hour, v in enumerate(turned)]
    total = sum(cut) or 1.0
    return min(_distance(profile, turned), _distance(profile, [v / total for v in cut]))


def _moved_delays(stream: str, new: Flow, old: Flow, limits: Limits) -> Finding | None:
    """Finds events that come at other times after their impressions."""
    num_new, num_old = new.delays.total(), old.delays.total()
    if not num_new or not num_old:
        return None
    ahead = distance = 0.0
    for bucket in sorted({*new.delays, *old.delays}):
        ahead += new.delays[bucket] / num_new - old.delays[bucket] / num_old
        distance = max(distance, abs(ahead))
    # Kolmogorov-Smirnov: the distance of equal distributions exceeds twice this once in a million.
    chance = 2.7 * math.sqrt((num_new + num_old) / (num_new * num_old))
    if distance <= max(limits.max_clock_drift, chance):
        return None
    return Finding(
        "clock_shift",
        "stream",
        stream,
        f"clock shift, the delays between impression and event moved by {distance:.3f} "
        "(Kolmogorov-Smirnov)",
        "their median",
        f"{_median_seconds(old.delays):.3g} s",
        f"{_median_seconds(new.delays):.3g} s",
        f"max_clock_drift {limits.max_clock_drift:g}",
        "compare the clocks of both logs, and what their timestamps mean",
    )


def _median_seconds(delays: Counter[int]) -> float:
    half, seen = delays.total() / 2, 0
    for bucket in sorted(delays):
        seen += delays[bucket]
        if seen >= half:
            return bucket_seconds(bucket)
    raise AssertionError("no delays")


def _distance(left: list[float], right: list[float]) -> float:
    """Total variation."""
    return sum(abs(a - b) for a, b in zip(left, right, strict=True)) / 2


def _chance(before: float, after: float) -> float:
    return _CHANCE_ERRORS * math.sqrt(before + after)
