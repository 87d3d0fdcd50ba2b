"""What tells a server to stop, and what SIGTERM and SIGINT do before there is one to drain."""

from __future__ import annotations

import os
import signal
import threading
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


def stop_at_end_of_input(stop_requested: threading.Event) -> None:
    """Has a process stop with the one that holds the other end of its standard input.

    However that one ends: its end of the pipe closes.

    Args:
        stop_requested: What is set then.
    """

    def wait() -> None:
        # Not through sys.stdin: a thread that waits in it is fatal when the interpreter ends.
        while os.read(0, 1):
            pass
        stop_requested.set()

    threading.Thread(target=wait, name="input", daemon=True).start()
