"""Who and what exists: users, items and the effects that drive behaviour, drawn once per log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.config import SimulationConfig
from simulator.time_units import BLOCK_MS, BLOCKS_PER_DAY, DAY_MS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEGMENTS = ("student", "parent", "commuter", "gamer", "retiree", "traveller")
CATEGORIES = (
    "news", "sport", "music", "comedy", "cooking",
    "science", "gaming", "fashion", "finance", "film",
)  # fmt: skip
COUNTRIES = ("DE", "FR", "IT", "ES", "NL", "PL")
DEVICES = ("phone", "desktop", "tablet")
SURFACES = ("home", "feed", "search", "related")

SEGMENT_SHARES = np.array([0.24, 0.20, 0.18, 0.15, 0.13, 0.10])
CATEGORY_SHARES = np.array([0.15, 0.13, 0.12, 0.11, 0.10, 0.09, 0.08, 0.08, 0.07, 0.07])
COUNTRY_SHARES = np.array([0.38, 0.22, 0.14, 0.11, 0.09, 0.06])
SURFACE_SHARES = np.array([0.35, 0.30, 0.15, 0.20])
DEVICE_SHARES = np.array([0.62, 0.26, 0.12])

ITEMS_PER_CREATOR = 8
AFFINITY_RANK = 2
NEW_ITEM_SHARE = 0.08
TYPICAL_LENGTH_SECONDS = 90.0


@dataclass(frozen=True)
class EffectSizes:
    """Standard deviations of the latent effects, in logits of a click unless said otherwise.

    What a model can learn from columns (segment, category, quality, activity) is large, what only
    one user or one item has is small: a few days of logs are enough to come close to the truth.
    """

    affinity: float = 0.45
    """Low-rank interest of user segments in item categories."""
    own_taste: float = 0.1
    """A user's own interest in a category, on top of the segment's."""
    activity: float = 0.8
    segment: float = 0.35
    user: float = 0.1
    newcomer: float = 0.3
    """Extra interest of an account on its first day; fades within weeks."""
    quality: float = 0.95
    category: float = 0.5
    creator: float = 0.1
    item: float = 0.1
    item_drift_per_day: float = 0.03
    """Step of an item's random walk, per square root of a day."""
    novelty: float = 0.15
    """Extra interest in an item when it appears; fades within days."""
    day: float = 0.05
    surface: float = 0.5
    surface_category: float = 0.1
    device_length: float = 0.15
    """Phones favour short items, desktops long ones; per standard deviation of log length."""
    country: float = 0.12
    hour: float = 0.15
    session_intent: float = 0.4
    """Known to nobody at request time; shared by the items of one request."""


@dataclass(frozen=True)
class Users:
    """One entry per user. Effects are in logits of a click.

    Attributes:
        segment: Index into `SEGMENTS`, observed.
        country: Index into `COUNTRIES`, observed.
        device: Usual device, index into `DEVICES`.
        activity: Latent activity, standard normal.
        observed_activity: The positive, noisy view of it that requests carry.
        age_days: Age of the account when the log starts, observed.
        cumulative_share: Cumulative share of requests, ends at 1.
        click_effect: Effect of everything about the user that does not depend on the item.
        category_interest: Segment affinity plus own taste, [users, categories].
    """

    segment: Ints
    country: Ints
    device: Ints
    activity: Floats
    observed_activity: Floats
    age_days: Floats
    cumulative_share: Floats
    click_effect: Floats
    category_interest: Floats


@dataclass(frozen=True)
class Items:
    """One entry per item. Effects are in logits of a click.

    Attributes:
        category: Index into `CATEGORIES`, observed.
        creator: Index of the creator, observed.
        length_seconds: Length, observed.
        log_length: Logarithm of the length, standardized.
        quality: Latent quality, standard normal.
        observed_quality: Noisy view of it in [0, 1] that requests carry.
        click_effect: Effect of the item in each block, with drift and novelty, [blocks, items].
        log_supply: Logarithm of how often the item is a candidate, [blocks, items]; -inf before
            it exists.
    """

    category: Ints
    creator: Ints
    length_seconds: Floats
    log_length: Floats
    quality: Floats
    observed_quality: Floats
    click_effect: Floats
    log_supply: Floats

    @property
    def num_creators(self) -> int:
        """Number of creators, whether or not each has an item."""
        return max(1, len(self.category) // ITEMS_PER_CREATOR)


@dataclass(frozen=True)
class SharedEffects:
    """Effects that belong to columns, not to one user or item.

    Attributes:
        affinity: Interest of segments in categories, unit variance, [segments, categories].
        day: [days].
        surface: [surfaces].
        surface_category: [surfaces, categories].
        device_length: Per standard deviation of log length, [devices].
        hour: [24].
        conversion_fit: How well a category sells to a segment, unit variance, apart from clicks.
        conversion_category: [categories].
        conversion_creator: [creators].
        conversion_country: [countries].
        conversion_surface: [surfaces].
    """

    affinity: Floats
    day: Floats
    surface: Floats
    surface_category: Floats
    device_length: Floats
    hour: Floats
    conversion_fit: Floats
    conversion_category: Floats
    conversion_creator: Floats
    conversion_country: Floats
    conversion_surface: Floats


@dataclass(frozen=True)
class World:
    """Users, items and shared effects of one log."""

    config: SimulationConfig
    sizes: EffectSizes
    users: Users
    items: Items
    shared: SharedEffects


def draw_world(config: SimulationConfig, rng: np.random.Generator) -> World:
    """Draws everything that stays the same during the log, and how items drift.

    Args:
        config: The simulation's settings.
        rng: Source of randomness.

    Returns:
        The world; tables of effects are standardized, so that their strength does not depend on
        the seed.
    """
    sizes = EffectSizes()
    affinity = _interaction_table(rng, SEGMENT_SHARES, CATEGORY_SHARES)
    users = _draw_users(config, sizes, affinity, rng)
    items = _draw_items(config, sizes, rng)
    return World(
        config, sizes, users, items, _draw_shared(config, sizes, affinity, items.num_creators, rng)
    )


def _standardized(values: Floats, shares: Floats) -> Floats:
    """Shifts and scales to mean 0 and variance 1 under the shares of the entries."""
    shares = shares / shares.sum()
    centred = values - (shares * values).sum()
    return np.asarray(centred / np.sqrt((shares * centred**2).sum()))


def _interaction_table(rng: np.random.Generator, *shares: Floats) -> Floats:
    """Draws a low-rank table without main effects, of variance 1 under the shares."""
    row_share, column_share = shares
    left = rng.standard_normal((len(row_share), AFFINITY_RANK))
    table = left @ rng.standard_normal((AFFINITY_RANK, len(column_share)))
    table = table - row_share @ table
    table = table - (table @ column_share)[:, None]
    return _standardized(table, np.outer(row_share, column_share))


def _draw_users(
    config: SimulationConfig, sizes: EffectSizes, affinity: Floats, rng: np.random.Generator
) -> Users:
    count = config.resolved_num_users
    segment = rng.choice(len(SEGMENTS), count, p=SEGMENT_SHARES)
    activity = rng.standard_normal(count)
    age_days = rng.exponential(250.0, count)
    segment_effect = _standardized(rng.standard_normal(len(SEGMENTS)), SEGMENT_SHARES)
    country = rng.choice(len(COUNTRIES), count, p=COUNTRY_SHARES)
    country_effect = _standardized(rng.standard_normal(len(COUNTRIES)), COUNTRY_SHARES)
    share = np.exp(0.6 * activity + 0.5 * rng.standard_normal(count))
    cumulative_share = np.cumsum(share)
    own_taste = rng.standard_normal((count, len(CATEGORIES)))
    return Users(
        segment=segment,
        country=country,
        device=rng.choice(len(DEVICES), count, p=DEVICE_SHARES),
        activity=activity,
        observed_activity=np.exp(0.4 * (0.995 * activity + 0.1 * rng.standard_normal(count))),
        age_days=age_days,
        cumulative_share=cumulative_share / cumulative_share[-1],
        click_effect=sizes.activity * activity
        + sizes.segment * segment_effect[segment]
        + sizes.country * country_effect[country]
        + sizes.user * rng.standard_normal(count)
        + sizes.newcomer * np.exp(-age_days / 30.0),
        category_interest=sizes.affinity * affinity[segment] + sizes.own_taste * own_taste,
    )


def _draw_items(config: SimulationConfig, sizes: EffectSizes, rng: np.random.Generator) -> Items:
    count = config.resolved_num_items
    num_creators = max(1, count // ITEMS_PER_CREATOR)
    num_blocks = config.days * BLOCKS_PER_DAY
    blocks = np.arange(num_blocks)[:, None]
    block_days = BLOCK_MS / DAY_MS

    category = rng.choice(len(CATEGORIES), count, p=CATEGORY_SHARES)
    creator = rng.integers(num_creators, size=count)
    quality = rng.standard_normal(count)
    log_length = rng.standard_normal(count)
    is_new = rng.random(count) < NEW_ITEM_SHARE
    is_new[0] = False  # the first block needs a candidate
    first_block = np.where(is_new, rng.integers(num_blocks, size=count), 0)
    age_at_start_days = np.where(is_new, 0.0, rng.exponential(12.0, count))
    age_days = age_at_start_days + (blocks - first_block) * block_days

    steps = rng.standard_normal((num_blocks, count)) * np.sqrt(block_days)
    drift = sizes.item_drift_per_day * np.cumsum(steps, axis=0)
    category_effect = _standardized(rng.standard_normal(len(CATEGORIES)), CATEGORY_SHARES)
    fixed = (
        sizes.quality * quality
        + sizes.category * category_effect[category]
        + sizes.creator * rng.standard_normal(num_creators)[creator]
        + sizes.item * rng.standard_normal(count)
    )
    exists = age_days >= 0
    freshness = np.exp(-np.maximum(age_days, 0.0) / 1.5)
    fading = 0.4 + 0.8 * np.exp(-np.maximum(age_days, 0.0) / 4.0)
    popularity = 0.4 * quality + 0.8 * rng.standard_normal(count)
    seen_quality = 0.99 * quality + 0.14 * rng.standard_normal(count)
    return Items(
        category=category,
        creator=creator,
        length_seconds=np.round(TYPICAL_LENGTH_SECONDS * np.exp(0.9 * log_length), 1),
        log_length=log_length,
        quality=quality,
        observed_quality=np.clip(0.5 + 0.17 * seen_quality, 0.0, 1.0),
        click_effect=fixed + drift + sizes.novelty * freshness,
        log_supply=np.where(exists, popularity + np.log(fading) + 2.0 * drift, -np.inf),
    )


def _draw_shared(
    config: SimulationConfig,
    sizes: EffectSizes,
    affinity: Floats,
    num_creators: int,
    rng: np.random.Generator,
) -> SharedEffects:
    def main(scale: float, shares: Floats) -> Floats:
        return scale * _standardized(rng.standard_normal(len(shares)), shares)

    hour_phase = rng.uniform(0.0, 2.0 * np.pi)
    hours = np.arange(24) * (2.0 * np.pi / 24.0)
    return SharedEffects(
        affinity=affinity,
        day=sizes.day * rng.standard_normal(config.days),
        surface=main(sizes.surface, SURFACE_SHARES),
        surface_category=sizes.surface_category
        * _interaction_table(rng, SURFACE_SHARES, CATEGORY_SHARES),
        device_length=sizes.device_length * np.array([-1.0, 1.0, 0.2]),
        hour=sizes.hour * np.sqrt(2.0) * np.sin(hours + hour_phase),
        conversion_fit=_interaction_table(rng, SEGMENT_SHARES, CATEGORY_SHARES),
        conversion_category=main(0.3, CATEGORY_SHARES),
        conversion_creator=0.2 * rng.standard_normal(num_creators),
        conversion_country=main(0.2, COUNTRY_SHARES),
        conversion_surface=main(0.2, SURFACE_SHARES),
    )
