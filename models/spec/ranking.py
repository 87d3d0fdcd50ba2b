"""The ranking problem: columns, features and tasks together, and everything derived from them."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from models.spec.checks import ranking_problems
from models.spec.column import Column
from models.spec.expression import referenced_columns
from models.spec.feature import (
    DerivedFeature,
    Encoding,
    Feature,
    HashEncoding,
    NumericEncoding,
    SharedEncoding,
    VocabularyEncoding,
)
from models.spec.keys import DECISION_GROUP
from models.spec.metric import default_metrics
from models.spec.problem import SpecProblems
from models.spec.strict import Strict
from models.spec.task import Output, Task

IMPRESSIONS = "impressions"


class WeightBounds(Strict):
    """Between what a request may set a fusion weight."""

    min: float = Field(description="The least weight.", allow_inf_nan=False)
    max: float = Field(description="The greatest weight.", allow_inf_nan=False)


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
    bounds: dict[str, WeightBounds] = Field(
        default={},
        description="Outputs whose weight a `rank` request may override, and within what bounds; "
        "the weights and bounds are part of the exported graph, so they change with a push only.",
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
        problems = list(ranking_problems(self))
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

    def restricted_to(self, tasks: Collection[str]) -> RankingSpec:
        """The same problem with no other tasks than these."""
        return self._with(tasks={n: task for n, task in self.tasks.items() if n in tasks})

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
        group=DECISION_GROUP if column.availability == "decision" else column.group,
        scope=column.scope,
        availability="decision" if column.availability == "decision" else "request",
        origin="column",
    )
