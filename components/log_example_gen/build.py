"""Builds examples in memory: the whole of the component without Beam and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from components.log_example_gen import stages
from components.log_example_gen.accounts import (
    accounts,
    dead_counts,
    misfit_counts,
    row_counts,
)
from components.log_example_gen.plan import EventSet, Plan
from components.log_example_gen.reader import ReadResult, read_source, with_file_names
from components.log_example_gen.spec import DatasetSpec
from components.log_example_gen.splits import SPLITS
from components.log_example_gen.tally import Tally, merged
from models.spec.ranking import IMPRESSIONS


@dataclass(frozen=True)
class BuiltExamples:
    """What `LogExampleGen` writes, in memory.

    Attributes:
        examples: Example columns by split, sorted by time and key.
        accounts: Contents of ``accounts.json``.
        dead: Dead letters: stream, file, row, reason, raw.
        snapshots: As-of features at the cut-off, by entity columns.
    """

    examples: dict[str, pl.DataFrame]
    accounts: dict[str, Any]
    dead: pa.Table
    snapshots: dict[tuple[str, ...], pl.DataFrame]


def read_logs(spec: DatasetSpec) -> dict[str, ReadResult]:
    """Reads every log that a dataset needs, by stream name.

    Raises:
        DataError: As `read_source`.
    """
    return {
        name: read_source(
            spec.root,
            wanted.source,
            wanted.columns,
            stream_name=name,
            required=wanted.required,
            limits=wanted.limits,
            pseudonyms=wanted.pseudonyms,
        )
        for name, wanted in Plan(spec).sources.items()
    }


@dataclass(frozen=True)
class Assembled:
    """Impressions with all that joins them, before as-of features are looked up.

    Attributes:
        rows: Distinct impressions with identity and split.
        outcomes: What is known of them only later: joined and computed columns.
        events: Events of each event set.
        tallies: Counts so far.
        dead: Dead letters so far: stream, file, row, reason, raw.
    """

    rows: pl.DataFrame
    outcomes: pl.DataFrame
    events: dict[EventSet, pl.DataFrame]
    tallies: list[Tally]
    dead: list[pl.DataFrame]


def plan_in_memory(spec: DatasetSpec) -> Plan:
    """Plans a dataset for one shard: everything meets in one table."""
    return Plan(spec.model_copy(update={"num_shards": 1}))


def assemble(plan: Plan, logs: Mapping[str, ReadResult]) -> Assembled:
    """Drops duplicates and joins events, from logs in memory.

    Args:
        plan: What `plan_in_memory` returned.
        logs: Every log, as `read_logs` returns them.

    Raises:
        ConfigError: An expression fails.
    """
    tallies: list[Tally] = []
    dead: list[pl.DataFrame] = []
    for name, log in logs.items():
        letters = pl.DataFrame(log.dead)
        dead.append(letters)
        tallies += [
            row_counts(name, read=log.num_read),
            misfit_counts(name, log.misfits),
            dead_counts(letters),
        ]

    def account(step: stages.Step) -> None:
        tallies.append(step.tally)
        for (name,), part in step.dead.group_by("stream"):
            dead.append(with_file_names(part, logs[str(name)].files))

    rows, step = stages.prepared(pl.DataFrame(logs[IMPRESSIONS].table), plan)
    account(step)
    rows, step = stages.distinct(rows, 0, plan)
    account(step)
    events: dict[EventSet, pl.DataFrame] = {}
    columns = []
    for group in plan.join_groups:
        slim = stages.joinable(rows, group, plan)
        streams = {name: pl.DataFrame(logs[name].table) for name in group.streams}
        result, step = stages.joined(group, slim, streams, plan)
        account(step)
        columns.append(result.columns)
        events |= result.events
    for name, stream in plan.spec.logs.streams.items():
        if not stream.on:
            found, step = stages.unjoined(name, pl.DataFrame(logs[name].table), plan)
            account(step)
            events |= found
    outcomes, found = stages.completed(stages.completable(rows, plan), columns, plan)
    return Assembled(rows, outcomes, events | found, tallies, dead)


def build_examples(spec: DatasetSpec, logs: Mapping[str, ReadResult]) -> BuiltExamples:
    """Builds the examples of a dataset from logs in memory.

    Args:
        spec: The dataset; `num_shards` does not matter.
        logs: Every log, as `read_logs` returns them.

    Raises:
        ConfigError: An expression fails.
        PolyrankError: The accounts do not add up.
    """
    plan = plan_in_memory(spec)
    assembled = assemble(plan, logs)
    rows = assembled.rows
    answers, snapshots = [], {}
    for entity in plan.entity_sets:
        answer, snapshots[entity] = stages.looked_up(
            entity, stages.queries(rows, entity), assembled.events, plan
        )
        assert answer is not None
        answers.append(answer)
    examples, step = stages.finished(rows, assembled.outcomes, answers, plan)
    nothing = next(iter(examples.values())).clear() if examples else pl.DataFrame()
    return BuiltExamples(
        examples={split: examples.get(split, nothing) for split in SPLITS},
        accounts=accounts(merged([*assembled.tallies, step.tally]), plan),
        dead=pl.concat(assembled.dead).to_arrow(),
        snapshots=snapshots,
    )
