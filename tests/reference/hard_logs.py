"""Makes simulated logs hard: ties, events on the edges of windows, conflicts, one huge user.

Everything a join can get wrong is planted in numbers, then rows are shuffled over files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

STREAMS = ("impressions", "clicks", "conversions", "dwell", "scroll", "returns")
HOT_USER = "u-hot"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
LAG = 5 * MINUTE


@dataclass(frozen=True)
class Layout:
    """How rows lie in files.

    Attributes:
        num_files: Files of every stream.
        seed: Of the order of rows.
    """

    num_files: int
    seed: int


def hard_logs(simulated: Path, *, hot_events: int, seed: int = 0) -> dict[str, pl.DataFrame]:
    """Reads simulated logs and plants what is hard.

    Args:
        simulated: Folder that `simulate` filled with Parquet.
        hot_events: Clicks of the one huge user.
        seed: Of the choice of rows.

    Returns:
        Rows of every stream.
    """
    logs = {
        name: pl.read_parquet(f"{simulated}/{name}/*/*.parquet", hive_partitioning=False)
        for name in STREAMS
    }
    shown = logs["impressions"].drop_nulls(["request_id", "item_id", "timestamp"])
    shown = shown.filter(pl.col("timestamp").is_between(946_684_800_000, 4_102_444_799_999))
    plant = _Plant(logs, shown.unique(["request_id", "item_id"], maintain_order=True), seed)
    plant.hot_user(hot_events)
    plant.window_edges()
    plant.as_of_edges()
    plant.orphans()
    plant.conflicts()
    plant.split_requests()
    plant.anonymous()
    return plant.logs


def write_shuffled(logs: dict[str, pl.DataFrame], root: Path, layout: Layout) -> None:
    """Writes every stream's rows in random order over files."""
    for name, frame in logs.items():
        order = np.random.default_rng(layout.seed).permutation(len(frame))
        folder = root / name / "date=any"
        folder.mkdir(parents=True)
        for number, part in enumerate(np.array_split(order, layout.num_files)):
            frame[part].write_parquet(folder / f"part-{number:05d}.parquet")


class _Plant:
    def __init__(self, logs: dict[str, pl.DataFrame], shown: pl.DataFrame, seed: int) -> None:
        self.logs = logs
        self.shown = shown
        self.rng = np.random.default_rng(seed)

    def sample(self, share: float) -> pl.DataFrame:
        """Draws impressions."""
        count = max(int(share * len(self.shown)), 20)
        return self.shown[self.rng.choice(len(self.shown), count, replace=False)]

    def add(self, stream: str, rows: pl.DataFrame) -> None:
        """Adds rows; columns they lack are null."""
        frame = self.logs[stream]
        rows = rows.select(
            pl.col(name).cast(dtype) if name in rows.columns else pl.lit(None, dtype).alias(name)
            for name, dtype in frame.schema.items()
        )
        self.logs[stream] = pl.concat([frame, rows])

    def events(self, stream: str, rows: pl.DataFrame, *offsets_ms: int) -> None:
        """Adds events of impressions, each at every offset from its time."""
        for offset in offsets_ms:
            moved = rows.with_columns(pl.col("timestamp") + offset)
            values = self.rng.uniform(0, 1, len(rows))
            self.add(stream, moved.with_columns(seconds=pl.lit(values * 30), depth=pl.lit(values)))

    def hot_user(self, num_events: int) -> None:
        """One user with many impressions and clicks, most of them at the same few moments."""
        first, last = self.shown["timestamp"].min(), self.shown["timestamp"].max()
        assert isinstance(first, int)
        assert isinstance(last, int)
        num_rows = num_events // 4
        number = np.arange(num_rows)
        minutes = self.rng.integers(0, (last - first) // MINUTE, num_rows // 20 + 1)
        rows = self.shown[self.rng.integers(0, len(self.shown), num_rows)].with_columns(
            request_id=pl.lit(pl.Series(number // 20)).cast(pl.String) + "-hot",
            item_id=pl.lit(self.shown["item_id"][self.rng.integers(0, len(self.shown), num_rows)]),
            user_id=pl.lit(HOT_USER),
            timestamp=pl.lit(pl.Series(first + minutes[number // 20] * MINUTE)),
        )
        self.add("impressions", rows)
        self.events("clicks", rows, 0, 1, HOUR - 1, HOUR)
        self.events("dwell", rows, 0, 10_000)
        self.events("conversions", rows[::7], 2 * DAY - 1)

    def window_edges(self) -> None:
        """Events at the first and last moment of their window, and just outside."""
        for stream, window in (
            ("clicks", HOUR),
            ("conversions", 2 * DAY),
            ("dwell", 2 * HOUR),
            ("scroll", 2 * HOUR),
            ("returns", DAY),
        ):
            for edge in (-1, 0, window - 1, window):
                self.events(stream, self.sample(0.002), edge)

    def as_of_edges(self) -> None:
        """Clicks at exactly the ends of the as-of windows of other impressions."""
        for window in (0, DAY, 3 * DAY):
            for edge in (-1, 0):
                rows = self.sample(0.002).with_columns(request_id=pl.lit("no-such-request"))
                self.events("clicks", rows, edge - LAG - window)

    def orphans(self) -> None:
        """Events of requests that were never shown."""
        for stream in STREAMS[1:]:
            rows = self.sample(0.001).with_columns(request_id=pl.lit("nowhere"))
            self.events(stream, rows, 1000)

    def conflicts(self) -> None:
        """Impressions with the key of another one: later, or different in one column."""
        self.add("impressions", self.sample(0.002).with_columns(pl.col("timestamp") + 1000))
        self.add("impressions", self.sample(0.002).with_columns(pl.col("position") + 1))
        self.add("impressions", self.sample(0.002).with_columns(item_quality=pl.lit(None)))

    def split_requests(self) -> None:
        """Requests shown at two times: a return belongs to the latest before it."""
        rows = self.sample(0.002).unique("request_id", maintain_order=True)
        rows = rows.with_columns(
            item_id=pl.lit(self.rng.permutation(rows["item_id"].to_numpy())).cast(pl.String),
            timestamp=pl.col("timestamp") + 2 * HOUR,
        )
        self.add("impressions", rows)
        self.events("returns", rows, -1, 0, HOUR)

    def anonymous(self) -> None:
        """Impressions without user, with their clicks."""
        rows = self.sample(0.002).with_columns(
            request_id=pl.col("request_id") + "-anonymous", user_id=pl.lit(None, pl.String)
        )
        self.add("impressions", rows)
        self.events("clicks", rows, 5)
