"""The ranking problem: columns, features and tasks together, and everything derived from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from models.spec.column import Column
from models.spec.errors import nearest
from models.spec.expression import ExpressionError, referenced_columns
from models.spec.feature import (
    DerivedFeature,
    Encoding,
    Feature,
    HashEncoding,
    NumericEncoding,
    QuantileEncoding,
    SharedEncoding,
    VocabularyEncoding,
)
from models.spec.metric import METRICS, default_metrics
from models.spec.strict import Strict
from models.spec.task import LOSSES_BY_KIND, Output, Task

_AVAILABILITY_ORDER = {"request": 0, "decision": 1, "future": 2}
IMPRESSIONS = "impressions"


@dataclass(frozen=True)
class Problem:
    """One fault of a configuration: where it is and what is wrong."""

    path: tuple[str | int, ...]
    message: str


class SpecProblems(ValueError):
    """Carries every fault found in a specification, with its place."""

    def __init__(self, problems: list[Problem]) -> None:
        """Keeps the problems for the loader, which knows files and lines."""
        self.problems = problems
        super().__init__("; ".join(f"{'.'.join(map(str, p.path))}: {p.message}" for p in problems))


class Score(Strict):
    """The declared fusion of the served tasks into one `score` to rank by.

    weighted_sum: `sum_k w_k f_k(y_k)`; product: `prod_k f_k(y_k)^{w_k}`, with `y_k` the task's
    output in natural units and `f_k` the identity or `log(1 + y)`.
    """

    kind: Literal["weighted_sum", "product"] = Field(
        default="weighted_sum", description="How the terms are combined."
    )
    weights: dict[str, float] = Field(
        default={}, description="Weight per output name; every served task counts 1 if empty."
    )
    log: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description="Outputs that enter as log(1 + y); for durations and counts."
    )


class RankingSpec(Strict):
    """What is ranked, from which columns and features, for which tasks."""

    slate: str | None = Field(
        default=None, description="Column that names the request whose candidates compete."
    )
    user: str = Field(description="Column that names the person; intervals resample its values.")
    item: str = Field(description="Column that names the ranked item.")
    columns: dict[str, Column] = Field(description="Columns of an impression, by name.")
    features: dict[str, DerivedFeature] = Field(
        default={}, description="Features computed from the logs (as-of, rates, slate-relative)."
    )
    tasks: dict[str, Task] = Field(description="The outcomes, by name.")
    score: Score = Field(default=Score(), description="How outputs become one score.")

    @model_validator(mode="after")
    def _check(self) -> RankingSpec:
        problems = list(_problems(self))
        if problems:
            raise SpecProblems(problems)
        return self

    # Views: what a node depends on, so that its cache key holds nothing else ------------------

    @cached_property
    def examples_view(self) -> RankingSpec:
        """The part that determines the examples: no losses, weights, metrics, gates or score."""
        bare: dict[str, Any] = {"loss": None, "weight": 1.0, "metrics": None, "gates": {}}
        tasks = {name: task.model_copy(update=bare) for name, task in self.tasks.items()}
        return self._with(tasks=tasks, score=Score())

    @cached_property
    def model_view(self) -> RankingSpec:
        """The part that determines a model: all but the gates."""
        tasks = {n: task.model_copy(update={"gates": {}}) for n, task in self.tasks.items()}
        return self._with(tasks=tasks)

    def _with(self, **changes: Any) -> RankingSpec:
        # Not model_copy: it would carry over the cached derivations of this instance.
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return RankingSpec(**(fields | changes))

    # Derived: features -----------------------------------------------------------------------

    @cached_property
    def training_features(self) -> tuple[Feature, ...]:
        """Every model input in name order, decision columns included."""
        resolved = [
            _column_feature(name, column)
            for name, column in self.columns.items()
            if "feature" in column.role
        ]
        resolved += [
            self._derived_feature(name, feature)
            for name, feature in self.features.items()
            if feature.feature
        ]
        return tuple(sorted(resolved, key=lambda feature: feature.name))

    @cached_property
    def request_features(self) -> tuple[Feature, ...]:
        """The allow-list: the inputs a served model may have, in name order."""
        return tuple(f for f in self.training_features if f.availability == "request")

    @cached_property
    def rank_inputs(self) -> tuple[Feature, ...]:
        """Inputs of the `rank` signature, in name order.

        Slate-relative features are computed in the graph, so what they are relative to is an
        input even when it is not itself a feature of the model.
        """
        inputs = {f.name: f for f in self.request_features if f.origin != "slate"}
        for feature in self.request_features:
            if feature.slate is not None and feature.slate.of not in inputs:
                inputs[feature.slate.of] = self.ingredient(feature.slate.of)
        return tuple(inputs[name] for name in sorted(inputs))

    def ingredient(self, name: str) -> Feature:
        """Resolves a column or derived feature by name, whether or not it is a model input."""
        if name in self.columns:
            return _column_feature(name, self.columns[name])
        return self._derived_feature(name, self.features[name])

    def scope_of(self, names: tuple[str, ...]) -> Literal["context", "candidate"]:
        """Returns ``context`` if every named column is one value per request."""
        return (
            "context"
            if all(self.columns[n].scope == "context" for n in names if n in self.columns)
            else "candidate"
        )

    def _derived_feature(self, name: str, derived: DerivedFeature) -> Feature:
        origin: Literal["as_of", "rate", "slate"]
        scope: Literal["context", "candidate"] = "candidate"
        length: int | None = None
        dtype: Literal["string", "float"] = "float"
        default: Any = NumericEncoding()
        if derived.as_of is not None:
            origin = "as_of"
            scope = self.scope_of(derived.as_of.entity)
            if derived.as_of.aggregate == "last_values":
                length, dtype = derived.as_of.length, "string"
                default = VocabularyEncoding()
            elif derived.as_of.aggregate in ("count", "sum", "age", "recency"):
                default = NumericEncoding(log=True)
        elif derived.rate is not None:
            origin = "rate"
            entities = [
                self.features[n].as_of
                for n in (derived.rate.numerator, derived.rate.denominator)
                if n in self.features
            ]
            scope = self.scope_of(tuple(e for a in entities if a is not None for e in a.entity))
        else:
            origin = "slate"
        return Feature(
            name=name,
            dtype=dtype,
            length=length,
            encoding=derived.encoding if derived.encoding is not None else default,
            group=derived.group,
            scope=scope,
            availability="request",
            origin=origin,
            slate=derived.slate,
        )

    # Derived: tasks --------------------------------------------------------------------------

    @cached_property
    def served_tasks(self) -> tuple[str, ...]:
        """Names of the served tasks, sorted."""
        return tuple(sorted(n for n, t in self.tasks.items() if t.role == "served"))

    @cached_property
    def auxiliary_tasks(self) -> tuple[str, ...]:
        """Names of the auxiliary tasks, sorted."""
        return tuple(sorted(n for n, t in self.tasks.items() if t.role == "auxiliary"))

    def outputs_of(self, name: str) -> tuple[Output, ...]:
        """Outputs of one task: itself, and its conditional where it is conditioned."""
        task = self.tasks[name]
        metrics = task.metrics if task.metrics is not None else default_metrics(task.kind)
        gates = tuple(sorted(task.gates.items()))
        if task.conditioned_on is None:
            return (Output(name, name, task.kind, "declared", metrics, gates),)
        conditional = f"{name}_given_{task.conditioned_on}"
        return (
            Output(name, name, task.kind, "entire", metrics, gates),
            Output(conditional, name, task.kind, "conditional", metrics, ()),
        )

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """All served outputs, by task name."""
        return tuple(o for name in self.served_tasks for o in self.outputs_of(name))

    @cached_property
    def all_outputs(self) -> tuple[Output, ...]:
        """Outputs of every task, auxiliary ones included: the labels that examples carry."""
        return tuple(o for name in sorted(self.tasks) for o in self.outputs_of(name))

    def training_output(self, name: str) -> Output:
        """The output whose label and weight train a task.

        A conditioned binary task trains on the entire space through the product; a conditioned
        task of another kind trains where its parent happened.
        """
        return self.outputs_of(name)[0 if self.tasks[name].kind == "binary" else -1]

    @cached_property
    def task_order(self) -> tuple[str, ...]:
        """Task names such that parents come before what is conditioned on them."""
        done: list[str] = []
        for name in sorted(self.tasks):
            chain = [name]
            while (parent := self.tasks[chain[-1]].conditioned_on) is not None:
                chain.append(parent)
            done += [n for n in reversed(chain) if n not in done]
        return tuple(done)

    @cached_property
    def score_weights(self) -> dict[str, float]:
        """Weight per output that enters the score."""
        return dict(self.score.weights) or dict.fromkeys(self.served_tasks, 1.0)

    # Derived: columns ------------------------------------------------------------------------

    @cached_property
    def group_column(self) -> str:
        """Column that GAUC and NDCG group by: the slate, or the user without slates."""
        return self.slate or self.user

    @cached_property
    def key_columns(self) -> tuple[str, ...]:
        """Columns kept in examples as keys: slate, user, item and those with role key or group."""
        named = [c for c in (self.slate, self.user, self.item) if c is not None]
        named += [n for n, c in self.columns.items() if {"key", "group"} & set(c.role)]
        return tuple(dict.fromkeys(named))

    def maturity_ms(self, column: str) -> int:
        """How long after an impression a column's value is final.

        Args:
            column: A column name.

        Returns:
            The attribution window of a joined column, `known_after` of one read from the log,
            the longest of its inputs for an expression.
        """
        spec = self.columns[column]
        if spec.join is not None:
            return spec.join.window
        if spec.expression is not None:
            inputs = referenced_columns(spec.expression) & set(self.columns)
            return max([spec.known_after, *(self.maturity_ms(c) for c in inputs)])
        return spec.known_after

    def task_maturity_ms(self, name: str) -> int:
        """How long after an impression a task's label is final, its mask and parents included."""
        task = self.tasks[name]
        times = [self.maturity_ms(c) for c in (task.target, task.mask) if c is not None]
        if task.conditioned_on is not None:
            times.append(self.task_maturity_ms(task.conditioned_on))
        return max(times)


def _column_feature(name: str, column: Column) -> Feature:
    sequence = column.type.startswith("list[")
    default: Any = (
        NumericEncoding()
        if column.type in ("float", "int", "list[float]", "timestamp")
        else NumericEncoding(standardize=False)
        if column.type == "bool"
        else VocabularyEncoding()
    )
    encoding: Encoding = column.encoding if column.encoding is not None else default
    categorical = isinstance(encoding, VocabularyEncoding | HashEncoding | SharedEncoding)
    return Feature(
        name=name,
        dtype="string" if categorical else "float",
        length=column.max_length if sequence else None,
        encoding=encoding,
        group=column.group,
        scope=column.scope,
        availability="decision" if column.availability == "decision" else "request",
        origin="column",
    )


# Checks ----------------------------------------------------------------------------------------


def _unknown(kind: str, name: str, allowed: object) -> str:
    names = sorted(allowed)  # type: ignore[call-overload]
    return f"unknown {kind} {name!r}; allowed: {', '.join(names)}{nearest(name, names)}"


def _problems(spec: RankingSpec) -> Iterator[Problem]:
    yield from _key_problems(spec)
    yield from _column_problems(spec)
    yield from _feature_problems(spec)
    yield from _task_problems(spec)
    yield from _score_problems(spec)


def _key_problems(spec: RankingSpec) -> Iterator[Problem]:
    for key in ("slate", "user", "item"):
        name = getattr(spec, key)
        if name is not None and name not in spec.columns:
            yield Problem((key,), _unknown("column", name, spec.columns))
    if not spec.served_tasks:
        yield Problem(("tasks",), "at least one task must have role: served")


def _column_problems(spec: RankingSpec) -> Iterator[Problem]:
    for name, column in spec.columns.items():
        path = ("columns", name)
        if "__" in name or name == "score":
            yield Problem(path, "a column name must not contain '__' nor be 'score': reserved")
        if "feature" in column.role and column.availability == "future":
            yield Problem(
                (*path, "role"),
                "a future column cannot be a feature: its value is known only after the ranking "
                "decision; allowed roles: target, auxiliary_target, mask, weight",
            )
        targets = {"target", "auxiliary_target"} & set(column.role)
        if targets and column.availability != "future":
            yield Problem(
                (*path, "availability"),
                f"a column with role {min(targets)} must have availability: future, "
                f"received {column.availability}",
            )
        if column.join is not None and column.expression is not None:
            yield Problem(path, "a column has either join or expression, not both")
        if column.join is not None:
            if column.availability != "future":
                yield Problem(
                    (*path, "availability"),
                    "a joined column is known only after the impression: availability must be "
                    f"future, received {column.availability}",
                )
            needs_value = column.join.aggregate in ("sum", "max", "first")
            if needs_value != (column.join.value is not None):
                yield Problem(
                    (*path, "join"),
                    "value is required for sum, max and first, and not allowed for any and count",
                )
        if column.expression is not None:
            yield from _expression_problems(spec, name, column)
        if column.encoding is not None:
            yield from _encoding_problems(spec, (*path, "encoding"), column.type, column.encoding)
        if column.type.startswith("list[") and "feature" in column.role and not column.max_length:
            yield Problem((*path, "max_length"), "a sequence feature needs max_length")


def _expression_problems(spec: RankingSpec, name: str, column: Column) -> Iterator[Problem]:
    path = ("columns", name, "expression")
    assert column.expression is not None
    try:
        inputs = referenced_columns(column.expression)
    except ExpressionError as error:
        yield Problem(path, str(error))
        return
    for used in sorted(inputs):
        if used not in spec.columns:
            yield Problem(path, _unknown("column", used, spec.columns))
        elif (
            _AVAILABILITY_ORDER[spec.columns[used].availability]
            > _AVAILABILITY_ORDER[column.availability]
        ):
            yield Problem(
                ("columns", name, "availability"),
                f"the expression reads {used!r}, which is {spec.columns[used].availability}: the "
                f"result cannot be known earlier ({column.availability})",
            )
    seen: set[str] = set()
    frontier = {name}
    while frontier:
        seen |= frontier
        following: set[str] = set()
        for each in frontier:
            sql = spec.columns[each].expression if each in spec.columns else None
            if sql is not None:
                try:
                    following |= referenced_columns(sql)
                except ExpressionError:
                    return
        if name in following:
            yield Problem(path, "the expression depends on itself")
            return
        frontier = following - seen


def _encoding_problems(
    spec: RankingSpec, path: tuple[str, ...], column_type: str, encoding: Encoding
) -> Iterator[Problem]:
    if isinstance(encoding, NumericEncoding | QuantileEncoding):
        if "string" in column_type:
            yield Problem(
                path, f"encoding {encoding.kind} needs numbers; the type is {column_type}"
            )
    elif "float" in column_type:
        yield Problem(
            path, f"encoding {encoding.kind} needs string or int values; the type is {column_type}"
        )
    if isinstance(encoding, QuantileEncoding) and column_type.startswith("list["):
        yield Problem(path, "encoding quantiles takes scalars only")
    if isinstance(encoding, SharedEncoding):
        owners = {f: c.encoding for f, c in spec.columns.items() if "feature" in c.role}
        owners |= {n: f.encoding for n, f in spec.features.items() if f.feature}
        if encoding.feature not in owners:
            yield Problem((*path, "feature"), _unknown("feature", encoding.feature, owners))
        elif isinstance(
            owners[encoding.feature], SharedEncoding | NumericEncoding | QuantileEncoding
        ) or (
            encoding.feature in spec.columns
            and owners[encoding.feature] is None
            and spec.columns[encoding.feature].type != "string"
        ):
            yield Problem(
                (*path, "feature"),
                f"{encoding.feature!r} has no table of its own: share a feature with a vocabulary "
                "or hash encoding",
            )


def _feature_problems(spec: RankingSpec) -> Iterator[Problem]:
    for name, derived in spec.features.items():
        path = ("features", name)
        if "__" in name or name == "score":
            yield Problem(path, "a feature name must not contain '__' nor be 'score': reserved")
        if name in spec.columns:
            yield Problem(path, "a column has the same name")
        kinds = [k for k in ("as_of", "rate", "slate") if getattr(derived, k) is not None]
        if len(kinds) != 1:
            yield Problem(path, f"exactly one of as_of, rate, slate; received {kinds or 'none'}")
            continue
        value_type = "float"
        if derived.as_of is not None:
            as_of = derived.as_of
            for entity in as_of.entity:
                if entity not in spec.columns:
                    yield Problem(
                        (*path, "as_of", "entity"), _unknown("column", entity, spec.columns)
                    )
                elif spec.columns[entity].availability != "request":
                    yield Problem(
                        (*path, "as_of", "entity"),
                        f"the entity {entity!r} must be a request column, it is "
                        f"{spec.columns[entity].availability}",
                    )
            if (as_of.aggregate in ("sum", "mean", "last_values")) != (as_of.value is not None):
                yield Problem(
                    (*path, "as_of", "value"), "required for sum, mean, last_values; only for them"
                )
            if (as_of.aggregate == "last_values") != (as_of.length is not None):
                yield Problem((*path, "as_of", "length"), "required for last_values, only for it")
            if as_of.aggregate in ("age", "recency") and as_of.window is not None:
                yield Problem((*path, "as_of", "window"), f"has no meaning for {as_of.aggregate}")
            if as_of.aggregate == "last_values":
                value_type = "list[string]"
            if as_of.where is not None:
                try:
                    referenced_columns(as_of.where)
                except ExpressionError as error:
                    yield Problem((*path, "as_of", "where"), str(error))
        if derived.rate is not None:
            for side in ("numerator", "denominator"):
                other = getattr(derived.rate, side)
                allowed = [n for n, f in spec.features.items() if f.as_of is not None]
                if other not in allowed:
                    yield Problem((*path, "rate", side), _unknown("as-of feature", other, allowed))
        if derived.slate is not None:
            numeric = [n for n, f in spec.features.items() if f.slate is None and n != name]
            numeric += [
                n
                for n, c in spec.columns.items()
                if c.type in ("int", "float", "bool") and c.availability == "request"
            ]
            if derived.slate.of not in numeric:
                yield Problem(
                    (*path, "slate", "of"), _unknown("numeric feature", derived.slate.of, numeric)
                )
            if spec.slate is None:
                yield Problem((*path, "slate"), "needs the top-level key `slate`")
        if derived.encoding is not None:
            yield from _encoding_problems(spec, (*path, "encoding"), value_type, derived.encoding)


def _task_problems(spec: RankingSpec) -> Iterator[Problem]:
    for name, task in spec.tasks.items():
        path = ("tasks", name)
        if "__" in name or "_given_" in name or name == "score":
            yield Problem(path, "a task name must not contain '__' or '_given_' nor be 'score'")
        wanted = "target" if task.role == "served" else "auxiliary_target"
        column = spec.columns.get(task.target)
        if column is None:
            yield Problem((*path, "target"), _unknown("column", task.target, spec.columns))
        elif not {"target", "auxiliary_target"} & set(column.role):
            yield Problem(
                (*path, "target"),
                f"column {task.target!r} must have role: {wanted}; received "
                f"{', '.join(column.role) or 'no role'}",
            )
        elif column.type not in ("int", "float", "bool"):
            yield Problem(
                (*path, "target"),
                f"a target is int, float or bool; {task.target!r} is {column.type}",
            )
        for key, role in (("mask", None), ("sample_weight", "weight")):
            other = getattr(task, key)
            if other is None:
                continue
            if other not in spec.columns:
                yield Problem((*path, key), _unknown("column", other, spec.columns))
            elif role and role not in spec.columns[other].role:
                yield Problem((*path, key), f"column {other!r} must have role: {role}")
        yield from _condition_problems(spec, name, task)
        yield from _loss_and_metric_problems(path, task)


def _condition_problems(spec: RankingSpec, name: str, task: Task) -> Iterator[Problem]:
    path = ("tasks", name, "conditioned_on")
    if task.conditioned_on is None:
        return
    parent = spec.tasks.get(task.conditioned_on)
    if parent is None:
        yield Problem(path, _unknown("task", task.conditioned_on, spec.tasks))
        return
    if parent.kind != "binary":
        yield Problem(path, f"{task.conditioned_on!r} must be a binary task, it is {parent.kind}")
    if task.role == "served" and parent.role != "served":
        yield Problem(path, f"a served task needs a served parent; {task.conditioned_on!r} is not")
    seen, current = [name], task.conditioned_on
    while current is not None and current in spec.tasks:
        if current in seen:
            yield Problem(path, f"cyclic: {' > '.join([*seen, current])}")
            return
        seen.append(current)
        current = spec.tasks[current].conditioned_on  # type: ignore[assignment]


def _loss_and_metric_problems(path: tuple[str, str], task: Task) -> Iterator[Problem]:
    allowed = LOSSES_BY_KIND[task.kind]
    if task.loss is not None and not isinstance(task.loss, allowed):
        kinds = ", ".join(c.model_fields["kind"].annotation.__args__[0] for c in allowed)  # type: ignore[union-attr]
        yield Problem(
            (*path, "loss"),
            f"loss {task.loss.kind} does not fit a {task.kind} task; allowed: {kinds}",
        )
    applicable = default_metrics(task.kind)
    for metric in task.metrics or ():
        if metric not in applicable:
            yield Problem((*path, "metrics"), _unknown("metric", metric, applicable))
    if task.role == "auxiliary" and task.gates:
        yield Problem((*path, "gates"), "an auxiliary task is not served and has no gates")
    reported = task.metrics or applicable
    for metric, gate in task.gates.items():
        gate_path = (*path, "gates", metric)
        if metric not in applicable:
            yield Problem(gate_path, _unknown("metric", metric, applicable))
            continue
        if metric not in reported:
            yield Problem(gate_path, "the gated metric must be in `metrics`")
        higher = METRICS[metric].higher_is_better
        if gate.max_drop is not None and higher is not True:
            yield Problem((*gate_path, "max_drop"), "only for metrics where higher is better")
        if gate.max_increase is not None and higher is not False:
            yield Problem((*gate_path, "max_increase"), "only for metrics where lower is better")
        if not gate.model_fields_set:
            yield Problem(gate_path, "an empty gate; give min, max, max_drop or max_increase")


def _score_problems(spec: RankingSpec) -> Iterator[Problem]:
    allowed = [o for n, t in spec.tasks.items() if t.role == "served" for o in _output_names(n, t)]
    for name in spec.score.weights:
        if name not in allowed:
            yield Problem(("score", "weights", name), _unknown("output", name, allowed))
    for name in spec.score.log:
        if name not in allowed:
            yield Problem(("score", "log"), _unknown("output", name, allowed))


def _output_names(name: str, task: Task) -> list[str]:
    return [name] + ([f"{name}_given_{task.conditioned_on}"] if task.conditioned_on else [])
