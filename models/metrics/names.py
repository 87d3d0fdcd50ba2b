"""Names under which an evaluation stores what belongs to a metric."""

from __future__ import annotations


def interval_bounds(metric: str) -> tuple[str, str]:
    """Returns the names of the lower and upper bound of a metric's interval."""
    return f"{metric}_low", f"{metric}_high"


def change_bounds(metric: str) -> tuple[str, str]:
    """Returns the names of the bounds of a metric's difference to the baseline."""
    return f"{metric}_change_low", f"{metric}_change_high"
