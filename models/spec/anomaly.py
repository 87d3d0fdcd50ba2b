"""What can change between two windows, by name."""

from __future__ import annotations

from typing import Literal

AnomalyKind = Literal[
    "vanished",
    "new_category",
    "unit_change",
    "distribution",
    "label_rate",
    "broken_join",
    "clock_shift",
    "volume_drop",
]
"""vanished: a feature lost its values. new_category: a value that the previous window did not have.
unit_change: numbers grew or shrank by a factor. distribution: a feature moved. label_rate: a task's
mean label moved. broken_join: a stream's events find fewer impressions. clock_shift: the hours of a
log, or the delays of its events, moved. volume_drop: a day of a log has too few rows."""
