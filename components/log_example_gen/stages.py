"""The steps from rows to examples, as functions on tables: what Beam's workers run.

1. `prepared`: computed columns of impressions that are known at once.
2. `distinct`: duplicates are dropped where equal keys meet; impressions get an identity.
3. `joined` and `unjoined`: events find their impressions; event sets of as-of features are made.
4. `completed`: joined columns meet, and the columns computed from these are added.
5. `looked_up`: as-of features where equal entities meet.
6. `finished`: rates, slate features, splits and labels where slates meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from components.log_example_gen import as_of
from components.log_example_gen.accounts import dead_counts, label_counts, row_counts
from components.log_example_gen.dead_letters import dead_letters, no_dead_letters
from components.log_example_gen.duplicates import distinct_impressions, drop_duplicates
from components.log_example_gen.examples import example_columns
from components.log_example_gen.expressions import evaluate, holds
from components.log_example_gen.join import (
    Attribution,
    attribute,
    final_ages,
    joined_columns,
    refused_events,
    with_impression_columns,
)
from components.log_example_gen.labels import labels
from components.log_example_gen.maturity import age_counts, maturity_counts
from components.log_example_gen.plan import EventSet, JoinGroup, Plan
from components.log_example_gen.row_names import (
    EVENT_TIMESTAMP,
    HOME,
    ROW_ID,
    SOURCE_FILE,
    SOURCE_ROW,
)
from components.log_example_gen.sampling import with_sampled_negatives
from components.log_example_gen.sharding import shard_of
from components.log_example_gen.skew import skew_counts
from components.log_example_gen.slate import rate, slate_groups, slate_relative
from components.log_example_gen.splits import SPLIT, SPLITS, add_split
from components.log_example_gen.tally import Tally, merged
from components.log_example_gen.time_index import as_key_text
from components.log_example_gen.traffic import delay_counts, hour_counts, unmatched_counts
from components.log_example_gen.values import CANONICAL
from models.spec.keys import TIMESTAMP
from models.spec.ranking import IMPRESSIONS

_SHARD_STRIDE = 2**40
"""Impressions of one shard are numbered apart from those of the next."""


@dataclass(frozen=True)
class Step:
    """What a step leaves behind for the accounts.

    Attributes:
        tally: Counts.
        dead: Dead letters, already counted.
    """

    tally: Tally = field(default_factory=dict)
    dead: pl.DataFrame = field(default_factory=no_dead_letters)

    @classmethod
    def of(cls, dead: Sequence[pl.DataFrame], *tallies: Tally) -> Step:
        """Counts dead letters along with the rest."""
        letters = pl.concat([no_dead_letters(), *dead])
        return cls(merged([dead_counts(letters), *tallies]), letters)


def no_rows(stream_name: str, plan: Plan) -> pl.DataFrame:
    """Returns canonical rows of a stream, without any."""
    wanted = plan.sources[stream_name]
    schema: dict[str, pl.DataType] = {wanted.time: pl.Int64()}
    schema |= {name: CANONICAL[column.type] for name, column in wanted.columns.items()}
    return pl.DataFrame(schema=schema | {SOURCE_ROW: pl.Int64(), SOURCE_FILE: pl.Int32()})


def no_impressions(plan: Plan) -> pl.DataFrame:
    """Returns distinct impressions, without any."""
    rows, _ = prepared(no_rows(IMPRESSIONS, plan), plan)
    return distinct(rows, 0, plan)[0]


def prepared(impressions: pl.DataFrame, plan: Plan) -> tuple[pl.DataFrame, Step]:
    """Adds the computed columns known with the decision; a null key makes a row malformed."""
    rows = evaluate(impressions, plan.early_expressions)
    is_dead = rows.select(
        pl.any_horizontal(pl.col(name).is_null() for name in plan.required)
    ).to_series()
    if not is_dead.any():
        return rows, Step()
    shown = list(plan.sources[IMPRESSIONS].columns)
    dead = dead_letters(rows.filter(is_dead), "malformed", stream_name=IMPRESSIONS, shown=shown)
    return rows.filter(~is_dead), Step.of([dead])


def distinct(impressions: pl.DataFrame, shard: int, plan: Plan) -> tuple[pl.DataFrame, Step]:
    """Keeps one impression per key; adds `row__id`, `row__home` and the split.

    Args:
        impressions: All impressions whose keys fall into the shard.
        shard: Its number.
        plan: Keys, canonical order, window.
    """
    found = distinct_impressions(
        impressions, plan.impression_order, plan.key, list(plan.sources[IMPRESSIONS].columns)
    )
    home = shard_of([found.frame[name] for name in plan.home_columns], plan.num_shards)
    first = shard * _SHARD_STRIDE
    rows = found.frame.with_columns(
        pl.int_range(first, first + len(home), dtype=pl.Int64, eager=True).alias(ROW_ID),
        pl.Series(HOME, home, dtype=pl.Int64),
    )
    rows = add_split(rows, plan.window)
    counts = row_counts(IMPRESSIONS, used=len(rows), duplicates=found.num_duplicates)
    per_split = rows[SPLIT].fill_null("outside").value_counts()
    splits: Tally = {("examples", name): count for name, count in per_split.iter_rows()}
    hours = hour_counts(IMPRESSIONS, rows[TIMESTAMP].to_numpy())
    return rows, Step.of([found.dead], counts, splits, hours)


def joinable(impressions: pl.DataFrame, group: JoinGroup, plan: Plan) -> pl.DataFrame:
    """Selects what a join needs of the impressions."""
    columns = [ROW_ID, HOME, TIMESTAMP, *group.on, *plan.carried_columns(group)]
    return impressions.select(list(dict.fromkeys(columns)))


@dataclass(frozen=True)
class Joined:
    """Result of a join.

    Attributes:
        columns: `row__id`, `row__home` and joined columns of every impression of the shard.
        events: Events of each event set: `as_of.KNOWN_AT`, entity columns as text, `as_of.VALUE`.
    """

    columns: pl.DataFrame
    events: dict[EventSet, pl.DataFrame]


def joined(
    group: JoinGroup,
    impressions: pl.DataFrame,
    streams: Mapping[str, pl.DataFrame],
    plan: Plan,
) -> tuple[Joined, Step]:
    """Joins the streams of one group where equal keys meet.

    Args:
        group: Keys and streams.
        impressions: `row__id`, `row__home`, time, keys and carried columns.
        streams: Events by stream.
        plan: Windows, cut-off, event sets.
    """
    dead: list[pl.DataFrame] = []
    tallies: list[Tally] = []
    seen: dict[str, pl.DataFrame] = {}
    for name, events in streams.items():
        seen[name], step = seen_events(name, events, plan)
        dead.append(step.dead)
        tallies.append(step.tally)
    moments, attributions = attribute(
        impressions,
        {name: (events, plan.join_window_ms(name)) for name, events in seen.items()},
        group.on,
    )
    found: dict[EventSet, pl.DataFrame] = {}
    for name, attribution in attributions.items():
        for column, (_, join) in group.columns[name].items():
            ages = final_ages(moments, attribution, join, plan.window.cutoff)
            tallies.append(maturity_counts(column, join.window, ages))
        shown = list(plan.sources[name].columns)
        refused = refused_events(attribution, stream_name=name, shown=shown)
        dead.append(refused)
        tallies.append(dead_counts(refused))
        tallies.append(row_counts(name, used=len(attribution.events) - len(refused)))
        tallies.append(_traffic(name, attribution))
        for event_set in plan.event_sets:
            if event_set.stream_name != name:
                continue
            if event_set.from_impressions:
                rows = with_impression_columns(moments, attribution, event_set.from_impressions)
            else:
                rows = attribution.events
            found[event_set] = _as_of_events(rows, event_set, EVENT_TIMESTAMP)
    columns = joined_columns(moments, attributions, group.columns, plan.arrival_columns)
    return Joined(columns, found), Step(merged(tallies), pl.concat([no_dead_letters(), *dead]))


def _traffic(stream_name: str, attribution: Attribution) -> Tally:
    times = attribution.events[EVENT_TIMESTAMP].to_numpy()
    joined, age_ms = attribution.is_joined, attribution.age_ms
    return merged(
        [
            hour_counts(stream_name, times),
            delay_counts(stream_name, (times - age_ms)[joined], age_ms[joined]),
            unmatched_counts(stream_name, times[~joined], attribution.reasons[~joined]),
        ]
    )


def unjoined(
    stream_name: str, events: pl.DataFrame, plan: Plan
) -> tuple[dict[EventSet, pl.DataFrame], Step]:
    """Feeds a stream without keys to as-of features."""
    seen, step = seen_events(stream_name, events, plan)
    found = {
        event_set: _as_of_events(seen, event_set, EVENT_TIMESTAMP)
        for event_set in plan.event_sets
        if event_set.stream_name == stream_name
    }
    used = row_counts(stream_name, used=len(seen))
    hours = hour_counts(stream_name, seen[EVENT_TIMESTAMP].to_numpy())
    return found, Step(merged([step.tally, used, hours]), step.dead)


def completable(impressions: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    """Selects what `completed` needs of the impressions."""
    wanted = [ROW_ID, HOME, TIMESTAMP, *plan.completing_columns]
    return impressions.select(list(dict.fromkeys(wanted)))


def completed(
    impressions: pl.DataFrame, columns: Sequence[pl.DataFrame], plan: Plan
) -> tuple[pl.DataFrame, dict[EventSet, pl.DataFrame]]:
    """Adds joined columns and those computed from them; makes event sets of impressions.

    Args:
        impressions: What `completable` selected of one home shard.
        columns: What the joins returned for them, one table per join group.
        plan: Expressions and event sets.

    Returns:
        `row__id`, `row__home` and the columns known only later; and the event sets.
    """
    rows = evaluate(_beside(impressions, columns), plan.late_expressions)
    seen = rows.filter(pl.col(TIMESTAMP) < plan.window.cutoff)
    events = {
        event_set: _as_of_events(seen, event_set, TIMESTAMP)
        for event_set in plan.event_sets
        if event_set.stream_name == IMPRESSIONS
    }
    known = [name for name in impressions.columns if name not in (ROW_ID, HOME)]
    return rows.drop(known), events


def queries(impressions: pl.DataFrame, entity: tuple[str, ...]) -> pl.DataFrame:
    """Selects what an as-of look-up needs of the impressions inside the windows."""
    inside = impressions.filter(pl.col(SPLIT).is_not_null())
    return inside.select(ROW_ID, HOME, TIMESTAMP, *entity)


def looked_up(
    entity: tuple[str, ...],
    asked: pl.DataFrame | None,
    events: Mapping[EventSet, pl.DataFrame],
    plan: Plan,
) -> tuple[pl.DataFrame | None, pl.DataFrame]:
    """Computes the as-of features of one entity set where equal entities meet.

    Args:
        entity: Entity columns.
        asked: Queries, or None.
        events: Events of the shard, by event set; absent sets are empty.
        plan: Features and cut-off.

    Returns:
        `row__id`, `row__home` and the features of every query; and the snapshot of the entities
        that have events.
    """
    features = plan.features_of(entity)
    event_sets = {name: plan.event_set_of(feature) for name, feature in features.items()}
    full = {s: events.get(s, no_events(s)) for s in dict.fromkeys(event_sets.values())}
    known = as_of.entities_of(full, entity)
    entities, times = [known], [np.full(len(known), plan.window.cutoff, dtype=np.int64)]
    if asked is not None:
        entities.insert(0, asked.select(as_key_text(asked[name]).alias(name) for name in entity))
        times.insert(0, asked[TIMESTAMP].to_numpy())
    values = as_of.as_of_values(
        features, event_sets, full, pl.concat(entities), np.concatenate(times)
    )
    served = values.select(name for name in values.columns if name in plan.ranking.features)
    snapshot = pl.concat([known, served[len(values) - len(known) :]], how="horizontal")
    if asked is None:
        return None, snapshot
    answer = pl.concat([asked.select(ROW_ID, HOME), values[: len(asked)]], how="horizontal")
    return answer, snapshot


def finished(
    impressions: pl.DataFrame,
    outcomes: pl.DataFrame,
    features: Sequence[pl.DataFrame],
    plan: Plan,
) -> tuple[dict[str, pl.DataFrame], Step]:
    """Turns the impressions of one home shard into examples.

    Args:
        impressions: Distinct impressions.
        outcomes: What `completed` returned for them.
        features: What the as-of look-ups returned, one table per entity set.
        plan: Features, tasks, window.

    Returns:
        Example columns by split, each sorted by time and key.
    """
    rows = _beside(impressions, [outcomes]).filter(pl.col(SPLIT).is_not_null())
    rows = _beside(rows, features)
    rows = rows.sort(TIMESTAMP, *plan.key)
    for name, feature in sorted(plan.ranking.features.items()):
        if feature.rate is not None and feature.source == "computed":
            spec = feature.rate
            values = rate(rows[spec.numerator], rows[spec.denominator], spec)
            rows = rows.with_columns(values.alias(name))
    slates = [
        (name, feature.slate)
        for name, feature in sorted(plan.ranking.features.items())
        if feature.slate is not None and feature.source == "computed"
    ]
    if slates and plan.ranking.slate is not None:
        groups = slate_groups(rows[plan.ranking.slate], rows[SPLIT])
        for name, relation in slates:
            values = rows[relation.of].cast(pl.Float64)
            rows = rows.with_columns(slate_relative(values, groups, relation).alias(name))
    found = labels(rows, plan.ranking, plan.window)
    found, sampled = with_sampled_negatives(rows, found, plan)
    rows = pl.concat([rows, found], how="horizontal")
    columns = example_columns(rows, plan)
    by_split = {
        split: columns.filter(rows[SPLIT] == split)
        for split in SPLITS
        if (rows[SPLIT] == split).any()
    }
    counts = [label_counts(rows, plan.ranking), age_counts(rows, plan), sampled]
    counts.append(skew_counts(rows, plan))
    return by_split, Step(merged(counts))


def seen_events(stream_name: str, events: pl.DataFrame, plan: Plan) -> tuple[pl.DataFrame, Step]:
    """Drops duplicates of a stream's events, and events that do not exist yet."""
    kept = drop_duplicates(events, plan.event_order(stream_name))
    is_late = kept.frame[EVENT_TIMESTAMP] >= plan.window.cutoff
    shown = list(plan.sources[stream_name].columns)
    dead = dead_letters(
        kept.frame.filter(is_late), "after_cutoff", stream_name=stream_name, shown=shown
    )
    counts = row_counts(stream_name, duplicates=kept.num_duplicates)
    return kept.frame.filter(~is_late), Step.of([dead], counts)


def _as_of_events(rows: pl.DataFrame, event_set: EventSet, time: str) -> pl.DataFrame:
    """Reduces rows to what as-of features look at."""
    if event_set.where is not None:
        rows = rows.filter(holds(rows, event_set.where, f"where: {event_set.where}"))
    columns = [
        (rows[time] + event_set.delay_ms).alias(as_of.KNOWN_AT),
        *(as_key_text(rows[name]).alias(name) for name in event_set.entity),
    ]
    if event_set.value is not None:
        value = rows[event_set.value]
        columns.append(
            (as_key_text(value) if event_set.is_text else value.cast(pl.Float64)).alias(as_of.VALUE)
        )
    return pl.DataFrame(columns).drop_nulls(list(event_set.entity))


def no_events(event_set: EventSet) -> pl.DataFrame:
    """Returns the events of a set, without any."""
    schema: dict[str, type[pl.DataType]] = {as_of.KNOWN_AT: pl.Int64}
    schema |= dict.fromkeys(event_set.entity, pl.String)
    if event_set.value is not None:
        schema[as_of.VALUE] = pl.String if event_set.is_text else pl.Float64
    return pl.DataFrame(schema=schema)


def _beside(rows: pl.DataFrame, tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Puts tables with the same rows side by side."""
    rows = _in_order(rows)
    for table in tables:
        ordered = _in_order(table)
        if not np.array_equal(ordered[ROW_ID].to_numpy(), rows[ROW_ID].to_numpy()):
            raise AssertionError("a stage returned other rows than it was sent")
        rows = pl.concat([rows, ordered.drop(ROW_ID, HOME)], how="horizontal")
    return rows


def _in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Sorts by `row__id`; only the order is sorted, for rows are wide."""
    return rows[rows[ROW_ID].arg_sort()]
