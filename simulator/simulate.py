"""Simulates a site for some days and writes its logs, and beside them the truth."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.spec.errors import DataError
from simulator.behaviour import MAX_EVENT_DELAY_MS, Behaviour
from simulator.config import FileFormat, SimulationConfig
from simulator.faults import (
    LATE_WINDOW_MS,
    MAX_FOLDER_DELAY_DAYS,
    FaultCounts,
    damage_events,
    damage_impressions,
)
from simulator.log_writer import LogWriter
from simulator.oracle import Judged, oracle_metrics
from simulator.population import World, draw_world
from simulator.rows import concatenated
from simulator.streams import (
    EVENT_STREAMS,
    MISSING_RATES,
    DayEvents,
    event_rows,
    impression_rows,
)
from simulator.time_units import HOUR_MS
from simulator.traffic import draw_slates, rows_per_day
from simulator.truth_files import (
    TRUTH_FOLDER,
    TruthWriter,
    describe_config,
    judge,
    rates,
    write_summary,
)

__all__ = ["FileFormat", "SimulationConfig", "simulate"]

SCHEMA_VERSION = 1
PILOT_ROWS = 20_000
STAGING_FOLDER = ".incomplete"
FOLDERS = ("impressions", *EVENT_STREAMS, TRUTH_FOLDER)

DEFINITIONS = {
    "oracle": "A model that knows every effect of a request column, user and item, but neither "
    "the session's intent nor the engagement with an item, and not the position: probabilities "
    "are averaged over these. Positions are random within a slate.",
    "click": "Probability of a click; metrics over all impressions.",
    "conversion": "Probability of a click and a conversion less than conversion_window_hours "
    "after the impression; metrics over all impressions.",
    "watch_seconds": "Sum of the dwell seconds; metrics over clicked impressions, predicting the "
    "true median.",
    "gauc": "Mean AUC of the requests with both classes, weighted by their number of items.",
    "normalized_entropy": "Log loss divided by the entropy of the mean rate of the same rows.",
    "xauc": "Share of pairs with different watch seconds that are ordered right.",
    "faults": "rows = clean + duplicates + late_window + orphan_requests + orphan_items + "
    "malformed; late_folder counts clean rows in the folder of a later day than their own.",
}

_WORLD_DRAW, _PILOT_DRAW, _CALENDAR_DRAW, _DAY_DRAW, _FAULT_DRAW = range(5)


def simulate(
    config: SimulationConfig, out_dir: str | Path, *, overwrite: bool = False
) -> dict[str, Any]:
    """Writes the logs of a site and their truth.

    `OUT/<stream>/date=YYYY-MM-DD/part-00000.<format>` for impressions, clicks, conversions, dwell,
    scroll and returns; `OUT/_truth/oracle.json` with the summary this returns and
    `OUT/_truth/truth.parquet` with a row per impression. Nothing appears under these names before
    everything is written. Equal settings give byte-identical files.

    Args:
        config: Size, span, format, seed and fault rates.
        out_dir: The folder OUT; it is created if it does not exist.
        overwrite: Replace an earlier simulation in the same folder instead of refusing.

    Returns:
        The truth: settings, the oracle's metrics over all days and per day, rates, faults planted
        and what the numbers mean.

    Raises:
        DataError: The folder cannot be used, or holds logs already.
    """
    out = Path(out_dir)
    staging = _prepare(out, overwrite)
    world = draw_world(config, _generator(config, _WORLD_DRAW))
    writer = LogWriter.for_world(world, staging)
    with TruthWriter(writer, staging / TRUTH_FOLDER) as truth_writer:
        days = list(_simulate_days(world, writer, truth_writer))
    faults = {"impressions": sum((day.impression_faults for day in days), FaultCounts())}
    for number, stream in enumerate(EVENT_STREAMS):
        damaged = damage_events(
            config,
            concatenated([day.events.clean[stream] for day in days]),
            concatenated([day.events.bystanders[stream] for day in days]),
            _generator(config, _FAULT_DRAW, number),
        )
        writer.write(stream, damaged)
        faults[stream] = damaged.counts
    summary = _summary(config, days, faults)
    write_summary(summary, staging / TRUTH_FOLDER)
    _publish(out, staging, overwrite)
    return summary


@dataclass(frozen=True)
class _Day:
    """What is kept of a day once its impressions are written."""

    events: DayEvents
    judged: Judged
    impression_faults: FaultCounts
    num_requests: int
    num_simultaneous: int
    num_simultaneous_of_user: int


def _simulate_days(world: World, writer: LogWriter, truth_writer: TruthWriter) -> Iterator[_Day]:
    config = world.config
    pilot = draw_slates(world, config.days // 2, PILOT_ROWS, _generator(config, _PILOT_DRAW))
    behaviour = Behaviour(world).calibrated(pilot)
    rows_before, first_request = 0, 0
    for day, count in enumerate(rows_per_day(config, _generator(config, _CALENDAR_DRAW)).tolist()):
        rng = _generator(config, _DAY_DRAW, day)
        slates = draw_slates(world, day, count, rng)
        truth, outcomes = behaviour.truth(slates), behaviour.draw(slates, rng)
        judged = judge(config, slates, truth, outcomes, first_request)
        rows = impression_rows(world, slates, first_request, rng)
        truth_writer.write(rows, truth, judged)
        damaged = damage_impressions(config, rows, rows_before, rng)
        writer.write("impressions", damaged)
        num_requests = len(slates.time_ms)
        yield _Day(
            events=event_rows(slates, outcomes, first_request, rng),
            judged=judged,
            impression_faults=damaged.counts,
            num_requests=num_requests,
            num_simultaneous=num_requests - len(np.unique(slates.time_ms)),
            num_simultaneous_of_user=num_requests
            - len(np.unique(np.stack([slates.time_ms, slates.user]), axis=1).T),
        )
        rows_before += count
        first_request += num_requests


def _generator(config: SimulationConfig, *stage: int) -> np.random.Generator:
    """Every stage draws from a stream of its own, so that one does not shift the others."""
    return np.random.default_rng([config.seed, *stage])


def _summary(
    config: SimulationConfig, days: list[_Day], faults: dict[str, FaultCounts]
) -> dict[str, Any]:
    judged = Judged.concatenated([day.judged for day in days])
    dates = [config.date(day) for day in range(config.days)]
    return {
        "schema_version": SCHEMA_VERSION,
        "config": describe_config(config),
        "oracle": oracle_metrics(judged),
        "per_day": {
            date: oracle_metrics(day.judged) for date, day in zip(dates, days, strict=True)
        },
        "rates": rates(judged),
        "rates_per_day": {date: rates(day.judged) for date, day in zip(dates, days, strict=True)},
        "rows": {
            "impressions": len(judged.request),
            "requests": sum(day.num_requests for day in days),
            "simultaneous_requests": sum(day.num_simultaneous for day in days),
            "simultaneous_requests_of_one_user": sum(d.num_simultaneous_of_user for d in days),
        },
        "faults": {
            stream: dataclasses.asdict(counts) | {"rows": counts.rows}
            for stream, counts in faults.items()
        },
        "missing_value_rates": MISSING_RATES,
        "delays_hours": {
            "latest_clean_event": MAX_EVENT_DELAY_MS / HOUR_MS,
            "late_window_from": LATE_WINDOW_MS[0] / HOUR_MS,
            "late_window_to": LATE_WINDOW_MS[1] / HOUR_MS,
            "late_folder_at_most": 24 * MAX_FOLDER_DELAY_DAYS,
        },
        "definitions": DEFINITIONS,
    }


def _prepare(out: Path, overwrite: bool) -> Path:
    """Makes an empty staging folder inside the target, after making sure that it may be used."""
    existing = [name for name in FOLDERS if (out / name).exists()]
    ours = any((out / name).exists() for name in (TRUTH_FOLDER, STAGING_FOLDER))
    if existing and not (overwrite and ours):
        raise DataError(
            f"simulation target {out}",
            constraint="a folder without logs",
            received=f"one with {', '.join(existing)}",
            remedy="choose another folder or remove these",
        )
    staging = out / STAGING_FOLDER
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
    except OSError as error:
        raise DataError(
            f"simulation target {out}",
            constraint="a folder that can be written to",
            received=f"{type(error).__name__}: {error.strerror}",
            remedy="choose another folder or mend its permissions",
        ) from error
    return staging


def _publish(out: Path, staging: Path, overwrite: bool) -> None:
    """Moves everything to its final name, the truth last: where it is, the logs are complete."""
    for name in FOLDERS:
        if overwrite and (out / name).exists():
            shutil.rmtree(out / name)
        if (staging / name).exists():
            (staging / name).rename(out / name)
    staging.rmdir()
