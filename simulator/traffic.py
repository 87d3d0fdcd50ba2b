"""Requests and their slates: who asks when, and which items are shown in which order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.config import SimulationConfig
from simulator.population import DEVICES, SEGMENTS, SURFACE_SHARES, SURFACES, Ints, World
from simulator.time_units import BLOCK_MS, BLOCKS_PER_DAY, DAY_MS, HOUR_MS

HOURLY_LOAD = np.array(
    [3, 2, 1, 1, 1, 2, 4, 7, 8, 7, 6, 6, 7, 7, 6, 6, 7, 8, 10, 12, 13, 12, 9, 6], dtype=np.float64
)
SURFACE_SLATE_FACTORS = np.array([1.2, 1.05, 0.95, 0.65])
WEEKEND_LOAD = 1.15
SAME_TIME_SHARE = 0.01
"""Requests that share their millisecond with another one."""
SAME_USER_SHARE = 0.3
"""Of those, the ones that come from the same user too."""
USUAL_DEVICE_SHARE = 0.8
_BELIEF_STREAM = 0xBE11EF
RETRIEVAL_AFFINITY = 0.3
"""How much candidate retrieval prefers categories the user's segment likes."""


@dataclass(frozen=True)
class Slates:
    """Requests of one day in order of time, and the items they show.

    Attributes:
        time_ms: Time of each request since 1970, ascending, [requests].
        user: User of each request, [requests].
        surface: Index into `SURFACES`, [requests].
        device: Index into `DEVICES`, [requests].
        size: Number of items shown, [requests].
        request: Request of each shown item, counted from the day's first, ascending, [rows].
        item: Shown item, [rows].
        position: Place in the slate from 0, [rows].
        day: Day of the log.
    """

    time_ms: Ints
    user: Ints
    surface: Ints
    device: Ints
    size: Ints
    request: Ints
    item: Ints
    position: Ints
    day: int

    @property
    def num_rows(self) -> int:
        """Number of shown items."""
        return len(self.item)


def rows_per_day(config: SimulationConfig, rng: np.random.Generator) -> Ints:
    """Splits the impressions over the days: busier weekends, a little noise, exact total.

    Returns:
        Rows of each day, [days].
    """
    weekday = (config.start_ms // DAY_MS + 3 + np.arange(config.days)) % 7
    load = np.where(weekday >= 5, WEEKEND_LOAD, 1.0) * rng.uniform(0.95, 1.05, config.days)
    bounds = np.round(config.impressions * np.cumsum(load) / load.sum()).astype(np.int64)
    rows: Ints = np.diff(bounds, prepend=0)
    return rows


def draw_slates(world: World, day: int, num_rows: int, rng: np.random.Generator) -> Slates:
    """Draws one day's requests until exactly `num_rows` items are shown.

    Items are drawn by their supply at that time and the segment's interest, without repetition in
    a slate, and shown in random order: the position says nothing about the item, so that truth
    averaged over positions is exact. With `position_belief` it says what the logging ranker
    believed, and the truth is that of a random position.

    Args:
        world: Users and items.
        day: Day of the log, from 0.
        num_rows: Number of shown items; the last slate drawn is cut to fit.
        rng: Source of randomness.

    Returns:
        The slates in order of time.
    """
    batches = [_draw_batch(world, day, num_rows, rng)]
    while (shown := sum(batch.num_rows for batch in batches)) < num_rows:
        batches.append(_draw_batch(world, day, num_rows - shown, rng))
    return _in_time_order(_joined(batches, num_rows))


def _draw_batch(world: World, day: int, num_rows: int, rng: np.random.Generator) -> Slates:
    config, users = world.config, world.users
    count = int(np.ceil(num_rows / config.slate_size * 1.05)) + 4

    time_ms = config.start_ms + day * DAY_MS + _times_of_day(count, rng)
    user = np.searchsorted(users.cumulative_share, rng.random(count), side="right")
    twin = np.flatnonzero(rng.random(count) < SAME_TIME_SHARE)
    twin = twin[twin > 0]
    time_ms[twin] = time_ms[twin - 1]
    twin = twin[rng.random(len(twin)) < SAME_USER_SHARE]
    user[twin] = user[twin - 1]

    surface = rng.choice(len(SURFACES), count, p=SURFACE_SHARES)
    usual = rng.random(count) < USUAL_DEVICE_SHARE
    device = np.where(usual, users.device[user], rng.integers(len(DEVICES), size=count))
    wanted = _slate_sizes(config, surface, rng)
    request = np.repeat(np.arange(count), wanted)
    item = _draw_items(world, day, time_ms, users.segment[user], request, rng)

    num_items = len(world.items.category)
    _, first = np.unique(request * num_items + item, return_index=True)
    # Earlier draws favour frequent items, so the kept ones are shuffled within their slate.
    place = rng.random(len(first))
    if config.position_belief > 0:
        place = _believed_place(config, num_items, item[first], place)
    order = first[np.argsort(request[first] + place, kind="stable")]
    request, item = request[order], item[order]
    size = np.bincount(request, minlength=count)
    return Slates(
        time_ms, user, surface, device, size, request, item, _positions(request, size), day
    )


def _believed_place(
    config: SimulationConfig, num_items: int, item: Ints, chance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Turns uniform numbers into places in [0, 1): smaller where the logging ranker believes more.

    Beliefs are standard normal and independent of everything else. Sorting beliefs plus Gumbel
    noise draws orders from the Plackett-Luce model.
    """
    belief = np.random.default_rng([config.seed, _BELIEF_STREAM]).standard_normal(num_items)
    gumbel = -np.log(-np.log(np.clip(chance, 1e-12, 1 - 1e-12)))
    score = config.position_belief * belief[item] + gumbel
    places: NDArray[np.float64] = 1.0 / (1.0 + np.exp(np.clip(score, -30.0, 30.0)))
    return np.clip(places, 0.0, 1.0 - 1e-9)


def _times_of_day(count: int, rng: np.random.Generator) -> Ints:
    hour = rng.choice(24, count, p=HOURLY_LOAD / HOURLY_LOAD.sum())
    return hour * HOUR_MS + rng.integers(HOUR_MS, size=count)


def _slate_sizes(config: SimulationConfig, surface: Ints, rng: np.random.Generator) -> Ints:
    factors = SURFACE_SLATE_FACTORS / (SURFACE_SLATE_FACTORS @ SURFACE_SHARES)
    mean = np.maximum(config.slate_size * factors[surface] - 1.0, 0.0)
    more = rng.poisson(mean * rng.gamma(4.0, 0.25, len(surface)))
    sizes: Ints = np.minimum(1 + more, config.max_slate_size)
    return sizes


def _draw_items(
    world: World,
    day: int,
    time_ms: Ints,
    segment: Ints,
    request: Ints,
    rng: np.random.Generator,
) -> Ints:
    """Draws an item per row from the supply of its request's block and segment."""
    items = world.items
    block_in_day = (time_ms % DAY_MS) // BLOCK_MS
    today = items.log_supply[day * BLOCKS_PER_DAY : (day + 1) * BLOCKS_PER_DAY]
    interest = RETRIEVAL_AFFINITY * world.shared.affinity[:, items.category]
    weight = np.exp(today[:, None, :] + interest[None, :, :])
    cumulative = np.cumsum(weight, axis=2)
    cumulative /= cumulative[:, :, -1:]
    # One search for all blocks and segments: the g-th distribution occupies (g, g + 1].
    num_groups, num_items = BLOCKS_PER_DAY * len(SEGMENTS), today.shape[1]
    table = (cumulative.reshape(num_groups, num_items) + np.arange(num_groups)[:, None]).ravel()
    group = (block_in_day * len(SEGMENTS) + segment)[request]
    found = np.searchsorted(table, group + rng.random(len(request)), side="right")
    drawn: Ints = np.minimum(found - group * num_items, num_items - 1)
    return drawn


def _positions(request: Ints, size: Ints) -> Ints:
    starts = np.cumsum(size) - size
    positions: Ints = np.arange(len(request)) - starts[request]
    return positions


def _joined(batches: list[Slates], num_rows: int) -> Slates:
    """Concatenates batches and cuts the slate that exceeds `num_rows`, and all after it."""
    offsets = np.cumsum([0] + [len(batch.time_ms) for batch in batches])

    def rows(parts: list[NDArray[np.int64]]) -> Ints:
        return np.concatenate(parts)[:num_rows]

    request = rows([b.request + offset for b, offset in zip(batches, offsets, strict=False)])
    count = int(request[-1]) + 1

    def requests(parts: list[NDArray[np.int64]]) -> Ints:
        return np.concatenate(parts)[:count]

    return Slates(
        time_ms=requests([b.time_ms for b in batches]),
        user=requests([b.user for b in batches]),
        surface=requests([b.surface for b in batches]),
        device=requests([b.device for b in batches]),
        size=np.bincount(request, minlength=count),
        request=request,
        item=rows([b.item for b in batches]),
        position=rows([b.position for b in batches]),
        day=batches[0].day,
    )


def _in_time_order(slates: Slates) -> Slates:
    order = np.argsort(slates.time_ms, kind="stable")
    size = slates.size[order]
    old_starts = (np.cumsum(slates.size) - slates.size)[order]
    new_starts = np.cumsum(size) - size
    request = np.repeat(np.arange(len(order)), size)
    rows = old_starts[request] + np.arange(len(request)) - new_starts[request]
    return Slates(
        time_ms=slates.time_ms[order],
        user=slates.user[order],
        surface=slates.surface[order],
        device=slates.device[order],
        size=size,
        request=request,
        item=slates.item[rows],
        position=slates.position[rows],
        day=slates.day,
    )


def block_of(slates: Slates) -> Ints:
    """Returns the block of the log each request falls in, [requests]."""
    blocks: Ints = slates.day * BLOCKS_PER_DAY + (slates.time_ms % DAY_MS) // BLOCK_MS
    return blocks


def hour_of(slates: Slates) -> Ints:
    """Returns the hour of the day of each request, UTC, [requests]."""
    hours: Ints = (slates.time_ms % DAY_MS) // HOUR_MS
    return hours
