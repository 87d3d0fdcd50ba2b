"""What variables that served and auxiliary tasks both need are called."""

from __future__ import annotations

from collections.abc import Sequence


def network_labels(tasks: Sequence[str]) -> list[str]:
    """Names the networks of tasks, in order, inside variable names.

    Where a served task reads the layers of every network, an export keeps those of auxiliary
    tasks. They are part of the served tasks, and are called ``network_i``: a task's name in an
    export always means a head, a gate or a tower of its own.
    """
    return [f"network_{i}" for i in range(len(tasks))]
