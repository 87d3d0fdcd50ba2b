"""Milliseconds, the unit of every timestamp in the logs, and the blocks drift is drawn for."""

from __future__ import annotations

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

BLOCKS_PER_DAY = 4
"""Item popularity and supply are constant within a block of a day and change between blocks."""

BLOCK_MS = DAY_MS // BLOCKS_PER_DAY
