"""Where logs lie and how they are cut in time: the ingestion side of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from models.spec.column import ColumnType
from models.spec.ranking import IMPRESSIONS, RankingSpec
from models.spec.strict import DurationMs, Names, Strict

TimeUnit = Literal["ms", "s", "us"]
FileFormat = Literal["parquet", "csv", "jsonl"]


class StreamColumn(Strict):
    """One column of an event stream."""

    type: ColumnType = Field(description="Value type.")
    source: str | None = Field(
        default=None, description="The log's own name for it; the column's name if absent."
    )
    pii: bool = Field(
        default=False,
        description="People's data: keyed hashes take the place of the values, as in `columns`.",
    )


class Source(Strict):
    """Files of one log."""

    path: Names = Field(
        description="Glob or globs under `logs.root`, e.g. impressions/date=*/*.parquet."
    )
    format: FileFormat | None = Field(
        default=None, description="parquet, csv or jsonl; from the file extension if absent."
    )
    delimiter: str = Field(default=",", description="Field separator of CSV files.")
    timestamp: str = Field(
        default="timestamp", description="The log's own name of the time column."
    )
    time_unit: TimeUnit = Field(
        default="ms",
        description="Unit of integer timestamps since 1970 UTC. Typed Parquet timestamps carry "
        "their own; ISO 8601 text is understood and taken as UTC.",
    )
    explode: Names = Field(
        default=(),
        description="List columns (own names) of equal length that hold one element per row to "
        "make: slates or histories.",
    )


class ImpressionSource(Source):
    """The log of what was shown."""

    key: Names = Field(
        description="Columns (names under `columns`) that identify an impression, e.g. "
        "[request_id, item_id]. Exact duplicates are dropped and counted; rows with the same key "
        "but other contents are dead letters, the smallest row in canonical order being kept."
    )


class EventSource(Source):
    """A stream of events: clicks, conversions, dwell heartbeats, histories."""

    columns: dict[str, StreamColumn] = Field(
        description="The stream's columns that joins, as-of features and conditions use."
    )
    on: Names = Field(
        default=(),
        description="Columns, named alike in `columns` of both sides, that join events to "
        "impressions; empty for a stream that only feeds as-of features (a history).",
    )


class Logs(Strict):
    """All raw logs of a pipeline."""

    root: str = Field(
        description="Folder of the logs; relative to the configuration file, or to the current "
        "folder when given with --set."
    )
    impressions: ImpressionSource = Field(description="The log of what was shown.")
    streams: dict[str, EventSource] = Field(default={}, description="Event streams, by name.")
    max_string_bytes: Annotated[int, Field(ge=1)] = Field(
        default=10_000,
        description="A row with a longer string is a dead letter (reason oversized).",
    )
    min_time: str = Field(
        default="2000-01-01",
        description="Rows with an earlier time are dead letters (reason bad_timestamp): the usual "
        "sign of a wrong time unit.",
    )
    max_time: str = Field(
        default="2100-01-01", description="Rows with a time at or after this are dead letters."
    )

    def private_streams(self, ranking: RankingSpec) -> frozenset[str]:
        """Names of the logs, `impressions` among them, that hold people's data."""
        private = {n for n, s in self.streams.items() if any(c.pii for c in s.columns.values())}
        if any(column.pii for column in ranking.columns.values()):
            private.add(IMPRESSIONS)
        return frozenset(private)


class Splits(Strict):
    """Cuts in time. Train comes first, then validation, then test."""

    validation: DurationMs | Annotated[float, Field(gt=0, lt=1)] = Field(
        description="Length of the validation window ('1d'), or its share of all impressions in "
        "time order (0.1): early stopping and the choice of the champion."
    )
    test: DurationMs | Annotated[float, Field(gt=0, lt=1)] = Field(
        description="Length or share of the test window: gates and everything reported."
    )
    train: DurationMs | None = Field(
        default=None, description="Length of the train window; everything earlier if absent."
    )
    label_cutoff: DurationMs = Field(
        default=0,
        description="Train labels may use events up to this long after the end of the train "
        "window; rows whose attribution window closes later are masked as immature.",
    )


class Window(Strict):
    """The resolved times of one run, in milliseconds since 1970 UTC, ends exclusive.

    `cutoff` is when the run looks at the world: no event at or after it exists. Train labels see
    events before `train_cutoff`, validation and test labels events before `cutoff`.
    """

    train_start: int
    validation_start: int
    test_start: int
    test_end: int
    train_cutoff: int
    cutoff: int


class Erasure(Strict):
    """Which people a run leaves out: where their raw ids lie, never the ids."""

    path: str
    count: int
    digest: str


class DatasetPrivacy(Strict):
    """How the people's data of a dataset are hidden; the key itself is in the environment."""

    key_env: str
    hash_characters: int
    key_fingerprint: str
    person: str
    """Column that identifies a person, in the impressions and in every stream that carries it."""
    erasure: Erasure | None = None


class DatasetSpec(Strict):
    """Everything that determines the examples; serialised into the LogExampleGen node."""

    root: Path = Field(strict=False)
    logs: Logs
    splits: Splits
    ranking: RankingSpec
    window: Window
    slice_columns: tuple[str, ...] = Field(strict=False)
    """Columns carried into the examples as bytes, for slicing metrics."""
    num_shards: int
    """Number of keyed shards of the joins; one output file per split and shard."""
    privacy: DatasetPrivacy | None = None
    """Set where a column is people's data."""

    def logged_feature(self, name: str) -> StreamColumn:
        """The column of the impressions' log that carries a feature with `source: logged`."""
        as_of = self.ranking.features[name].as_of
        if as_of is None or as_of.aggregate != "last_values":
            return StreamColumn(type="float")
        stream = self.logs.streams.get(as_of.events)
        own = {} if stream is None else stream.columns
        value = as_of.value or ""
        column = own.get(value) or self.ranking.columns.get(value)
        return StreamColumn(type="list[string]", pii=column is not None and column.pii)
