"""Counts that are made in many places and added up in one."""

from __future__ import annotations

from collections.abc import Iterable

Tally = dict[tuple[str, ...], float]
"""Counts by path, e.g. ``('rows', 'clicks', 'dead', 'orphan')``."""


def merged(tallies: Iterable[Tally]) -> Tally:
    """Adds counts up."""
    total: Tally = {}
    for tally in tallies:
        for path, count in tally.items():
            total[path] = total.get(path, 0) + count
    return total
