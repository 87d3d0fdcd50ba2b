"""The truth beside the logs: a row per impression, and what the best possible model reaches."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simulator.behaviour import NO_TIME, Outcomes, Truth
from simulator.config import SimulationConfig
from simulator.log_writer import LogWriter
from simulator.oracle import Judged
from simulator.rows import Rows
from simulator.time_units import HOUR_MS, SECOND_MS
from simulator.traffic import Slates

TRUTH_FOLDER = "_truth"


def judge(
    config: SimulationConfig, slates: Slates, truth: Truth, outcomes: Outcomes, first_request: int
) -> Judged:
    """Lines up what was to be expected with what happened, one entry per shown item.

    Args:
        config: Holds the conversion window.
        slates: What was shown.
        truth: What was to be expected.
        outcomes: What happened.
        first_request: Number of the day's first request in the whole log.
    """
    clicked = np.zeros(slates.num_rows, dtype=bool)
    converted = np.zeros(slates.num_rows, dtype=bool)
    watch_seconds = np.full(slates.num_rows, np.nan)
    shown_ms = slates.time_ms[slates.request[outcomes.row]]
    clicked[outcomes.row] = True
    converted[outcomes.row] = (outcomes.conversion_ms != NO_TIME) & (
        outcomes.conversion_ms - shown_ms < config.conversion_window_hours * HOUR_MS
    )
    watch_seconds[outcomes.row] = outcomes.watch_ms / SECOND_MS
    return Judged(
        request=first_request + slates.request,
        click_probability=truth.click_probability,
        conversion_probability=truth.conversion_probability,
        median_watch_seconds=truth.median_watch_seconds,
        clicked=clicked,
        converted=converted,
        watch_seconds=watch_seconds,
    )


class TruthWriter:
    """Writes `truth.parquet` day by day; use as a context manager."""

    def __init__(self, log_writer: LogWriter, folder: Path) -> None:
        """Creates the folder.

        Args:
            log_writer: Knows the ids.
            folder: Where the file goes.
        """
        self._log_writer = log_writer
        folder.mkdir(parents=True)
        self._path = folder / "truth.parquet"
        self._file: pq.ParquetWriter | None = None

    def __enter__(self) -> TruthWriter:
        """Returns itself."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def write(self, keys: Rows, truth: Truth, judged: Judged) -> None:
        """Appends a day.

        Args:
            keys: Clean impressions, in the order of the slates.
            truth: What was to be expected.
            judged: The same with what happened.
        """
        names = ("request_id", "item_id", "timestamp")
        columns: Rows = {name: keys[name] for name in names}
        columns |= {
            "click_probability": truth.click_probability,
            "conversion_probability": truth.conversion_probability,
            "expected_watch_seconds": truth.expected_watch_seconds,
            "median_watch_seconds": truth.median_watch_seconds,
            "clicked": judged.clicked,
            "converted": judged.converted,
            "watch_seconds": judged.watch_seconds,
        }
        table: pa.Table = self._log_writer.table(columns)
        if self._file is None:
            self._file = pq.ParquetWriter(self._path, table.schema, use_dictionary=["item_id"])
        self._file.write_table(table)


def describe_config(config: SimulationConfig) -> dict[str, Any]:
    """Returns the settings with derived defaults filled in, for the truth file."""
    return dataclasses.asdict(config) | {
        "num_users": config.resolved_num_users,
        "num_items": config.resolved_num_items,
    }


def rates(judged: Judged) -> dict[str, float | None]:
    """Returns how often things happened, and how long visits were."""
    clicks = int(judged.clicked.sum())
    watched = judged.watch_seconds[judged.clicked]
    return {
        "click_rate": float(judged.clicked.mean()),
        "conversion_rate": float(judged.converted.mean()),
        "conversion_rate_given_click": int(judged.converted.sum()) / clicks if clicks else None,
        "mean_watch_seconds": float(watched.mean()) if clicks else None,
        "median_watch_seconds": float(np.median(watched)) if clicks else None,
    }


def write_summary(summary: dict[str, Any], folder: Path) -> None:
    """Writes `oracle.json`."""
    text = json.dumps(summary, indent=2, allow_nan=False)
    (folder / "oracle.json").write_text(text + "\n", encoding="utf-8")
