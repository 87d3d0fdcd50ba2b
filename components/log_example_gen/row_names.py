"""Names of the columns that rows carry beside the declared ones. A double underscore marks them."""

from __future__ import annotations

from models.spec.keys import TIMESTAMP
from models.spec.ranking import IMPRESSIONS

EVENT_TIMESTAMP = "event__timestamp"
"""Time of an event, int64 milliseconds since 1970 UTC."""

SOURCE_FILE = "source__file"
"""Which file a row came from: its index among the files of the run."""

SOURCE_ROW = "source__row"
"""Row of the file, from 1; the line of a JSON Lines file."""

ROW_ID = "row__id"
"""Identifies an impression within one run."""

HOME = "row__home"
"""Shard where an impression's results are put together."""


def arrival_column(name: str) -> str:
    """Names the age in milliseconds at which a joined column's first event came."""
    return f"{name}__arrival"


def own_column(name: str) -> str:
    """Names our own computation of a logged feature."""
    return f"{name}__own"


def time_column(stream_name: str) -> str:
    """Returns the name of the time column: that of impressions, or that of events."""
    return TIMESTAMP if stream_name == IMPRESSIONS else EVENT_TIMESTAMP
