"""What a client keeps to itself while a server refuses for want of room."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from dataclasses import dataclass

from serving.errors import InvalidRequestError

_NUM_PARTS = 10


@dataclass(frozen=True)
class ThrottlePolicy:
    """Adaptive throttling: the more of a client's calls a server refuses, the fewer are sent.

    To refuse a call costs a server as well. Where callers ask many times what it can answer, the
    refusals alone take the time of answers. So a client sends about `multiplier` times what was
    accepted of late, and refuses the rest itself, at once. As long as the server accepts what is
    sent, more is sent, until all is.

    Source: Beyer et al. (eds.), *Site Reliability Engineering*, 2016, chapter 21, the section on
    client-side throttling. A call is held back with probability ``(requests - multiplier *
    accepted) / (requests + padding)``, at least 0 and at most `most`. The book has a padding of 1,
    with which a single refusal holds back half of what a client that rarely asks sends next, and
    no upper bound, with which a server that refused everything is hardly asked again.

    Attributes:
        multiplier: Calls sent per call accepted, 1 or more. Lower spares an overloaded server more
            of the refusals; higher finds out sooner that it has room again.
        window_seconds: How long a call counts.
        padding: How many refusals it takes to matter, 1 or more.
        most: Largest probability of holding a call back, below 1.

    Raises:
        InvalidRequestError: A number is out of its range.
    """

    multiplier: float = 1.5
    window_seconds: float = 5.0
    padding: float = 8.0
    most: float = 0.9

    def __post_init__(self) -> None:
        for name, constraint, holds in (
            ("multiplier", "1 or more", self.multiplier >= 1),
            ("window_seconds", "more than 0", self.window_seconds > 0),
            ("padding", "1 or more", self.padding >= 1),
            ("most", "more than 0 and less than 1", 0 < self.most < 1),
        ):
            if not holds:
                raise InvalidRequestError(
                    f"{name} of the throttle policy is out of its range",
                    constraint=constraint,
                    received=getattr(self, name),
                    remedy="change it; throttle=None sends every call",
                )


@dataclass
class _Part:
    """What ended in a part of the window."""

    end: float
    num_requests: int = 0
    num_accepted: int = 0


class Throttle:
    """Counts what became of a client's calls, and says which of the next to hold back.

    Safe to share between threads.

    Args:
        policy: How much to hold back.
        source: Source of chance.
    """

    def __init__(self, policy: ThrottlePolicy, source: random.Random) -> None:
        self._policy = policy
        self._source = source
        self._lock = threading.Lock()
        self._parts: deque[_Part] = deque()  # of the window, oldest first
        self._num_requests = 0
        self._num_accepted = 0

    def admits(self) -> bool:
        """Whether to send the next call; one that is held back counts as a request."""
        with self._lock:
            self._forget()
            policy = self._policy
            excess = self._num_requests - policy.multiplier * self._num_accepted
            if self._source.random() >= min(
                excess / (self._num_requests + policy.padding), policy.most
            ):
                return True
            self._count(accepted=False)
            return False

    def note(self, *, accepted: bool) -> None:
        """Counts a call that the server accepted, whatever it answered, or refused.

        Calls are counted when they end: those under way tell nothing of the server yet.
        """
        with self._lock:
            self._forget()
            self._count(accepted=accepted)

    def _count(self, *, accepted: bool) -> None:
        now = time.monotonic()
        if not self._parts or now >= self._parts[-1].end:
            self._parts.append(_Part(now + self._policy.window_seconds / _NUM_PARTS))
        part = self._parts[-1]
        part.num_requests += 1
        part.num_accepted += accepted
        self._num_requests += 1
        self._num_accepted += accepted

    def _forget(self) -> None:
        oldest = time.monotonic() - self._policy.window_seconds
        while self._parts and self._parts[0].end <= oldest:
            part = self._parts.popleft()
            self._num_requests -= part.num_requests
            self._num_accepted -= part.num_accepted
