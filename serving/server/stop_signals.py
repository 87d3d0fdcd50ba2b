"""What SIGTERM and SIGINT do before there is a server to drain."""

from __future__ import annotations

import os
import signal
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_on_stop_signals() -> None:
    """Ends the process at once, with exit code 0, when it is told to stop.

    Call it in the main thread before TensorFlow is imported, which takes seconds; `serve` puts
    its own handlers, which drain, in place of these.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    # An exception would have to pass through half-imported native modules, some of which catch
    # and report it. Nothing is served or written yet, so nothing is lost by leaving here.
    os._exit(0)
