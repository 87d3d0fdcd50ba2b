"""What people do with what they are shown: true probabilities, and outcomes drawn from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit, ndtr, ndtri

from simulator.population import TYPICAL_LENGTH_SECONDS, Floats, Ints, World
from simulator.time_units import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from simulator.traffic import Slates, block_of, hour_of

TARGET_CLICK_RATE = 0.135
TARGET_CONVERSION_RATE = 0.13
"""Of clicks, however late the conversion."""

ATTENTION_FLOOR = 0.4
ATTENTION_FADE_POSITIONS = 6.0

INTENT_ON_CONVERSION = 0.5
ENGAGEMENT_ON_CONVERSION = 1.0
ENGAGEMENT_ON_LOG_WATCH = 0.4
LOG_WATCH_NOISE = 0.7
TYPICAL_WATCH_SECONDS = 30.0
DEVICE_ON_CONVERSION = np.array([-0.2, 0.4, 0.0])
DEVICE_ON_LOG_WATCH = np.array([-0.1, 0.15, 0.1])

SCROLL_NOISE = 0.5
NO_TIME = -1
"""Marks an event that did not happen."""


@dataclass(frozen=True)
class TruncatedLogNormal:
    """A delay whose logarithm is normal, cut to an interval.

    Attributes:
        median_ms: Median before the cut.
        log_spread: Standard deviation of the logarithm.
        low_ms: Smallest delay.
        high_ms: Largest delay.
    """

    median_ms: float
    log_spread: float
    low_ms: float
    high_ms: float

    def draw(self, count: int, rng: np.random.Generator) -> Ints:
        """Draws delays in whole milliseconds, [count]."""
        return np.rint(self.quantile(rng.random(count))).astype(np.int64)

    def quantile(self, share: Floats) -> Floats:
        """Returns the delay in milliseconds that this share of delays does not exceed."""
        low, high = self._normal_bounds
        values: Floats = self.median_ms * np.exp(
            self.log_spread * ndtri(low + share * (high - low))
        )
        return np.clip(values, self.low_ms, self.high_ms)

    def share_below(self, delay_ms: Floats) -> Floats:
        """Returns the share of delays below each given one."""
        low, high = self._normal_bounds
        inside = np.clip(delay_ms, self.low_ms, self.high_ms)
        shares: Floats = (ndtr(np.log(inside / self.median_ms) / self.log_spread) - low) / (
            high - low
        )
        return shares

    @property
    def _normal_bounds(self) -> tuple[float, float]:
        return (
            float(ndtr(np.log(self.low_ms / self.median_ms) / self.log_spread)),
            float(ndtr(np.log(self.high_ms / self.median_ms) / self.log_spread)),
        )


CLICK_DELAY = TruncatedLogNormal(25.0 * SECOND_MS, 1.0, SECOND_MS, 20.0 * MINUTE_MS)
"""From the impression to the click."""
CONVERSION_DELAY = TruncatedLogNormal(90.0 * MINUTE_MS, 1.9, MINUTE_MS, 72.0 * HOUR_MS)
"""From the click to the conversion: half within the hour or two, a tail of three days."""
MAX_EVENT_DELAY_MS = int(CLICK_DELAY.high_ms + CONVERSION_DELAY.high_ms)
"""No clean event happens later than this after its impression."""


def share_converted_within(window_hours: float) -> float:
    """Returns the share of conversions that happen in a window that starts at the impression."""
    midpoints = (np.arange(512) + 0.5) / 512
    left = window_hours * HOUR_MS - CLICK_DELAY.quantile(midpoints)
    shares = np.where(left > 0, CONVERSION_DELAY.share_below(np.maximum(left, 1.0)), 0.0)
    return float(shares.mean())


@dataclass(frozen=True)
class Attention:
    """Examination by position: a click needs the item to be looked at (Richardson, WWW 2007).

    The mean over the positions of a slate is the same for every slate size, so that neither
    position nor size says anything about the probability averaged over positions.

    Attributes:
        max_slate_size: Longest slate.
    """

    max_slate_size: int

    @cached_property
    def mean(self) -> float:
        """Probability that a shown item is looked at, averaged over positions."""
        return 0.98 * float(self._mean_by_size[-1])

    def probability(self, position: Ints, size: Ints) -> Floats:
        """Returns the probability of being looked at, given the position and the slate's size."""
        examined: Floats = self.mean * self._raw[position] / self._mean_by_size[size - 1]
        return examined

    @cached_property
    def _raw(self) -> Floats:
        positions = np.arange(self.max_slate_size)
        fading = np.exp(-positions / ATTENTION_FADE_POSITIONS)
        raw: Floats = ATTENTION_FLOOR + (1.0 - ATTENTION_FLOOR) * fading
        return raw

    @cached_property
    def _mean_by_size(self) -> Floats:
        means: Floats = np.cumsum(self._raw) / np.arange(1, self.max_slate_size + 1)
        return means


@dataclass(frozen=True)
class Truth:
    """What the best possible model would predict from request columns, one value per row.

    Attributes:
        click_probability: Averaged over positions and over the session's intent.
        conversion_probability: Of a click and a conversion inside the window, averaged likewise
            and over engagement.
        median_watch_seconds: Given a click.
        expected_watch_seconds: Given a click.
    """

    click_probability: Floats
    conversion_probability: Floats
    median_watch_seconds: Floats
    expected_watch_seconds: Floats


@dataclass(frozen=True)
class Outcomes:
    """What happened on one day's slates.

    Attributes:
        row: Clicked rows of the slates, ascending, [clicks].
        click_ms: Time of each click, [clicks].
        watch_ms: Length of the visit, at least 1, [clicks].
        conversion_ms: Time of the conversion, `NO_TIME` where there was none, [clicks].
        value: Value of the conversion, 0 where there was none, [clicks].
        depth: How far the page was scrolled, in [0, 1], [clicks].
        return_ms: When the user came back within a day, else `NO_TIME`, [requests].
    """

    row: Ints
    click_ms: Ints
    watch_ms: Ints
    conversion_ms: Ints
    value: Floats
    depth: Floats
    return_ms: Ints


@dataclass(frozen=True)
class Behaviour:
    """Logits of click and conversion and scale of watch time, with calibrated intercepts.

    Two things are hidden from every request: the session's intent (one standard normal a request,
    drives clicks, conversions, scrolling and returns) and the engagement with a clicked item (one
    standard normal a click, drives watch time, conversions and scrolling).

    Attributes:
        world: Users, items and shared effects.
        click_intercept: Added to every click logit.
        conversion_intercept: Added to every conversion logit.
    """

    world: World
    click_intercept: float = 0.0
    conversion_intercept: float = 0.0

    @cached_property
    def attention(self) -> Attention:
        """Examination by position."""
        return Attention(self.world.config.max_slate_size)

    @cached_property
    def share_in_window(self) -> float:
        """Share of conversions inside the configured window."""
        return share_converted_within(self.world.config.conversion_window_hours)

    def truth(self, slates: Slates) -> Truth:
        """Computes what can be known at request time, by Gauss-Hermite quadrature."""
        click, conversion = _mean_over_hidden(
            self._click_logit(slates),
            self._conversion_logit(slates),
            self.world.sizes.session_intent,
            num_points=9,
        )
        median = np.exp(self._log_watch(slates, np.arange(slates.num_rows)))
        variance = ENGAGEMENT_ON_LOG_WATCH**2 + LOG_WATCH_NOISE**2
        return Truth(
            click_probability=self.attention.mean * click,
            conversion_probability=self.attention.mean * self.share_in_window * conversion,
            median_watch_seconds=median,
            expected_watch_seconds=median * np.exp(variance / 2.0),
        )

    def calibrated(self, slates: Slates) -> Behaviour:
        """Chooses the intercepts so that the mean rates on some slates meet their targets.

        Args:
            slates: Slates to calibrate on; they need not be part of the log.

        Returns:
            The same behaviour with new intercepts, found by bisection.
        """
        intent = self.world.sizes.session_intent
        click_logit = self._click_logit(slates) - self.click_intercept
        conversion_logit = self._conversion_logit(slates) - self.conversion_intercept

        def click_rate(intercept: float) -> float:
            click, _ = _mean_over_hidden(click_logit + intercept, None, intent, num_points=5)
            return self.attention.mean * float(click.mean())

        click_intercept = _bisect(click_rate, TARGET_CLICK_RATE)

        def conversion_rate(intercept: float) -> float:
            click, conversion = _mean_over_hidden(
                click_logit + click_intercept, conversion_logit + intercept, intent, num_points=5
            )
            return float(conversion.sum() / click.sum())

        conversion_intercept = _bisect(conversion_rate, TARGET_CONVERSION_RATE)
        return Behaviour(self.world, click_intercept, conversion_intercept)

    def draw(self, slates: Slates, rng: np.random.Generator) -> Outcomes:
        """Draws what happens, hidden intent and engagement included."""
        sizes, users = self.world.sizes, self.world.users
        num_requests = len(slates.time_ms)
        intent = rng.standard_normal(num_requests)

        logit = self._click_logit(slates) + sizes.session_intent * intent[slates.request]
        examined = self.attention.probability(slates.position, slates.size[slates.request])
        row = np.flatnonzero(rng.random(slates.num_rows) < examined * expit(logit))
        request, item = slates.request[row], slates.item[row]
        click_ms = slates.time_ms[request] + CLICK_DELAY.draw(len(row), rng)

        engagement = rng.standard_normal(len(row))
        log_watch = (
            self._log_watch(slates, row)
            + ENGAGEMENT_ON_LOG_WATCH * engagement
            + LOG_WATCH_NOISE * rng.standard_normal(len(row))
        )
        watch_ms = np.maximum(np.rint(SECOND_MS * np.exp(log_watch)), 1.0).astype(np.int64)

        conversion_logit = (
            self._conversion_logit(slates)[row]
            + INTENT_ON_CONVERSION * intent[request]
            + ENGAGEMENT_ON_CONVERSION * engagement
        )
        converted = rng.random(len(row)) < expit(conversion_logit)
        conversion_ms = click_ms + CONVERSION_DELAY.draw(len(row), rng)
        category_value = self.world.shared.conversion_category[self.world.items.category[item]]
        value = np.exp(3.0 + category_value + 0.6 * rng.standard_normal(len(row)))

        depth = expit(
            0.2
            + 0.5 * intent[request]
            + 1.1 * engagement
            + 0.3 * self.world.items.quality[item]
            + SCROLL_NOISE * rng.standard_normal(len(row))
        )
        clicks = np.minimum(np.bincount(request, minlength=num_requests), 3)
        return_logit = -0.6 + 0.7 * users.activity[slates.user] + 0.5 * intent + 0.5 * clicks
        returned = rng.random(num_requests) < expit(return_logit)
        delay = 10 * MINUTE_MS + (DAY_MS - 10 * MINUTE_MS) * rng.random(num_requests) ** 1.5
        return Outcomes(
            row=row,
            click_ms=click_ms,
            watch_ms=watch_ms,
            conversion_ms=np.where(converted, conversion_ms, NO_TIME),
            value=np.where(converted, np.round(value, 2), 0.0),
            depth=np.round(depth, 3),
            return_ms=np.where(returned, slates.time_ms + delay.astype(np.int64), NO_TIME),
        )

    def _click_logit(self, slates: Slates) -> Floats:
        users, items, shared = self.world.users, self.world.items, self.world.shared
        category = items.category[slates.item]
        by_request = (
            self.click_intercept
            + shared.day[slates.day]
            + users.click_effect[slates.user]
            + shared.surface[slates.surface]
            + shared.hour[hour_of(slates)]
        )
        user, surface = slates.user[slates.request], slates.surface[slates.request]
        device, block = slates.device[slates.request], block_of(slates)[slates.request]
        logit: Floats = (
            by_request[slates.request]
            + users.category_interest[user, category]
            + items.click_effect[block, slates.item]
            + shared.surface_category[surface, category]
            + shared.device_length[device] * items.log_length[slates.item]
        )
        return logit

    def _conversion_logit(self, slates: Slates) -> Floats:
        """Given a click: shares interest, quality and activity with it, the rest is its own."""
        users, items, shared = self.world.users, self.world.items, self.world.shared
        category = items.category[slates.item]
        by_request = (
            self.conversion_intercept
            + 0.25 * users.activity[slates.user]
            + shared.conversion_country[users.country[slates.user]]
            + shared.conversion_surface[slates.surface]
            + DEVICE_ON_CONVERSION[slates.device]
        )
        segment = users.segment[slates.user][slates.request]
        by_item = (
            0.3 * items.quality
            + shared.conversion_category[items.category]
            + shared.conversion_creator[items.creator]
        )
        logit: Floats = (
            by_request[slates.request]
            + 0.35 * shared.affinity[segment, category]
            + 0.55 * shared.conversion_fit[segment, category]
            + by_item[slates.item]
        )
        return logit

    def _log_watch(self, slates: Slates, row: Ints) -> Floats:
        """Logarithm of the median watch seconds, given a click, for some rows."""
        users, items, shared = self.world.users, self.world.items, self.world.shared
        request, item = slates.request[row], slates.item[row]
        log_length = np.log(items.length_seconds[item] / TYPICAL_LENGTH_SECONDS)
        segment = users.segment[slates.user[request]]
        log_watch: Floats = (
            np.log(TYPICAL_WATCH_SECONDS)
            + 0.55 * log_length
            + 0.3 * shared.affinity[segment, items.category[item]]
            + 0.3 * items.quality[item]
            + DEVICE_ON_LOG_WATCH[slates.device[request]]
        )
        return log_watch


def _mean_over_hidden(
    click_logit: Floats,
    conversion_logit: Floats | None,
    session_intent: float,
    *,
    num_points: int,
) -> tuple[Floats, Floats]:
    """Averages clicks over intent, and clicks that convert over intent and engagement, per row.

    Both are given that the item is looked at; the second is 0 without conversion logits.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(num_points)
    weights = weights / weights.sum()
    click, conversion = np.zeros_like(click_logit), np.zeros_like(click_logit)
    for z, weight in zip(points, weights, strict=True):
        interested = weight * expit(click_logit + session_intent * z)
        click += interested
        if conversion_logit is None:
            continue
        converted = np.zeros_like(click_logit)
        for e, engagement_weight in zip(points, weights, strict=True):
            shift = INTENT_ON_CONVERSION * z + ENGAGEMENT_ON_CONVERSION * e
            converted += engagement_weight * expit(conversion_logit + shift)
        conversion += interested * converted
    return click, conversion


def _bisect(rate_of: Callable[[float], float], target: float) -> float:
    low, high = -12.0, 12.0
    for _ in range(24):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rate_of(middle) < target else (low, middle)
    return (low + high) / 2.0
