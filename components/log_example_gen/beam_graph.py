"""The Beam graph: tables travel between shards, steps run where equal keys meet.

Reading sends impressions to the shard of their key and events to the shard of their join keys.
Distinct impressions send slim tables (keys, time, identity) to the joins and to the as-of
look-ups; results come back to the home shard, that of the slate, where examples are made. The
elements are tables of bounded length, never rows.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import polars as pl

from components.log_example_gen import stages
from components.log_example_gen.accounts import accounts, misfit_counts, row_counts
from components.log_example_gen.dead_letters import no_dead_letters
from components.log_example_gen.example_files import write_examples
from components.log_example_gen.faults import WorkerFault
from components.log_example_gen.file_rows import FileRows, read_parts
from components.log_example_gen.plan import EventSet, Plan
from components.log_example_gen.reader import check_absent, no_valid_time, with_file_names
from components.log_example_gen.row_names import HOME
from components.log_example_gen.sharding import MAX_TABLE_ROWS, split_by_shard
from components.log_example_gen.source_files import LogFile, list_files
from components.log_example_gen.spec import DatasetSpec
from components.log_example_gen.table_store import Table, TableStore
from components.log_example_gen.tally import Tally, merged
from components.log_example_gen.whole_file import write_whole
from models.spec.errors import PolyrankError
from models.spec.ranking import IMPRESSIONS

ACCOUNTS_FILE = "accounts.json"
DEAD_LETTERS_FILE = "dead_letters.parquet"
FEATURES_FOLDER = "features"

_COUNTS, _DEAD, _FILES = "counts", "dead", "files"
_JOINED, _UNJOINED = "joined_events", "unjoined_events"
_JOINS, _QUERIES, _COMPLETABLE = "joins", "queries", "completable"
_EVENTS, _SNAPSHOT = "events", "snapshot"

Output = Iterator[Any]


def snapshot_file(entity: tuple[str, ...]) -> str:
    """Names the snapshot of an entity set under the features folder."""
    return "__".join(entity) + ".parquet"


def add_example_graph(
    pipeline: beam.Pipeline,
    spec: DatasetSpec,
    examples_uri: str,
    accounts_uri: str,
    store: TableStore,
) -> None:
    """Adds everything from files to examples to a pipeline.

    Args:
        pipeline: The pipeline.
        spec: The dataset.
        examples_uri: Folder for `Split-*`.
        accounts_uri: Folder for accounts, dead letters and snapshots.
        store: Where tables wait between stages.

    Raises:
        DataError: A log has no file.
        ConfigError: The specification cannot be carried out.
    """
    plan = Plan(spec)
    text = spec.model_dump_json()
    files = {
        name: list_files(spec.root, wanted.source, stream_name=name)
        for name, wanted in plan.sources.items()
    }
    tasks = [(name, i, file) for name, found in files.items() for i, file in enumerate(found)]
    read = (
        pipeline
        | "Files" >> beam.Create(tasks)
        | "SpreadFiles" >> beam.Reshuffle()
        | "Read"
        >> beam.ParDo(_Read(text, store)).with_outputs(
            _JOINED, _UNJOINED, _COUNTS, _DEAD, _FILES, main=IMPRESSIONS
        )
    )
    distinct = (
        read[IMPRESSIONS]
        | "MeetByKey" >> beam.GroupByKey()
        | "Distinct"
        >> beam.ParDo(_Distinct(text, store)).with_outputs(
            _JOINS, _QUERIES, _COMPLETABLE, _COUNTS, _DEAD, main="impressions"
        )
    )
    joined = (
        {"impressions": distinct[_JOINS], "events": read[_JOINED]}
        | "MeetByJoinKeys" >> beam.CoGroupByKey()
        | "Join"
        >> beam.ParDo(_Join(text, store)).with_outputs(_EVENTS, _COUNTS, _DEAD, main="columns")
    )
    unjoined = (
        read[_UNJOINED]
        | "MeetByTime" >> beam.GroupByKey()
        | "Histories"
        >> beam.ParDo(_Unjoined(text, store)).with_outputs(_COUNTS, _DEAD, main=_EVENTS)
    )
    completed = (
        {"impressions": distinct[_COMPLETABLE], "columns": joined["columns"]}
        | "MeetAtHome" >> beam.CoGroupByKey()
        | "Complete" >> beam.ParDo(_Complete(text, store)).with_outputs(_EVENTS, main="outcomes")
    )
    events = (joined[_EVENTS], unjoined[_EVENTS], completed[_EVENTS]) | beam.Flatten()
    looked_up = (
        {"queries": distinct[_QUERIES], "events": events}
        | "MeetByEntity" >> beam.CoGroupByKey()
        | "LookUp" >> beam.ParDo(_LookUp(text, store)).with_outputs(_SNAPSHOT, main="features")
    )
    finished = (
        {
            "impressions": distinct["impressions"],
            "outcomes": completed["outcomes"],
            "features": looked_up["features"],
        }
        | "MeetAgain" >> beam.CoGroupByKey()
        | "Finish" >> beam.ParDo(_Finish(text, store, examples_uri))
    )
    counts = (
        *(part[_COUNTS] for part in (read, distinct, joined, unjoined)),
        finished,
    ) | "AllCounts" >> beam.Flatten()
    dead = tuple(part[_DEAD] for part in (read, distinct, joined, unjoined))
    names = {name: tuple(file.name for file in found) for name, found in files.items()}
    _ = (counts | "Sum" >> beam.CombineGlobally(merged)) | "WriteAccounts" >> beam.ParDo(
        _WriteAccounts(text, store, accounts_uri),
        beam.pvalue.AsList(read[_FILES]),
    )
    _ = (
        (*dead, pipeline | "NoDead" >> beam.Create([TableStore(None).put(no_dead_letters())]))
        | "AllDead" >> beam.Flatten()
        | "DeadTogether" >> beam.GroupBy(_same_key)
        | "WriteDead" >> beam.Map(_write_dead, store, names, f"{accounts_uri}/{DEAD_LETTERS_FILE}")
    )
    _ = (
        (
            looked_up[_SNAPSHOT],
            pipeline | "NoSnapshots" >> beam.Create(_empty_snapshots(plan)),
        )
        | "AllSnapshots" >> beam.Flatten()
        | "SnapshotsTogether" >> beam.GroupByKey()
        | "WriteSnapshots"
        >> beam.Map(_write_snapshot, store, plan.entity_sets, f"{accounts_uri}/{FEATURES_FOLDER}")
    )


# Steps -----------------------------------------------------------------------------------------


def _reported(process: Callable[..., Output]) -> Callable[..., Output]:
    """Lets a user's error survive the way out of a worker."""

    @functools.wraps(process)
    def wrapped(*args: Any, **kwargs: Any) -> Output:
        try:
            yield from process(*args, **kwargs)
        except PolyrankError as error:
            raise WorkerFault(error) from error

    return wrapped


class _Step(beam.DoFn):
    """A step that knows the plan."""

    def __init__(self, spec_json: str, store: TableStore) -> None:
        self._spec_json = spec_json
        self.store = store

    def setup(self) -> None:
        self.plan = Plan(DatasetSpec.model_validate_json(self._spec_json))

    def send(self, tag: str, element: Any) -> Any:
        return beam.pvalue.TaggedOutput(tag, element)

    def account(self, step: stages.Step) -> Output:
        if step.tally:
            yield self.send(_COUNTS, step.tally)
        if len(step.dead):
            yield self.send(_DEAD, self.store.put(step.dead))

    def events(self, found: dict[EventSet, pl.DataFrame]) -> Output:
        """Sends events to the shards of their entities."""
        plan = self.plan
        for event_set, frame in found.items():
            entity = plan.entity_sets.index(event_set.entity)
            number = plan.event_sets.index(event_set)
            keys = [frame[name] for name in event_set.entity]
            for shard, part in split_by_shard(frame, keys, plan.num_shards):
                yield (entity, shard), (number, self.store.put(part))


class _Read(_Step):
    @_reported
    def process(self, task: tuple[str, int, LogFile]) -> Output:
        name, index, file = task
        for part in read_parts(file, index, self.plan.sources[name]):
            yield self.send(_FILES, (name, file, part.num_read, part.absent, part.present))
            counts = row_counts(name, read=part.num_read) | misfit_counts(name, part.misfits)
            yield from self.account(stages.Step.of([part.dead], counts))
            yield from self.impressions(part) if name == IMPRESSIONS else self.stream(name, part)

    def impressions(self, part: FileRows) -> Output:
        plan = self.plan
        rows, step = stages.prepared(part.frame, plan)
        yield from self.account(step)
        keys = [rows[column] for column in plan.dedupe_columns]
        for shard, table in split_by_shard(rows, keys, plan.num_shards):
            yield shard, self.store.put(table)

    def stream(self, name: str, part: FileRows) -> Output:
        plan, rows = self.plan, part.frame
        for number, group in enumerate(plan.join_groups):
            if name in group.streams:
                keys = [rows[column] for column in group.on]
                for shard, table in split_by_shard(rows, keys, plan.num_shards):
                    yield self.send(_JOINED, ((number, shard), (name, self.store.put(table))))
                return
        keys = [rows[plan.sources[name].time]]
        for shard, table in split_by_shard(rows, keys, plan.num_shards):
            yield self.send(_UNJOINED, ((name, shard), self.store.put(table)))


class _Distinct(_Step):
    @_reported
    def process(self, element: tuple[int, Iterable[Table]]) -> Output:
        shard, parts = element
        plan = self.plan
        rows, step = stages.distinct(self.store.get(parts), shard, plan)
        yield from self.account(step)
        for (home,), part in rows.group_by(HOME):
            for table in part.iter_slices(MAX_TABLE_ROWS):
                yield home, self.store.put(table)
                slim = stages.completable(table, plan)
                yield self.send(_COMPLETABLE, (home, self.store.put(slim)))
        for number, group in enumerate(plan.join_groups):
            slim = stages.joinable(rows, group, plan)
            for to, part in split_by_shard(slim, [slim[c] for c in group.on], plan.num_shards):
                yield self.send(_JOINS, ((number, to), self.store.put(part)))
        for number, entity in enumerate(plan.entity_sets):
            asked = stages.queries(rows, entity)
            for to, part in split_by_shard(asked, [asked[c] for c in entity], plan.num_shards):
                yield self.send(_QUERIES, ((number, to), self.store.put(part)))


class _Join(_Step):
    @_reported
    def process(self, element: tuple[tuple[int, int], dict[str, Iterable[Any]]]) -> Output:
        (number, _), parts = element
        plan = self.plan
        group = plan.join_groups[number]
        impressions = list(parts["impressions"])
        nothing = stages.joinable(stages.no_impressions(plan), group, plan)
        by_stream: dict[str, list[Table]] = {name: [] for name in group.streams}
        for name, part in parts["events"]:
            by_stream[name].append(part)
        result, step = stages.joined(
            group,
            self.store.get(impressions) if impressions else nothing,
            {
                name: self.store.get(found) if found else stages.no_rows(name, plan)
                for name, found in by_stream.items()
            },
            plan,
        )
        yield from self.account(step)
        for (home,), part in result.columns.group_by(HOME):
            yield home, (number, self.store.put(part))
        for sent in self.events(result.events):
            yield self.send(_EVENTS, sent)


class _Unjoined(_Step):
    @_reported
    def process(self, element: tuple[tuple[str, int], Iterable[Table]]) -> Output:
        (name, _), parts = element
        found, step = stages.unjoined(name, self.store.get(parts), self.plan)
        yield from self.account(step)
        yield from self.events(found)


class _Complete(_Step):
    @_reported
    def process(self, element: tuple[int, dict[str, Iterable[Any]]]) -> Output:
        home, parts = element
        columns = _by_number(self.store, parts["columns"])
        outcomes, found = stages.completed(self.store.get(parts["impressions"]), columns, self.plan)
        yield home, self.store.put(outcomes)
        for sent in self.events(found):
            yield self.send(_EVENTS, sent)


class _LookUp(_Step):
    @_reported
    def process(self, element: tuple[tuple[int, int], dict[str, Iterable[Any]]]) -> Output:
        (number, _), parts = element
        plan = self.plan
        entity = plan.entity_sets[number]
        by_set: dict[EventSet, list[Table]] = {}
        for event_set, part in parts["events"]:
            by_set.setdefault(plan.event_sets[event_set], []).append(part)
        asked = list(parts["queries"])
        answer, snapshot = stages.looked_up(
            entity,
            self.store.get(asked) if asked else None,
            {event_set: self.store.get(found) for event_set, found in by_set.items()},
            plan,
        )
        if answer is not None:
            for (home,), part in answer.group_by(HOME):
                yield home, (number, self.store.put(part))
        yield self.send(_SNAPSHOT, (number, self.store.put(snapshot)))


class _Finish(_Step):
    def __init__(self, spec_json: str, store: TableStore, examples_uri: str) -> None:
        super().__init__(spec_json, store)
        self._examples_uri = examples_uri

    @_reported
    def process(self, element: tuple[int, dict[str, Iterable[Any]]]) -> Output:
        home, parts = element
        by_split, step = stages.finished(
            self.store.get(parts["impressions"]),
            self.store.get(parts["outcomes"]),
            _by_number(self.store, parts["features"]),
            self.plan,
        )
        for split, frame in by_split.items():
            write_examples(self._examples_uri, split, home, self.plan.num_shards, frame)
        yield step.tally


class _WriteAccounts(_Step):
    def __init__(self, spec_json: str, store: TableStore, accounts_uri: str) -> None:
        super().__init__(spec_json, store)
        self._accounts_uri = accounts_uri

    @_reported
    def process(
        self, tally: Tally, files: list[tuple[str, LogFile, int, frozenset[str], tuple[str, ...]]]
    ) -> Output:
        for name, wanted in self.plan.sources.items():
            own = [file for file in files if file[0] == name]
            check_absent(wanted, [(read, absent, present) for _, _, read, absent, present in own])
            num_read = tally.get(("rows", name, "read"), 0)
            if num_read and tally.get(("rows", name, "dead", "bad_timestamp"), 0) == num_read:
                raise no_valid_time(wanted, min((f[1] for f in own), key=lambda file: file.name))
        found = json.dumps(accounts(tally, self.plan), indent=1).encode()
        write_whole(f"{self._accounts_uri}/{ACCOUNTS_FILE}", [found])
        return
        yield


# Collecting ------------------------------------------------------------------------------------


def _by_number(store: TableStore, parts: Iterable[tuple[int, Table]]) -> list[pl.DataFrame]:
    """Concatenates the tables of each number, in the order of the numbers."""
    tables: dict[int, list[Table]] = {}
    for number, part in parts:
        tables.setdefault(number, []).append(part)
    return [store.get(tables[number]) for number in sorted(tables)]


def _same_key(_: object) -> int:
    return 0


def _empty_snapshots(plan: Plan) -> list[tuple[int, Table]]:
    return [
        (number, TableStore(None).put(stages.looked_up(entity, None, {}, plan)[1]))
        for number, entity in enumerate(plan.entity_sets)
    ]


def _write_dead(
    element: tuple[int, Iterable[Table]],
    store: TableStore,
    names: dict[str, tuple[str, ...]],
    path: str,
) -> None:
    letters = store.get(element[1])
    tables = [with_file_names(no_dead_letters(), ())]
    tables += [
        with_file_names(letters.filter(pl.col("stream") == stream), files)
        for stream, files in names.items()
    ]
    _write_parquet(pl.concat(tables).sort("stream", "file", "row", "reason", "raw"), path)


def _write_snapshot(
    element: tuple[int, Iterable[Table]],
    store: TableStore,
    entities: tuple[tuple[str, ...], ...],
    folder: str,
) -> None:
    number, parts = element
    entity = entities[number]
    _write_parquet(store.get(parts).sort(*entity), f"{folder}/{snapshot_file(entity)}")


def _write_parquet(frame: pl.DataFrame, path: str) -> None:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    write_whole(path, [buffer.getvalue()])
