"""One request from raw rows to labels, told by the code that makes the examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from components.log_example_gen import as_of, stages
from components.log_example_gen.build import Assembled, assemble, plan_in_memory
from components.log_example_gen.dead_letters import SCHEMA
from components.log_example_gen.join import Attribution, Moments, attribute
from components.log_example_gen.plan import JoinGroup
from components.log_example_gen.reader import ReadResult
from components.log_example_gen.row_names import (
    EVENT_TIMESTAMP,
    HOME,
    ROW_ID,
    SOURCE_FILE,
    SOURCE_ROW,
)
from components.log_example_gen.spec import DatasetSpec
from components.log_example_gen.splits import SPLIT, split_cutoffs
from components.log_example_gen.time_index import as_key_text
from components.log_example_gen.window import as_text, duration_text
from models.spec.keys import TIMESTAMP
from models.spec.ranking import IMPRESSIONS
from models.spec.task import Output

Json = dict[str, Any]

_PLACE = [SOURCE_FILE, SOURCE_ROW]


@dataclass(frozen=True)
class RequestTrace:
    """What became of one request.

    Attributes:
        rows: Its raw rows in the impressions' log, with file, row, status and values.
        events: Raw rows of the streams that carry keys of its impressions, likewise.
        candidates: Its impressions with features and labels.
    """

    rows: list[Json]
    events: list[Json]
    candidates: list[Json]


class Tracer:
    """Follows requests through the logs of a dataset.

    Reads and joins all logs, as `polyrank validate` does: what an event belongs to and what a
    feature counts depends on rows of other requests.

    Attributes:
        request_column: Column that names a request: the slate, or else the first of the keys.

    Args:
        spec: The dataset of the run.
        logs: Every log, as `read_logs` returns them, without the rows of erased people.
    """

    def __init__(self, spec: DatasetSpec, logs: Mapping[str, ReadResult]) -> None:
        self._logs = logs
        self._plan = plan_in_memory(spec)
        self._world: Assembled = assemble(self._plan, logs)
        self.request_column = self._plan.ranking.slate or self._plan.key[0]
        raw, _ = stages.prepared(pl.DataFrame(logs[IMPRESSIONS].table), self._plan)
        self._raw = raw

    def request_ids(self) -> pl.Series:
        """Every request id that a readable row of the impressions has, distinct."""
        return as_key_text(self._raw[self.request_column]).drop_nulls().unique()

    def trace(self, request_id: str) -> RequestTrace:
        """Follows one request; without any row of it all parts are empty.

        Args:
            request_id: Its id as the examples hold it: hashed where the column is pii.
        """
        kept = self._of_request(self._world.rows, request_id)
        return RequestTrace(
            self._impression_rows(kept, request_id),
            [
                event
                for group in self._plan.join_groups
                for event in self._events(group, kept, request_id)
            ]
            + self._refused_events(request_id),
            self._candidates(kept),
        )

    def _of_request(self, rows: pl.DataFrame, request_id: str) -> pl.DataFrame:
        return rows.filter(as_key_text(rows[self.request_column]) == request_id)

    # Raw rows --------------------------------------------------------------------------------

    def _impression_rows(self, kept: pl.DataFrame, request_id: str) -> list[Json]:
        """Tells of every raw row of the request whether it is used, a duplicate or dead."""
        raw = self._of_request(self._raw, request_id)
        statuses = {place: "used" for place in kept.select(_PLACE).iter_rows()}
        dead = self._dead(IMPRESSIONS)
        statuses |= {place: why for place, why in dead.items() if place not in statuses}
        shown = [TIMESTAMP, *self._plan.sources[IMPRESSIONS].columns]
        rows = [
            self._raw_row(IMPRESSIONS, row, shown) | {
                "status": statuses.get((row[SOURCE_FILE], row[SOURCE_ROW]), "duplicate")
            }
            for row in raw.sort(TIMESTAMP, *self._plan.key, *_PLACE).iter_rows(named=True)
        ]  # fmt: skip
        return rows + self._unreadable(IMPRESSIONS, request_id)

    def _dead(self, stream: str) -> dict[tuple[int, int], str]:
        """Reasons of a log's dead letters, by file and row."""
        numbers = {name: index for index, name in enumerate(self._logs[stream].files)}
        return {
            (numbers[file], row): reason
            for frame in self._world.dead
            for name, file, row, reason, _ in frame.iter_rows()
            if name == stream
        }

    def _unreadable(self, stream: str, request_id: str) -> list[Json]:
        """Finds rows that the reader refused and that quote the request's id."""
        dead = pl.DataFrame(self._logs[stream].dead)
        quoted = dead.filter(dead["raw"].str.contains(f'"{request_id}"', literal=True))
        return [
            {
                "stream": stream,
                "file": row["file"],
                "row": row["row"],
                "time": None,
                "values": {"raw": row["raw"]},
                "status": row["reason"],
            }
            for row in quoted.sort("file", "row").iter_rows(named=True)
        ]

    def _raw_row(self, stream: str, row: Json, shown: list[str]) -> Json:
        time = shown[0]
        return {
            "stream": stream,
            "file": self._logs[stream].files[row[SOURCE_FILE]],
            "row": row[SOURCE_ROW],
            "time": as_text(row[time]),
            "values": {name: plain(row[name]) for name in shown[1:]},
        }

    # Events ----------------------------------------------------------------------------------

    def _events(self, group: JoinGroup, kept: pl.DataFrame, request_id: str) -> list[Json]:
        """Follows the events that share join keys with the request, and who gets them.

        Only rows with these keys decide where such an event belongs, so the join runs on them.
        """
        keys = _key_texts(kept, group.on).unique()
        near = _with_keys(self._world.rows, group.on, keys)
        raw = {
            name: _with_keys(pl.DataFrame(self._logs[name].table), group.on, keys)
            for name in group.streams
        }
        seen = {name: stages.seen_events(name, events, self._plan) for name, events in raw.items()}
        moments, attributions = attribute(
            near,
            {name: (frame, self._plan.join_window_ms(name)) for name, (frame, _) in seen.items()},
            group.on,
        )
        found = []
        for name, attribution in attributions.items():
            told = self._attributed(name, group, moments, attribution, request_id)
            letters = seen[name][1].dead.select(SCHEMA.names())
            late = {(row[1], row[2]): row[3] for row in letters.iter_rows()}
            shown = [EVENT_TIMESTAMP, *self._plan.sources[name].columns]
            for row in raw[name].sort(EVENT_TIMESTAMP, *_PLACE).iter_rows(named=True):
                place = (row[SOURCE_FILE], row[SOURCE_ROW])
                outcome = told.get(place) or {"status": late.get(place, "duplicate")}
                found.append(self._raw_row(name, row, shown) | outcome)
        return found

    def _attributed(
        self,
        stream: str,
        group: JoinGroup,
        moments: Moments,
        attribution: Attribution,
        request_id: str,
    ) -> dict[tuple[int, int], Json]:
        """Says of every distinct event where it belongs and which columns count it."""
        rows = moments.rows
        own = (as_key_text(rows[self.request_column]) == request_id).to_numpy()
        reasons, joined = attribution.reasons, attribution.is_joined
        told = {}
        places = attribution.events.select(_PLACE).iter_rows()
        for number, place in enumerate(places):
            moment, age_ms = attribution.moment[number], int(attribution.age_ms[number])
            if moment < 0:
                told[place] = {"status": str(reasons[number])}
                continue
            members = moments.of_row == moment
            owners = rows.filter(pl.Series(members))
            outcome: Json = {
                "status": "joined" if joined[number] else str(reasons[number]),
                "seconds_after_impression": age_ms / 1000,
                "impressions": [
                    {name: plain(row[name]) for name in self._plan.key}
                    for row in owners.iter_rows(named=True)
                ],
            }
            if joined[number] and not (members & own).any():
                outcome["status"] = "joined_other_request"
            outcome["columns"] = {
                column: "counted"
                if age_ms < join.window
                else f"outside its window of {duration_text(join.window)}"
                for column, (_, join) in group.columns[stream].items()
            }
            told[place] = outcome
        return told

    def _refused_events(self, request_id: str) -> list[Json]:
        """Finds refused rows in the streams that carry the request's id."""
        return [
            row
            for name, stream in self._plan.spec.logs.streams.items()
            if self.request_column in stream.columns
            for row in self._unreadable(name, request_id)
        ]

    # Candidates ------------------------------------------------------------------------------

    def _candidates(self, kept: pl.DataFrame) -> list[Json]:
        plan = self._plan
        inside = kept.filter(kept[SPLIT].is_not_null())
        outcomes = self._world.outcomes.filter(pl.col(ROW_ID).is_in(kept[ROW_ID].implode()))
        later = outcomes.filter(pl.col(ROW_ID).is_in(inside[ROW_ID].implode()))
        answers, counts = self._looked_up(inside)
        by_split, _ = stages.finished(inside, later, answers, plan)
        as_of_values: dict[int, Json] = {}
        for table in [*answers, *counts]:
            for row in table.iter_rows(named=True):
                as_of_values.setdefault(row[ROW_ID], {}).update(row)
        examples: dict[int, Json] = {}
        for split, frame in by_split.items():
            # Examples come in this order, and no two impressions share a key.
            ids = inside.filter(inside[SPLIT] == split).sort(TIMESTAMP, *plan.key)[ROW_ID]
            examples |= dict(zip(ids, frame.iter_rows(named=True), strict=True))
        cutoffs = dict(zip(inside[ROW_ID], split_cutoffs(inside, plan.window), strict=True))
        kept = kept.join(outcomes.drop(HOME), on=ROW_ID).sort(TIMESTAMP, *plan.key)
        keys = kept.select(
            as_key_text(kept[name]).fill_null("") for name in plan.ranking.key_columns
        )
        candidates = []
        for row, texts in zip(kept.iter_rows(named=True), keys.iter_rows(named=True), strict=True):
            example, number = examples.get(row[ROW_ID]), row[ROW_ID]
            candidates.append(
                {
                    "keys": texts,
                    "time": as_text(row[TIMESTAMP]),
                    "split": row[SPLIT],
                    "outcomes": {
                        name: plain(row[name])
                        for name in sorted(plan.ranking.columns)
                        if plan.is_future(name)
                    },
                    "features": self._features(row, example, as_of_values.get(number, {}))
                    if example is not None
                    else {},
                    "labels": {
                        output.name: self._label(output, row, example, int(cutoffs[number]))
                        for output in plan.ranking.all_outputs
                    }
                    if example is not None
                    else {},
                }
            )
        return candidates

    def _looked_up(self, inside: pl.DataFrame) -> tuple[list[pl.DataFrame], list[pl.DataFrame]]:
        """Looks up the as-of features of rows, and how many events each looked at."""
        plan, events = self._plan, self._world.events
        answers, counts = [], []
        for entity in plan.entity_sets:
            asked = stages.queries(inside, entity)
            answer, _ = stages.looked_up(entity, asked, events, plan)
            assert answer is not None
            answers.append(answer)
            features = plan.features_of(entity)
            event_sets = {name: plan.event_set_of(feature) for name, feature in features.items()}
            full = {s: events.get(s, stages.no_events(s)) for s in event_sets.values()}
            counting = {
                _count_of(name): feature.model_copy(
                    update={"aggregate": "count", "value": None, "length": None}
                )
                for name, feature in features.items()
            }
            counted = as_of.as_of_values(
                counting,
                {_count_of(name): event_set for name, event_set in event_sets.items()},
                full,
                asked.select(as_key_text(asked[name]).alias(name) for name in entity),
                asked[TIMESTAMP].to_numpy(),
            )
            counts.append(counted.with_columns(asked[ROW_ID]))
        return answers, counts

    def _features(self, row: Json, example: Json, found: Json) -> Json:
        """Tells every feature's value and, for derived ones, what it was made of."""
        ranking = self._plan.ranking
        names = {f.name for f in (*ranking.training_features, *ranking.rank_inputs)}
        told = {}
        for name in sorted(names | set(self._plan.as_of_features)):
            value = plain(example[name] if name in example else found[name])
            derived = ranking.features.get(name)
            if derived is None or derived.source == "logged":
                told[name] = {"value": value, "origin": "column" if derived is None else "logged"}
            elif derived.as_of is not None:
                feature = derived.as_of
                before = row[TIMESTAMP] - feature.availability_lag
                told[name] = {
                    "value": value,
                    "origin": "as_of",
                    "aggregate": feature.aggregate,
                    "events": feature.events,
                    "entity": {column: plain(row[column]) for column in feature.entity},
                    "from": None if feature.window is None else as_text(before - feature.window),
                    "before": as_text(before),
                    "num_events": int(found[_count_of(name)]),
                }
            elif derived.rate is not None:
                told[name] = {
                    "value": value,
                    "origin": "rate",
                    "numerator": derived.rate.numerator,
                    "denominator": derived.rate.denominator,
                    "prior_rate": derived.rate.prior_rate,
                    "prior_strength": derived.rate.prior_strength,
                }
            elif derived.slate is not None:
                told[name] = {
                    "value": value,
                    "origin": "slate",
                    "of": derived.slate.of,
                    "relation": derived.slate.relation,
                }
        return told

    def _label(self, output: Output, row: Json, example: Json, cutoff_ms: int) -> Json:
        counts = example[output.mask_key] == 1
        return {
            "label": example[output.label_key] if counts else None,
            "mask": int(counts),
            "weight": example[output.weight_key],
            "masked_because": None
            if counts
            else self._masked_because(output, row, example, cutoff_ms),
        }

    def _masked_because(self, output: Output, row: Json, example: Json, cutoff_ms: int) -> str:
        ranking = self._plan.ranking
        task = ranking.tasks[output.task]
        maturity_ms = ranking.task_maturity_ms(output.task)
        if task.sample_weight is not None:
            maturity_ms = max(maturity_ms, ranking.maturity_ms(task.sample_weight))
        chance = None if task.propensity is None else row[task.propensity.column]
        if task.propensity is not None and not 0 < (chance or 0) <= 1:
            return f"its propensity {task.propensity.column} is missing or not in (0, 1]"
        if task.takes_fake_negatives and row[SPLIT] == "train":
            start = self._plan.window.train_start + maturity_ms
            return f"shown before {as_text(start)}, and no positive of it arrives after that"
        if row[TIMESTAMP] + maturity_ms > cutoff_ms:
            return (
                f"immature: final at {as_text(row[TIMESTAMP] + maturity_ms)}, labels of its split "
                f"are read at {as_text(cutoff_ms)}"
            )
        if task.mask is not None and not row[task.mask]:
            return f"outside the sample space: {task.mask} is not true"
        if task.conditioned_on is not None:
            parent = ranking.outputs_of(task.conditioned_on)[0]
            if example[parent.mask_key] != 1:
                return f"its parent {task.conditioned_on} does not count"
            if output.space == "conditional" and example[parent.label_key] != 1:
                return f"its parent {task.conditioned_on} did not happen"
        weight = None if task.sample_weight is None else row[task.sample_weight]
        if task.sample_weight is not None and (weight is None or weight < 0):
            return f"its weight {task.sample_weight} is missing or negative"
        if row[task.target] is None:
            return f"{task.target} is missing"
        return f"{task.target} is no value that a {task.kind} task can have"


def _count_of(feature: str) -> str:
    return f"{feature}__num_events"


def _key_texts(rows: pl.DataFrame, on: tuple[str, ...]) -> pl.DataFrame:
    return rows.select(as_key_text(rows[name]).alias(name) for name in on)


def _with_keys(rows: pl.DataFrame, on: tuple[str, ...], keys: pl.DataFrame) -> pl.DataFrame:
    """Keeps the rows whose keys are among the given ones, compared as text as the join does."""
    marked = _key_texts(rows, on).with_row_index("position")
    positions = marked.join(keys, on=list(on), how="semi")["position"].sort()
    return rows[positions]


def plain(value: Any) -> Any:
    """Turns a value into what JSON can hold: times as ISO 8601, NaN as null, lists unpadded."""
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, list):
        kept = [plain(each) for each in value]
        while kept and kept[-1] in ("", None):
            kept.pop()  # the padding of a sequence
        return kept
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value
