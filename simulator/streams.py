"""From slates and outcomes to the rows a site would log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.behaviour import NO_TIME, Outcomes
from simulator.population import Floats, Ints, World
from simulator.rows import NULL_CODE, Rows, taken
from simulator.time_units import DAY_MS, SECOND_MS
from simulator.traffic import Slates, hour_of

EVENT_STREAMS = ("clicks", "conversions", "dwell", "scroll", "returns")

HEARTBEAT_SECONDS = 10.0
MAX_HEARTBEATS = 10

MISSING_RATES = {
    "country": 0.01,
    "user_age_days": 0.03,
    "user_activity": 0.005,
    "item_creator": 0.02,
    "item_length_seconds": 0.01,
    "item_quality": 0.01,
}
"""Values that were not logged, at random; country and user features for a whole slate at once."""


@dataclass(frozen=True)
class DayEvents:
    """What one day's impressions led to. Events carry their own times, maybe of later days.

    Attributes:
        clean: Rows of every event stream.
        bystanders: For every event stream, keys and times of impressions (or requests, for
            returns) that a late event can be made up for: without one, or already visited.
    """

    clean: dict[str, Rows]
    bystanders: dict[str, Rows]


def impression_rows(
    world: World, slates: Slates, first_request: int, rng: np.random.Generator
) -> Rows:
    """Logs what was shown, with the features a request carries.

    Args:
        world: Users and items.
        slates: What was shown.
        first_request: Number of the day's first request in the whole log.
        rng: Draws missing values.

    Returns:
        One row per shown item, in the order of the slates.
    """
    users, items, request = world.users, world.items, slates.request
    age_days = users.age_days[slates.user] + (slates.time_ms - world.config.start_ms) / DAY_MS
    by_request: Rows = {
        "device": slates.device,
        "hour_of_day": hour_of(slates),
        "country": users.country[slates.user],
        "surface": slates.surface,
        "user_segment": users.segment[slates.user],
        "user_age_days": np.round(age_days, 2),
        "user_activity": np.round(users.observed_activity[slates.user], 4),
    }
    by_item: Rows = {
        "item_category": items.category,
        "item_creator": items.creator,
        "item_length_seconds": items.length_seconds,
        "item_quality": np.round(items.observed_quality, 4),
    }
    rows = _keys(slates, np.arange(slates.num_rows), first_request)
    rows["position"] = slates.position
    for name, values in by_request.items():
        rows[name] = _with_missing(name, values, rng)[request]
    for name, values in by_item.items():
        rows[name] = _with_missing(name, values[slates.item], rng)
    return rows


def event_rows(
    slates: Slates, outcomes: Outcomes, first_request: int, rng: np.random.Generator
) -> DayEvents:
    """Logs what happened.

    Args:
        slates: What was shown.
        outcomes: What happened.
        first_request: Number of the day's first request in the whole log.
        rng: Draws heartbeats and bystanders.
    """
    clicked = _keys(slates, outcomes.row, first_request)
    scroll_ms = outcomes.click_ms + outcomes.watch_ms
    requests: Rows = {
        "user_id": slates.user,
        "request_id": first_request + np.arange(len(slates.time_ms)),
        "timestamp": slates.time_ms,
    }
    has_returned = outcomes.return_ms != NO_TIME
    is_ignored = np.ones(slates.num_rows, dtype=bool)
    is_ignored[outcomes.row] = False
    ignored = np.flatnonzero(is_ignored)
    ignored = rng.choice(ignored, min(len(outcomes.row), len(ignored)), replace=False)
    return DayEvents(
        clean={
            "clicks": clicked | {"timestamp": outcomes.click_ms},
            "conversions": _conversions(clicked, outcomes),
            "dwell": _heartbeats(clicked, outcomes, rng),
            "scroll": clicked | {"timestamp": scroll_ms, "depth": outcomes.depth},
            "returns": taken(
                requests | {"timestamp": outcomes.return_ms}, np.flatnonzero(has_returned)
            ),
        },
        bystanders={
            "clicks": _keys(slates, ignored, first_request),
            "conversions": taken(clicked, np.flatnonzero(outcomes.conversion_ms == NO_TIME)),
            "dwell": clicked,
            "scroll": clicked,
            "returns": taken(requests, np.flatnonzero(~has_returned)),
        },
    )


def _keys(slates: Slates, row: Ints, first_request: int) -> Rows:
    request = slates.request[row]
    return {
        "request_id": first_request + request,
        "user_id": slates.user[request],
        "item_id": slates.item[row],
        "timestamp": slates.time_ms[request],
    }


def _with_missing(name: str, values: Floats | Ints, rng: np.random.Generator) -> Floats | Ints:
    if name not in MISSING_RATES:
        return values
    missing = rng.random(len(values)) < MISSING_RATES[name]
    null = NULL_CODE if np.issubdtype(values.dtype, np.integer) else np.nan
    return np.where(missing, null, values)


def _conversions(clicked: Rows, outcomes: Outcomes) -> Rows:
    converted = np.flatnonzero(outcomes.conversion_ms != NO_TIME)
    return taken(clicked, converted) | {
        "timestamp": outcomes.conversion_ms[converted],
        "value": outcomes.value[converted],
    }


def _heartbeats(clicked: Rows, outcomes: Outcomes, rng: np.random.Generator) -> Rows:
    """Splits each visit into stretches; each is logged at its end, and they sum to the visit."""
    watch_ms = outcomes.watch_ms
    count = np.minimum(1 + watch_ms // int(HEARTBEAT_SECONDS * SECOND_MS), MAX_HEARTBEATS)
    visit = np.repeat(np.arange(len(watch_ms)), count)
    number = np.arange(len(visit)) - (np.cumsum(count) - count)[visit] + 1
    is_last = number == count[visit]
    jitter = np.where(is_last, 0.0, rng.uniform(-0.4, 0.4, len(visit)))
    share = (number + jitter) / count[visit]
    end_ms = np.rint(share * watch_ms[visit]).astype(np.int64)
    length_ms = np.diff(end_ms, prepend=0)
    length_ms[number == 1] = end_ms[number == 1]
    return taken(clicked, visit) | {
        "timestamp": outcomes.click_ms[visit] + end_ms,
        "seconds": length_ms / SECOND_MS,
    }
