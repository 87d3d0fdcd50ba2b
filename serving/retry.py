"""Time budgets of calls, and when a failed call is worth another try."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from serving.errors import InvalidRequestError

_LONGEST_SECONDS = 1e8
"""Three years: deadlines that gRPC cannot express, infinite ones too, would have passed already."""


class Budget:
    """The time that is left for a call and everything it needs, retries included.

    Args:
        seconds: The whole budget, from now; may be infinite.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + min(seconds, _LONGEST_SECONDS)

    def left_seconds(self) -> float:
        """Returns what is left, at least 0."""
        return max(0.0, self._end - time.monotonic())


@dataclass(frozen=True)
class RetryPolicy:
    """Bounded retries with exponential backoff and full jitter, on UNAVAILABLE only.

    Attributes:
        max_retries: Calls after the first one; 0 turns retries off.
        first_seconds: Longest wait before the first retry.
        factor: Growth of the longest wait per retry.

    Raises:
        InvalidRequestError: A number is negative, or waits would shrink.
    """

    max_retries: int = 2
    first_seconds: float = 0.05
    factor: float = 4.0

    def __post_init__(self) -> None:
        for name, least in (("max_retries", 0), ("first_seconds", 0.0), ("factor", 1.0)):
            value = getattr(self, name)
            if not value >= least:
                raise InvalidRequestError(
                    f"{name} of the retry policy is too small",
                    constraint=f"at least {least:g}",
                    received=value,
                    remedy="raise it; RetryPolicy(max_retries=0) turns retries off",
                )

    def wait_seconds(self, retry: int, source: random.Random) -> float:
        """Draws the wait before a retry, uniform between 0 and the longest wait.

        Args:
            retry: 0 for the first retry.
            source: Source of the jitter.
        """
        return source.uniform(0.0, self.first_seconds * self.factor**retry)
