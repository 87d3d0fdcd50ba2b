"""One call of a method, however it came."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Call:
    """What a method may know of its call, and what it says about it.

    Attributes:
        deadline: When the caller gives up, on `time.monotonic`; None without a deadline.
        token: The bearer token that came with the call, empty without.
        entrypoint: How the call came, ``GRPC`` or ``REST``.
        model: Set by the method to the served model that it resolved, for the metrics.
        version: Likewise the version.
        num_examples: Likewise how many rows were asked about.
        runtime_seconds: Likewise how long TensorFlow took.
    """

    deadline: float | None = None
    token: str = ""
    entrypoint: str = "GRPC"
    model: str = ""
    version: str = ""
    num_examples: int | None = None
    runtime_seconds: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """Time until the caller gives up; None without a deadline."""
        return None if self.deadline is None else self.deadline - time.monotonic()
