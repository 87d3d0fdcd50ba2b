"""Work that requests go before."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

_NICENESS = 10


def run_behind(run: Callable[[], T]) -> T:
    """Runs a function in a thread of a lower priority, where threads have their own (Linux).

    In a thread of its own, because what has lowered its priority may not raise it again.

    Args:
        run: What to run. Threads that it starts have the lower priority too.
    """
    with ThreadPoolExecutor(1, "behind", initializer=_step_back) as pool:
        return pool.submit(run).result()


def _step_back() -> None:
    # Elsewhere the number is not a thread's, or names nothing.
    if hasattr(os, "sched_getscheduler"):
        with suppress(OSError):
            thread = threading.get_native_id()
            own = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, own + _NICENESS)
