"""What makes a ranking specification wrong: names, availability, encodings, tasks, score."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from models.spec.column import Column
from models.spec.errors import unknown
from models.spec.expression import ExpressionError, referenced_columns
from models.spec.feature import (
    Encoding,
    NumericEncoding,
    QuantileEncoding,
    SharedEncoding,
)
from models.spec.metric import METRICS, default_metrics
from models.spec.problem import Problem
from models.spec.task import COUNTERFACTUAL_LOSSES, LOSSES_BY_KIND, FakeNegativeWeighted, Task

if TYPE_CHECKING:
    from models.spec.ranking import RankingSpec

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_AVAILABILITY_ORDER = {"request": 0, "decision": 1, "future": 2}


def ranking_problems(spec: RankingSpec) -> Iterator[Problem]:
    """Yields every fault of a ranking specification, with its place in the configuration."""
    yield from _key_problems(spec)
    yield from _column_problems(spec)
    yield from _feature_problems(spec)
    yield from _task_problems(spec)
    yield from _score_problems(spec)


def _key_problems(spec: RankingSpec) -> Iterator[Problem]:
    for key in ("slate", "user", "item"):
        name = getattr(spec, key)
        if name is not None and name not in spec.columns:
            yield Problem((key,), unknown("column", name, spec.columns))
    if not spec.served_tasks:
        yield Problem(("tasks",), "at least one task must have role: served")


def _column_problems(spec: RankingSpec) -> Iterator[Problem]:
    for name, column in spec.columns.items():
        path = ("columns", name)
        if "__" in name or name == "score":
            yield Problem(path, "a column name must not contain '__' nor be 'score': reserved")
        if "feature" in column.role:
            yield from _input_name_problems(path, name)
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
            yield Problem(path, unknown("column", used, spec.columns))
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
    if (
        isinstance(encoding, NumericEncoding)
        and encoding.pieces
        and column_type.startswith("list[")
    ):
        yield Problem((*path, "pieces"), "the piecewise-linear code takes scalars only")
    if isinstance(encoding, SharedEncoding):
        owners = {f: c.encoding for f, c in spec.columns.items() if "feature" in c.role}
        owners |= {n: f.encoding for n, f in spec.features.items() if f.feature}
        if encoding.feature not in owners:
            yield Problem((*path, "feature"), unknown("feature", encoding.feature, owners))
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


def _input_name_problems(path: tuple[str, str], name: str) -> Iterator[Problem]:
    if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name) or name == "self":
        source = "; the log's own name goes under `source`" if path[0] == "columns" else ""
        yield Problem(
            path,
            "a feature names an input of the model: ASCII letters, digits and underscores, not "
            f"starting with a digit, and no Python keyword; received {name!r}{source}",
        )


def _feature_problems(spec: RankingSpec) -> Iterator[Problem]:
    for name, derived in spec.features.items():
        path = ("features", name)
        if "__" in name or name == "score":
            yield Problem(path, "a feature name must not contain '__' nor be 'score': reserved")
        yield from _input_name_problems(path, name)
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
                        (*path, "as_of", "entity"), unknown("column", entity, spec.columns)
                    )
                elif spec.columns[entity].availability != "request":
                    yield Problem(
                        (*path, "as_of", "entity"),
                        f"the entity {entity!r} must be a request column, it is "
                        f"{spec.columns[entity].availability}",
                    )
                elif spec.columns[entity].type not in ("string", "int", "bool"):
                    yield Problem(
                        (*path, "as_of", "entity"),
                        f"the entity {entity!r} must be string, int or bool, it is "
                        f"{spec.columns[entity].type}: requests name entities by such values",
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
                    yield Problem((*path, "rate", side), unknown("as-of feature", other, allowed))
        if derived.slate is not None:
            numeric = [n for n, f in spec.features.items() if f.slate is None and n != name]
            numeric += [
                n
                for n, c in spec.columns.items()
                if c.type in ("int", "float", "bool") and c.availability == "request"
            ]
            if derived.slate.of not in numeric:
                yield Problem(
                    (*path, "slate", "of"), unknown("numeric feature", derived.slate.of, numeric)
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
        if not _NAME.fullmatch(name):
            yield Problem(
                path,
                "a task names outputs of the model: ASCII letters, digits and underscores, "
                f"starting with a letter; received {name!r}",
            )
        wanted = "target" if task.role == "served" else "auxiliary_target"
        column = spec.columns.get(task.target)
        if column is None:
            yield Problem((*path, "target"), unknown("column", task.target, spec.columns))
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
                yield Problem((*path, key), unknown("column", other, spec.columns))
            elif role and role not in spec.columns[other].role:
                yield Problem((*path, key), f"column {other!r} must have role: {role}")
            elif spec.columns[other].type not in ("int", "float", "bool"):
                yield Problem(
                    (*path, key),
                    f"a {key} is int, float or bool; {other!r} is {spec.columns[other].type}",
                )
        yield from _immature_problems(spec, path, task)
        yield from _propensity_problems(spec, path, task)
        yield from _condition_problems(spec, name, task)
        yield from _loss_and_metric_problems(path, task)


def _immature_problems(spec: RankingSpec, path: tuple[str, ...], task: Task) -> Iterator[Problem]:
    is_weighted = isinstance(task.resolved_loss, FakeNegativeWeighted)
    if is_weighted != task.takes_fake_negatives:
        yield Problem(
            (*path, "loss"),
            "the loss fake_negative_weighted and `immature: fake_negative` need each other: one "
            "corrects what the other does to the labels",
        )
    if not task.takes_fake_negatives:
        return
    where = (*path, "immature")
    column = spec.columns.get(task.target)
    if column is not None and (column.join is None or column.join.aggregate != "any"):
        yield Problem(
            where,
            f"fake_negative needs to know when a positive arrives: column {task.target!r} must "
            "join a stream with aggregate any",
        )
    for key in ("mask", "conditioned_on", "sample_weight"):
        if getattr(task, key) is not None:
            yield Problem(where, f"fake_negative does not go with {key}")
    if task.negative_rate < 1:
        yield Problem(where, "fake_negative does not go with a negative_rate below 1")


def _propensity_problems(spec: RankingSpec, path: tuple[str, ...], task: Task) -> Iterator[Problem]:
    if task.propensity is None:
        return
    name = task.propensity.column
    where = (*path, "propensity", "column")
    column = spec.columns.get(name)
    if column is None:
        yield Problem(where, unknown("column", name, spec.columns))
    elif "weight" not in column.role:
        yield Problem(where, f"column {name!r} must have role: weight")
    elif column.availability == "future" or column.type not in ("float", "int"):
        yield Problem(
            where,
            f"a propensity is a number that the decision knew: column {name!r} must be float, with "
            "availability request or decision",
        )


def _condition_problems(spec: RankingSpec, name: str, task: Task) -> Iterator[Problem]:
    path = ("tasks", name, "conditioned_on")
    if task.conditioned_on is None:
        return
    parent = spec.tasks.get(task.conditioned_on)
    if parent is None:
        yield Problem(path, unknown("task", task.conditioned_on, spec.tasks))
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
    if task.negative_rate < 1 and task.kind != "binary":
        yield Problem(
            (*path, "negative_rate"), f"only a binary task has negatives; this one is {task.kind}"
        )
    if isinstance(task.loss, COUNTERFACTUAL_LOSSES) and (
        task.conditioned_on is None or task.negative_rate < 1
    ):
        yield Problem(
            (*path, "loss"),
            f"loss {task.loss.kind} needs conditioned_on, the task it follows on, and all rows: no "
            "negative_rate",
        )
    applicable = default_metrics(task.kind)
    for metric in task.metrics or ():
        if metric not in applicable:
            yield Problem((*path, "metrics"), unknown("metric", metric, applicable))
    if task.role == "auxiliary" and task.gates:
        yield Problem((*path, "gates"), "an auxiliary task is not served and has no gates")
    reported = task.metrics or applicable
    for metric, gate in task.gates.items():
        gate_path = (*path, "gates", metric)
        if metric not in applicable:
            yield Problem(gate_path, unknown("metric", metric, applicable))
            continue
        if metric not in reported:
            yield Problem(gate_path, "the gated metric must be in `metrics`")
        higher = METRICS[metric].higher_is_better
        if gate.max_drop is not None and higher is not True:
            yield Problem((*gate_path, "max_drop"), "only for metrics where higher is better")
        if gate.max_increase is not None and higher is not False:
            yield Problem((*gate_path, "max_increase"), "only for metrics where lower is better")
        if gate.min is not None and gate.max is not None and gate.min > gate.max:
            yield Problem(gate_path, f"no value passes: min {gate.min:g} is above max {gate.max:g}")
        least, most = METRICS[metric].least, METRICS[metric].most
        if gate.min is not None and gate.min > most:
            yield Problem(
                gate_path, f"no value passes: min is {gate.min:g}, {metric} is at most {most:g}"
            )
        if gate.max is not None and gate.max < least:
            yield Problem(
                gate_path, f"no value passes: max is {gate.max:g}, {metric} is at least {least:g}"
            )
        if not gate.model_fields_set:
            yield Problem(gate_path, "an empty gate; give min, max, max_drop or max_increase")


def _score_problems(spec: RankingSpec) -> Iterator[Problem]:
    allowed = [o for n, t in spec.tasks.items() if t.role == "served" for o in _output_names(n, t)]
    for name in spec.score.weights:
        if name not in allowed:
            yield Problem(("score", "weights", name), unknown("output", name, allowed))
    for name in spec.score.log:
        if name not in allowed:
            yield Problem(("score", "log"), unknown("output", name, allowed))
    weights = spec.score_weights
    for name, bounds in spec.score.bounds.items():
        path = ("score", "bounds", name)
        if name not in weights:
            yield Problem(path, unknown("weighted output", name, weights))
        elif not bounds.min <= weights[name] <= bounds.max:
            yield Problem(
                path,
                f"the declared weight {weights[name]:g} must be within its bounds; received "
                f"min {bounds.min:g} and max {bounds.max:g}",
            )


def _output_names(name: str, task: Task) -> list[str]:
    return [name] + ([f"{name}_given_{task.conditioned_on}"] if task.conditioned_on else [])
