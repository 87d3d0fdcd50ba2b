"""What goes wrong between a site and its logs: duplicates, late events, orphans, damaged rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from simulator.config import SimulationConfig
from simulator.population import Ints
from simulator.rows import NULL_CODE, NULL_TIME, Rows, concatenated, num_rows, taken
from simulator.time_units import DAY_MS, HOUR_MS, SECOND_MS

GHOST_REQUEST = 1 << 40
"""Numbers from here on belong to requests that never were."""
NUM_GHOST_ITEMS = 50
"""So many item ids after the real ones exist in orphan events only."""

LATE_WINDOW_MS = (97 * HOUR_MS, 120 * HOUR_MS)
"""Events outside every sane attribution window happen this long after their impression."""
MAX_FOLDER_DELAY_DAYS = 2
ARRIVAL_JITTER_MS = 2.0 * SECOND_MS

MALFORMED_KINDS = ("null_key", "seconds_timestamp", "negative_timestamp", "unreadable_timestamp")
"""An unreadable timestamp is text in CSV and JSON Lines and null in Parquet."""


@dataclass(frozen=True)
class FaultCounts:
    """Rows of one stream by what was done to them.

    Attributes:
        clean: Rows before faults; all of them are in the files.
        late_folder: Clean rows that arrive in the folder of a later day than their timestamp's.
        duplicates: Extra exact copies of clean rows.
        late_window: Extra events, outside every sane window of an impression that exists.
        orphan_requests: Extra events of requests that do not exist.
        orphan_items: Extra events of items that their request did not show.
        malformed: Extra damaged copies of clean rows, by kind.
    """

    clean: int = 0
    late_folder: int = 0
    duplicates: int = 0
    late_window: int = 0
    orphan_requests: int = 0
    orphan_items: int = 0
    malformed: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(MALFORMED_KINDS, 0))

    @property
    def rows(self) -> int:
        """Rows in the files."""
        return (
            self.clean
            + self.duplicates
            + self.late_window
            + self.orphan_requests
            + self.orphan_items
            + sum(self.malformed.values())
        )

    def __add__(self, other: FaultCounts) -> FaultCounts:
        """Adds the counts of two parts of a stream."""
        return FaultCounts(
            clean=self.clean + other.clean,
            late_folder=self.late_folder + other.late_folder,
            duplicates=self.duplicates + other.duplicates,
            late_window=self.late_window + other.late_window,
            orphan_requests=self.orphan_requests + other.orphan_requests,
            orphan_items=self.orphan_items + other.orphan_items,
            malformed={k: n + other.malformed[k] for k, n in self.malformed.items()},
        )


@dataclass(frozen=True)
class FaultyRows:
    """Rows as they arrive.

    Attributes:
        rows: The rows, by folder and then roughly by time.
        folder: Day of the folder each row arrives in, counted from the log's first, ascending.
        counts: What was done to them.
    """

    rows: Rows
    folder: Ints
    counts: FaultCounts


def num_faults(rate: float, clean: int, before: int = 0) -> int:
    """Returns how many faults `clean` rows get after `before` others, so that sums round once."""
    return round(rate * (before + clean)) - round(rate * before)


def damage_impressions(
    config: SimulationConfig, rows: Rows, rows_before: int, rng: np.random.Generator
) -> FaultyRows:
    """Adds duplicates and malformed rows to a day of impressions.

    Args:
        config: Fault rates.
        rows: Clean impressions of one day.
        rows_before: Clean impressions of earlier days.
        rng: Chooses the rows.
    """
    clean = num_rows(rows)
    day = (rows["timestamp"] - config.start_ms) // DAY_MS
    parts = [_Part(rows, day, rows["timestamp"])]
    parts.append(_copies(parts[0], num_faults(config.duplicate_rate, clean, rows_before), rng))
    num_malformed = num_faults(config.malformed_rate, clean, rows_before)
    parts.append(_copies(parts[0], num_malformed, rng))
    malformed = _make_malformed(parts[-1].rows)
    counts = FaultCounts(clean, duplicates=num_rows(parts[1].rows), malformed=malformed)
    return _arrived(parts, counts, rng)


def damage_events(
    config: SimulationConfig, rows: Rows, bystanders: Rows, rng: np.random.Generator
) -> FaultyRows:
    """Adds every kind of fault to a whole event stream.

    Args:
        config: Fault rates.
        rows: Clean events.
        bystanders: Keys and times of impressions without such an event, to be late for.
        rng: Chooses the rows.
    """
    clean = num_rows(rows)
    folder = (rows["timestamp"] - config.start_ms) // DAY_MS
    num_late = num_faults(config.late_rate, clean)
    num_late_window = min(num_late // 2, num_rows(bystanders))
    late = rng.choice(clean, num_late - num_late // 2, replace=False)
    folder[late] += rng.integers(1, MAX_FOLDER_DELAY_DAYS + 1, size=len(late))

    whole = _Part(rows, folder, rows["timestamp"])
    duplicates = _copies(whole, num_faults(config.duplicate_rate, clean), rng)
    late_window = _late_for(config, rows, bystanders, num_late_window, rng)
    orphans = _copies(whole, num_faults(config.orphan_rate, clean), rng)
    num_orphan_items = _make_orphans(orphans.rows, config.resolved_num_items)
    damaged = _copies(whole, num_faults(config.malformed_rate, clean), rng)
    counts = FaultCounts(
        clean=clean,
        late_folder=len(late),
        duplicates=num_rows(duplicates.rows),
        late_window=num_late_window,
        orphan_requests=num_rows(orphans.rows) - num_orphan_items,
        orphan_items=num_orphan_items,
        malformed=_make_malformed(damaged.rows),
    )
    return _arrived([whole, duplicates, late_window, orphans, damaged], counts, rng)


@dataclass(frozen=True)
class _Part:
    rows: Rows
    folder: Ints
    arrival_ms: Ints


def _copies(part: _Part, count: int, rng: np.random.Generator) -> _Part:
    chosen = rng.choice(num_rows(part.rows), count, replace=False)
    return _Part(taken(part.rows, chosen), part.folder[chosen], part.arrival_ms[chosen])


def _late_for(
    config: SimulationConfig, rows: Rows, bystanders: Rows, count: int, rng: np.random.Generator
) -> _Part:
    chosen = rng.choice(num_rows(bystanders), count, replace=False)
    # What a late event says (seconds, depth, value) is taken from some other event.
    late = taken(rows, rng.choice(num_rows(rows), count, replace=False))
    late |= taken(bystanders, chosen)
    late["timestamp"] = late["timestamp"] + rng.integers(*LATE_WINDOW_MS, size=count)
    return _Part(late, (late["timestamp"] - config.start_ms) // DAY_MS, late["timestamp"])


def _make_orphans(rows: Rows, first_ghost_item: int) -> int:
    """Cuts events from their impressions, in place; returns how many got an item never shown."""
    number = np.arange(num_rows(rows))
    to_item = (number % 3 == 2) if "item_id" in rows else np.zeros(len(number), dtype=bool)
    rows["request_id"][~to_item] = GHOST_REQUEST + number[~to_item]
    if "item_id" in rows:
        rows["item_id"][to_item] = first_ghost_item + number[to_item] % NUM_GHOST_ITEMS
    return int(to_item.sum())


def _make_malformed(rows: Rows) -> dict[str, int]:
    """Damages rows in place, each in one way; returns how many in which."""
    kind = np.arange(num_rows(rows)) % len(MALFORMED_KINDS)
    rows["request_id"][kind == 0] = NULL_CODE
    time_ms = rows["timestamp"]
    rows["timestamp"] = np.select(
        [kind == 1, kind == 2, kind == 3], [time_ms // SECOND_MS, -time_ms, NULL_TIME], time_ms
    )
    return {name: int((kind == i).sum()) for i, name in enumerate(MALFORMED_KINDS)}


def _arrived(parts: list[_Part], counts: FaultCounts, rng: np.random.Generator) -> FaultyRows:
    rows = concatenated([part.rows for part in parts])
    folder = np.concatenate([part.folder for part in parts])
    arrival_ms = np.concatenate([part.arrival_ms for part in parts])
    jitter_ms = ARRIVAL_JITTER_MS * rng.standard_normal(len(folder))
    order = np.lexsort((arrival_ms + jitter_ms, folder))
    return FaultyRows(taken(rows, order), folder[order], counts)
