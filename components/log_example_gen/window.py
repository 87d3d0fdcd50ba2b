"""Resolves the times of a run: cut-off, train, validation and test windows."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.log_example_gen.reader import Limits, scan_times
from components.log_example_gen.spec import Logs, Splits, Window
from models.spec.errors import ConfigError, DataError
from models.spec.ranking import IMPRESSIONS, RankingSpec

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_DAY_MS = 86_400_000


def resolve_window(
    logs: Logs, splits: Splits, ranking: RankingSpec, root: Path, date: str | None
) -> Window:
    """Reads the times of the logs and cuts them.

    The cut-off is the midnight after `date`, or 1 ms after the latest valid time among
    impressions and the streams that join them. The test window ends with the last impression
    before the cut-off, but at least the longest maturity of a gated task before it. Shares count
    impressions before the end of the test window, in time order, before duplicates are dropped; a
    boundary is a time, and rows at it belong to the later split.

    Args:
        logs: The sources.
        splits: Lengths or shares of the windows.
        ranking: Tells which streams join and when labels are final.
        root: Folder of the logs.
        date: Last day that the run may see, ``YYYY-MM-DD`` (UTC), or None.

    Raises:
        ConfigError: `date` is not a date.
        DataError: A log cannot be read, or a window would be empty.
    """
    limits = Limits.of(logs)
    withheld = logs.private_streams(ranking)
    times = scan_times(
        root,
        logs.impressions,
        stream_name=IMPRESSIONS,
        limits=limits,
        withheld=IMPRESSIONS in withheld,
    )
    if len(times) == 0:
        raise DataError(
            "the impressions have no row",
            constraint="at least one impression in each of train, validation and test",
            received=f"only empty files under {root}",
            remedy="point logs.root at logs with impressions",
        )
    if date is None:
        joined = sorted({c.join.stream for c in ranking.columns.values() if c.join is not None})
        scanned = (
            scan_times(
                root,
                logs.streams[name],
                stream_name=name,
                limits=limits,
                withheld=name in withheld,
            )
            for name in joined
        )
        cutoff = max(int(found[-1]) for found in [times, *scanned] if len(found)) + 1
    else:
        cutoff = _midnight_after(date)
    gated = [n for n in ranking.served_tasks if ranking.tasks[n].gates]
    maturity_ms = max((ranking.task_maturity_ms(name) for name in gated), default=0)
    return _cut(times, splits, cutoff, maturity_ms)


def _cut(times: NDArray[np.int64], splits: Splits, cutoff: int, maturity_ms: int) -> Window:
    """Cuts ascending impression times into windows."""
    span = f"impressions from {as_text(times[0])} to {as_text(times[-1])}"
    seen = times[: np.searchsorted(times, cutoff)]
    if len(seen) == 0:
        raise DataError(
            f"no impression lies before the cut-off {as_text(cutoff)}",
            received=span,
            remedy="choose a later --date",
        )
    test_end = min(int(seen[-1]) + 1, cutoff - maturity_ms)
    usable = times[: np.searchsorted(times, test_end)]
    test_start = _boundary(usable, test_end, splits.test)
    validation_start = _boundary(usable, test_start, splits.validation)
    train_start = (
        validation_start - splits.train
        if splits.train is not None
        else int(usable[0])
        if len(usable)
        else test_end
    )
    bounds = {
        "train": (train_start, validation_start),
        "validation": (validation_start, test_start),
        "test": (test_start, test_end),
    }
    for name, (start, end) in bounds.items():
        if np.searchsorted(times, end) <= np.searchsorted(times, start):
            raise DataError(
                f"the {name} window is empty: {as_text(start)} to {as_text(end)}",
                constraint="at least one impression in each of train, validation and test",
                received=f"{span}; cut-off {as_text(cutoff)}, of which the last "
                f"{duration_text(maturity_ms)} are left out until labels are final",
                remedy="shorten splits.validation, splits.test or the attribution windows, give "
                "them as shares, or bring more days of logs",
            )
    return Window(
        train_start=train_start,
        validation_start=validation_start,
        test_start=test_start,
        test_end=test_end,
        train_cutoff=validation_start + splits.label_cutoff,
        cutoff=cutoff,
    )


def _boundary(times: NDArray[np.int64], end: int, wanted: int | float) -> int:
    """Returns the start of the window that ends at `end`: by length, or by share of `times`."""
    if not isinstance(wanted, float):
        return end - wanted
    num_before = int(np.searchsorted(times, end))
    if num_before == 0:
        return end
    num_wanted = max(round(len(times) * wanted), 1)
    return int(times[max(num_before - num_wanted, 0)])


def _midnight_after(date: str) -> int:
    try:
        day = datetime.date.fromisoformat(date)
    except ValueError as error:
        raise ConfigError(
            "--date is not a date",
            constraint="YYYY-MM-DD",
            received=repr(date),
            remedy="give the last day whose logs the run may see, e.g. 2024-01-31",
        ) from error
    return ((day - _EPOCH.date()).days + 1) * _DAY_MS


def as_text(ms: int) -> str:
    """Formats milliseconds since 1970 as ISO 8601 in UTC, e.g. ``2024-01-31T12:00:00.000Z``."""
    time = _EPOCH + datetime.timedelta(milliseconds=int(ms))
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration_text(ms: int) -> str:
    """Formats a duration with its largest whole unit, e.g. ``48h``."""
    for unit, length in (("d", _DAY_MS), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if ms and ms % length == 0:
            return f"{ms // length}{unit}"
    return f"{ms}ms"
