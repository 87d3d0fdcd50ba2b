"""What LogExampleGen must compute, written as plain loops over rows: slow and obvious.

Nothing here is shared with the component but the specification. Rows are dictionaries of declared
columns with `time` in milliseconds; a missing value is None. SQL expressions are given as Python
functions of a row, since a reference should not need a query engine.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from components.log_example_gen.spec import DatasetSpec
from models.spec.expression import referenced_columns
from models.spec.feature import AsOf, SlateRelative

Row = dict[str, Any]
Functions = Mapping[str, Callable[[Row], Any]]
TIME = "time"
MIN_TIME, MAX_TIME = 946_684_800_000, 4_102_444_800_000


@dataclass
class Reference:
    """Examples by split as dictionaries, accounts of rows, snapshots by entity columns."""

    examples: dict[str, list[Row]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    snapshots: dict[tuple[str, ...], dict[tuple[str, ...], Row]] = field(default_factory=dict)


def reference_examples(
    spec: DatasetSpec, logs: Mapping[str, list[Row]], functions: Functions
) -> Reference:
    """Builds the examples of a dataset.

    Args:
        spec: The dataset; where its files lie does not matter.
        logs: Rows of `impressions` and every stream, in any order.
        functions: A Python function for the text of every SQL expression.
    """
    return _Builder(spec, functions).build(logs)


class _Builder:
    def __init__(self, spec: DatasetSpec, functions: Functions) -> None:
        self.spec = spec
        self.ranking = spec.ranking
        self.window = spec.window
        self.functions = functions
        self.result = Reference()

    def build(self, logs: Mapping[str, list[Row]]) -> Reference:
        impressions = self.distinct_impressions(logs["impressions"])
        events = {name: self.valid_events(name, logs[name]) for name in self.spec.logs.streams}
        owners = {}
        for name, stream in self.spec.logs.streams.items():
            if stream.on:
                owners[name] = self.attribute(name, events[name], impressions)
        for row in impressions:
            self.add_outcomes(row, events, owners)
        inside = [row for row in impressions if self.split_of(row) is not None]
        for name, derived in self.ranking.features.items():
            if derived.as_of is not None and derived.source == "computed":
                known = self.known_events(derived.as_of, impressions, events, owners)
                for row in inside:
                    row[name] = self.as_of(derived.as_of, known, row, row[TIME])
                self.add_snapshot(name, derived.as_of, known)
        for name, derived in self.ranking.features.items():
            if derived.rate is not None and derived.source == "computed":
                for row in inside:
                    top, bottom = row[derived.rate.numerator], row[derived.rate.denominator]
                    row[name] = (
                        None
                        if top is None or bottom is None
                        else (top + derived.rate.prior_rate * derived.rate.prior_strength)
                        / (bottom + derived.rate.prior_strength)
                    )
        for name, derived in self.ranking.features.items():
            if derived.slate is not None and derived.source == "computed":
                for row in inside:
                    row[name] = self.relative(derived.slate, row, inside)
        for split in ("train", "validation", "test"):
            rows = [row for row in inside if self.split_of(row) == split]
            rows.sort(key=lambda row: (row[TIME], *(order(row[k]) for k in self.key)))
            self.result.examples[split] = [self.example(row) for row in rows]
            self.result.counts[split] = len(rows)
        self.result.counts["outside"] = len(impressions) - len(inside)
        return self.result

    # Rows ------------------------------------------------------------------------------------

    @property
    def key(self) -> tuple[str, ...]:
        return self.spec.logs.impressions.key

    def is_future(self, name: str) -> bool:
        return name in self.ranking.columns and (
            self.ranking.columns[name].availability == "future"
        )

    def distinct_impressions(self, rows: list[Row]) -> list[Row]:
        dead: Counter[str] = Counter()
        slate = [self.ranking.slate] if self.ranking.slate else []
        valid = []
        for row in rows:
            row = dict(row)
            self.add_computed(row, future=False)
            if any(row[name] is None for name in [*self.key, *slate]):
                dead["malformed"] += 1
            elif row[TIME] is None or not MIN_TIME <= row[TIME] < MAX_TIME:
                dead["bad_timestamp"] += 1
            else:
                valid.append(row)
        distinct, num_duplicates = without_duplicates(valid)
        by_key: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in distinct:
            by_key[tuple(row[name] for name in self.key)].append(row)
        kept = []
        for same in by_key.values():
            first = min(same, key=self.canonical)
            kept.append(first)
            dead["conflicting_key"] += len(same) - 1
        self.account("impressions", len(rows), len(kept), num_duplicates, dead)
        return kept

    def canonical(self, row: Row) -> tuple[Any, ...]:
        """Time first, then what is known with the impression, what is known later last."""
        logged = [
            name
            for name, column in self.ranking.columns.items()
            if column.join is None and column.expression is None
        ]
        known = sorted(n for n in logged if not self.is_future(n))
        future = sorted(n for n in logged if self.is_future(n))
        return (row[TIME], *(order(row[n]) for n in [*known, *future]))

    def valid_events(self, name: str, rows: list[Row]) -> list[Row]:
        dead: Counter[str] = Counter()
        valid = []
        for row in rows:
            if any(row[key] is None for key in self.spec.logs.streams[name].on):
                dead["malformed"] += 1
            elif row[TIME] is None or not MIN_TIME <= row[TIME] < MAX_TIME:
                dead["bad_timestamp"] += 1
            else:
                valid.append(row)
        distinct, num_duplicates = without_duplicates(valid)
        seen = [row for row in distinct if row[TIME] < self.window.cutoff]
        dead["after_cutoff"] = len(distinct) - len(seen)
        self.account(name, len(rows), len(seen), num_duplicates, dead)
        return seen

    def account(self, name: str, read: int, used: int, duplicates: int, dead: Counter[str]) -> None:
        self.result.rows[name] = {
            "read": read,
            "used": used,
            "duplicates": duplicates,
            "dead": {reason: n for reason, n in dead.items() if n},
        }

    # Joins -----------------------------------------------------------------------------------

    def attribute(self, name: str, events: list[Row], impressions: list[Row]) -> list[list[Row]]:
        """Returns for every event the impressions that it belongs to."""
        stream = self.spec.logs.streams[name]
        windows = [
            column.join.window
            for column in self.ranking.columns.values()
            if column.join is not None and column.join.stream == name
        ]
        dead: Counter[str] = Counter()
        owners = []
        for event in events:
            same = [
                row
                for row in impressions
                if all(as_text(row[k]) == as_text(event[k]) for k in stream.on)
            ]
            before = [row for row in same if row[TIME] <= event[TIME]]
            latest = max((row[TIME] for row in before), default=None)
            belongs = [row for row in before if row[TIME] == latest]
            if not same:
                dead["orphan"] += 1
            elif latest is None:
                dead["before_impression"] += 1
            elif windows and event[TIME] - latest >= max(windows):
                dead["late"] += 1
                belongs = []
            owners.append(belongs)
        account = self.result.rows[name]
        account["used"] -= sum(dead.values())
        account["dead"] |= dict(dead)
        return owners

    def add_outcomes(
        self, row: Row, events: Mapping[str, list[Row]], owners: Mapping[str, list[list[Row]]]
    ) -> None:
        for name, column in self.ranking.columns.items():
            join = column.join
            if join is None:
                continue
            if any(row[key] is None for key in self.spec.logs.streams[join.stream].on):
                row[name], row[f"{name}__arrival"] = None, math.inf
                continue
            mine = [
                event
                for event, belongs in zip(events[join.stream], owners[join.stream], strict=True)
                if any(owner is row for owner in belongs) and event[TIME] - row[TIME] < join.window
            ]
            if join.aggregate == "any":
                value: Any = len(mine) > 0
                first = min((event[TIME] for event in mine), default=math.inf)
                row[f"{name}__arrival"] = first
            elif join.aggregate == "count":
                value = len(mine)
            else:
                assert join.value is not None
                given = [(e[TIME], e[join.value]) for e in mine if e[join.value] is not None]
                if join.aggregate == "sum":
                    value = math.fsum(v for _, v in given)
                elif join.aggregate == "max":
                    value = max((v for _, v in given), default=None)
                else:
                    value = min(given)[1] if given else None
            if value is not None:
                cast = {"bool": bool, "int": round, "float": float, "string": str}[column.type]
                value = cast(value)
            row[name] = value
        self.add_computed(row, future=True)

    def add_computed(self, row: Row, *, future: bool) -> None:
        wanted = {
            name: column.expression
            for name, column in self.ranking.columns.items()
            if column.expression is not None and self.is_future(name) == future
        }
        while wanted:
            for name, text in list(wanted.items()):
                if not referenced_columns(text) & set(wanted):
                    row[name] = self.functions[text](row)
                    del wanted[name]

    # As-of -----------------------------------------------------------------------------------

    def known_events(
        self,
        as_of: AsOf,
        impressions: list[Row],
        events: Mapping[str, list[Row]],
        owners: Mapping[str, list[list[Row]]],
    ) -> list[Row]:
        """Returns the events of a feature: when they are known, of which entity, which value."""
        read = {*as_of.entity, *([as_of.value] if as_of.value else [])}
        if as_of.where is not None:
            read |= referenced_columns(as_of.where)
        delay = 0
        if as_of.events == "impressions":
            rows = [row for row in impressions if row[TIME] < self.window.cutoff]
            future = [self.ranking.maturity_ms(name) for name in read if self.is_future(name)]
            delay = max(future, default=0)
        else:
            own = self.spec.logs.streams[as_of.events].columns
            lacking = sorted(read - set(own))
            rows = events[as_of.events]
            if lacking:
                rows = []
                for event, belongs in zip(events[as_of.events], owners[as_of.events], strict=True):
                    combinations = []
                    for owner in belongs:
                        taken = {name: owner[name] for name in lacking}
                        if taken not in combinations:
                            combinations.append(taken)
                    rows += [event | taken for taken in combinations]
        if as_of.where is not None:
            rows = [row for row in rows if self.functions[as_of.where](row)]
        return [
            {
                "at": row[TIME] + delay,
                "entity": tuple(as_text(row[name]) for name in as_of.entity),
                "value": row[as_of.value] if as_of.value else None,
            }
            for row in rows
        ]

    def as_of(self, as_of: AsOf, known: list[Row], row: Row, time: int) -> Any:
        entity = tuple(as_text(row[name]) for name in as_of.entity)
        end = time - as_of.availability_lag
        start = -math.inf if as_of.window is None else end - as_of.window
        used = [
            event
            for event in known
            if None not in entity and event["entity"] == entity and start <= event["at"] < end
        ]
        given = [event for event in used if event["value"] is not None]
        if as_of.aggregate == "count":
            return float(len(used))
        if as_of.aggregate == "sum":
            return math.fsum(event["value"] for event in given)
        if as_of.aggregate == "mean":
            return math.fsum(e["value"] for e in given) / len(given) if given else None
        if as_of.aggregate == "age":
            return (time - min(e["at"] for e in used)) / 1000 if used else None
        if as_of.aggregate == "recency":
            return (time - max(e["at"] for e in used)) / 1000 if used else None
        newest = sorted(given, key=lambda e: (-e["at"], as_text(e["value"]).encode()))
        return [as_text(event["value"]) for event in newest[: as_of.length]]

    def add_snapshot(self, name: str, as_of: AsOf, known: list[Row]) -> None:
        rows = self.result.snapshots.setdefault(as_of.entity, {})
        for event in known:
            if None not in event["entity"]:
                rows.setdefault(event["entity"], {})
        # Every feature of the entity set has a value for every entity of the set.
        for other, derived in self.ranking.features.items():
            if derived.as_of is None or derived.as_of.entity != as_of.entity:
                continue
            for entity, values in rows.items():
                if other == name:
                    query = dict(zip(as_of.entity, entity, strict=True))
                    values[name] = self.as_of(as_of, known, query, self.window.cutoff)
                elif other not in values:
                    values[other] = default(derived.as_of)

    # Slates ----------------------------------------------------------------------------------

    def relative(self, slate: SlateRelative, row: Row, inside: list[Row]) -> float:
        assert self.ranking.slate is not None
        fellows = [
            number(other[slate.of])
            for other in inside
            if other[self.ranking.slate] == row[self.ranking.slate]
            and self.split_of(other) == self.split_of(row)
        ]
        own = number(row[slate.of])
        present = [value for value in fellows if value is not None]
        if slate.relation == "rank":
            greater = [v for v in present if own is None or v > own]
            return len(greater) / len(fellows)
        if slate.relation == "count":
            return float(len(present))
        if own is None:
            return 0.0
        whole = math.fsum(present) if slate.relation == "share" else max(present)
        return own / whole if whole != 0 else 0.0

    # Labels ----------------------------------------------------------------------------------

    def split_of(self, row: Row) -> str | None:
        time, window = row[TIME], self.window
        if not window.train_start <= time < window.test_end:
            return None
        if time < window.validation_start:
            return "train"
        return "validation" if time < window.test_start else "test"

    def labels(self, row: Row) -> Row:
        cutoff = self.window.cutoff
        if self.split_of(row) == "train":
            cutoff = min(cutoff, self.window.train_cutoff)
        found: Row = {}
        for name in self.ranking.task_order:
            task = self.ranking.tasks[name]
            mature = row[TIME] + self.ranking.task_maturity_ms(name) <= cutoff
            weight: float | None = 1.0
            if task.sample_weight is not None:
                weight = row[task.sample_weight]
                mature &= row[TIME] + self.ranking.maturity_ms(task.sample_weight) <= cutoff
            counts = mature and weight is not None and weight >= 0
            if task.propensity is not None:
                chance = row[task.propensity.column]
                if chance is None or not 0 < chance <= 1:
                    counts = False
                elif weight is not None:
                    weight /= max(chance, task.propensity.clip)
            counts &= task.mask is None or bool(row[task.mask])
            target = None if row[task.target] is None else float(row[task.target])
            known = target is not None and (
                target in (0.0, 1.0)
                if task.kind == "binary"
                else target >= 0
                if task.kind in ("duration", "count")
                else True
            )
            outputs = self.ranking.outputs_of(name)
            if task.conditioned_on is None:
                answers = [(target, counts and known)]
            else:
                parent = self.ranking.outputs_of(task.conditioned_on)[0]
                counts &= found[parent.mask_key] == 1
                happened = found[parent.label_key] == 1
                answers = [
                    (target if happened else 0.0, counts and (known or not happened)),
                    (target, counts and happened and known),
                ]
            for output, (value, mask) in zip(outputs, answers, strict=True):
                found[output.label_key] = value if mask else 0.0
                found[output.mask_key] = 1.0 if mask else 0.0
                found[output.weight_key] = weight if mask else 0.0
            if task.immature == "fake_negative" and self.split_of(row) == "train":
                start = self.window.train_start + self.ranking.task_maturity_ms(name)
                end = self.window.validation_start
                rows = [0.0] if row[TIME] >= start and row[task.target] is not None else []
                rows += [1.0] if start <= row[f"{task.target}__arrival"] < end else []
                found[outputs[0].label_key] = sum(rows) / len(rows) if rows else 0.0
                found[outputs[0].mask_key] = 1.0 if rows else 0.0
                found[outputs[0].weight_key] = float(len(rows))
        return found

    # Examples --------------------------------------------------------------------------------

    def example(self, row: Row) -> Row:
        example: Row = {}
        for feature in [*self.ranking.rank_inputs, *self.ranking.training_features]:
            value = row[feature.name]
            form = as_text if feature.dtype == "string" else number
            if feature.length is None:
                example[feature.name] = form(value)
            else:
                padding = "" if feature.dtype == "string" else math.nan
                values = [padding if v is None else form(v) for v in value or []]
                values = values[: feature.length]
                example[feature.name] = values + [padding] * (feature.length - len(values))
        for name in self.ranking.key_columns:
            example[f"{name}__key"] = as_text(row[name]) or ""
        for name in self.spec.slice_columns:
            example[f"{name}__slice"] = as_text(row[name])
        example["impression__timestamp"] = row[TIME]
        return example | self.labels(row)


def default(as_of: AsOf) -> Any:
    """The value of an entity without events."""
    if as_of.aggregate == "last_values":
        return []
    return 0.0 if as_of.aggregate in ("count", "sum") else None


def without_duplicates(rows: list[Row]) -> tuple[list[Row], int]:
    """Keeps one of equal rows."""
    distinct = {repr(sorted(row.items())): row for row in rows}
    return list(distinct.values()), len(rows) - len(distinct)


def as_text(value: Any) -> Any:
    """Keys and categories as text: integers in decimal, true and false."""
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def number(value: Any) -> float | None:
    """Numbers as examples hold them."""
    return None if value is None else float(np.float32(value))


def order(value: Any) -> Any:
    """Missing first, text by its bytes, lists element by element."""
    if value is None:
        return (0,)
    if isinstance(value, list):
        return (1, [order(element) for element in value])
    return (1, value.encode() if isinstance(value, str) else value)
