"""Checks that an exported model sees request features only and says served outputs only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from components.leakage_gate.saved_model import ExportedGraph, Node
from models.spec.definition import feature_definitions
from models.spec.feature import Feature
from models.spec.keys import DEFINITIONS, WEIGHT_INPUT_PREFIX
from models.spec.ranking import RankingSpec

SERVING_DEFAULT, PREDICT, RANK = "serving_default", "predict", "rank"
SIGNATURES = (SERVING_DEFAULT, PREDICT, RANK)
SCORE = "score"
LENGTH_SUFFIX = "_length"

_PATH_SEPARATOR = re.compile(r"[/:]|\.S")
"""Separates the components of a name; checkpoints escape a slash inside a key as `.S`."""

_REMEDY = (
    "remedy: export a module with the served parts only, built from the request features of the "
    "configuration"
)


def model_reasons(ranking: RankingSpec, graph: ExportedGraph) -> list[str]:
    """Returns why a model may not be served; empty for a clean one.

    Args:
        ranking: The allow-lists: `request_features`, `rank_inputs`, `outputs`.
        graph: The exported graph.
    """
    reasons = [*_signature_reasons(ranking, graph), *_parse_reasons(ranking, graph)]
    reasons += [
        f"the graph has an input {name!r} that belongs to no signature; expected the inputs of "
        f"{', '.join(SIGNATURES)} only; {_REMEDY}"
        for name in graph.stray_placeholders
    ]
    reasons += _auxiliary_reasons(ranking, graph)
    return reasons


def _signature_reasons(ranking: RankingSpec, graph: ExportedGraph) -> Iterator[str]:
    expected = [*SIGNATURES, *([DEFINITIONS] if feature_definitions(ranking) else [])]
    for name in sorted(set(graph.signatures) - set(expected)):
        yield f"unknown signature {name!r}; expected {', '.join(expected)} and no other; {_REMEDY}"
    if DEFINITIONS in expected:
        yield from _definitions_reasons(graph)
    outputs = {o.name for o in ranking.outputs} | {SCORE}
    for name in SIGNATURES:
        signature = graph.signatures.get(name)
        if signature is None:
            yield f"signature {name!r} is absent; expected {', '.join(SIGNATURES)}; {_REMEDY}"
            continue
        yield from _input_reasons(ranking, name, signature.inputs)
        for output in sorted(signature.outputs - outputs):
            yield (
                f"signature {name!r} has the output {output!r}{_what(ranking, output)}; expected "
                f"{', '.join(sorted(outputs))} and no other; {_REMEDY}"
            )
        for output in sorted(outputs - signature.outputs):
            yield f"signature {name!r} lacks the output {output!r}; {_REMEDY}"


def _definitions_reasons(graph: ExportedGraph) -> Iterator[str]:
    signature = graph.signatures.get(DEFINITIONS)
    if signature is None:
        yield (
            f"signature {DEFINITIONS!r} is absent; expected it in a model of as-of features, or "
            f"clients cannot tell whether a snapshot fits; {_REMEDY}"
        )
        return
    if dict(signature.inputs) != {DEFINITIONS: "string"} or signature.outputs != {DEFINITIONS}:
        yield (
            f"signature {DEFINITIONS!r} must have {DEFINITIONS!r} as its one input and output; "
            f"received {', '.join(sorted({*signature.inputs, *signature.outputs}))}; {_REMEDY}"
        )


def _input_reasons(
    ranking: RankingSpec, signature: str, inputs: Mapping[str, str]
) -> Iterator[str]:
    if signature == SERVING_DEFAULT:
        if list(inputs.values()) != ["string"]:
            received = ", ".join(f"{n} ({t})" for n, t in sorted(inputs.items())) or "none"
            yield (
                f"signature {signature!r} must have one string input, serialised tf.Examples; "
                f"received {received}; {_REMEDY}"
            )
        return
    features = ranking.request_features if signature == PREDICT else ranking.rank_inputs
    allowed = _signature_inputs(features)
    if signature == RANK:
        allowed |= {f"{WEIGHT_INPUT_PREFIX}{name}" for name in ranking.score.bounds}
    for name in sorted(set(inputs) - allowed):
        yield (
            f"signature {signature!r} has the input {name!r}{_what(ranking, name)}; expected "
            f"request features only: {', '.join(sorted(allowed))}; {_REMEDY}"
        )


def _signature_inputs(features: tuple[Feature, ...]) -> set[str]:
    sequences = {f.name for f in features if f.length is not None and f.dtype == "float"}
    return {f.name for f in features} | {name + LENGTH_SUFFIX for name in sequences}


def _parse_reasons(ranking: RankingSpec, graph: ExportedGraph) -> Iterator[str]:
    allowed = {f.name for f in ranking.request_features}
    for key in sorted(graph.parse_keys - allowed):
        yield (
            f"the graph parses the feature {key!r}{_what(ranking, key)} from tf.Examples; expected "
            f"request features only: {', '.join(sorted(allowed))}; {_REMEDY}"
        )
    for parser in graph.opaque_parsers:
        yield (
            f"the operation {parser} parses features whose names are not constants of the graph; "
            f"expected tf.io.parse_example with fixed names; {_REMEDY}"
        )


def _auxiliary_reasons(ranking: RankingSpec, graph: ExportedGraph) -> Iterator[str]:
    allowed = {f.name for f in ranking.request_features} | {f.name for f in ranking.rank_inputs}
    allowed |= {o.name for o in ranking.outputs} | {SCORE}
    for task in ranking.auxiliary_tasks:
        if task in allowed:
            continue
        longer = {name for name in allowed if task in name}
        for variable in sorted(graph.variables):
            if any(_names(part, task, longer) for part in _PATH_SEPARATOR.split(variable)):
                yield (
                    f"the variable {variable!r} belongs to the auxiliary task {task!r}; expected "
                    f"no trace of auxiliary tasks in an export; {_REMEDY}"
                )
                break
        operation = _operation_of(task, graph.nodes)
        if operation is not None:
            yield (
                f"the operation {operation.name!r} (in {operation.graph}) belongs to the auxiliary "
                f"task {task!r}; expected no trace of auxiliary tasks in an export; {_REMEDY}"
            )


def _names(part: str, task: str, longer: set[str]) -> bool:
    """Whether one component of a variable's path is a task's, as in `like` or `like_tower_1`."""
    for name in longer:
        part = part.replace(name, "")
    return re.search(rf"(^|_){re.escape(task)}(_|$)", part) is not None


def _operation_of(task: str, nodes: tuple[Node, ...]) -> Node | None:
    """Finds an operation with a task's name, Keras' `_1` apart, among the parts of its path.

    Names that TensorFlow made from the kind of an operation do not count, nor do the scopes of
    its own that it puts below them (`add`, `add/ReadVariableOp`): a task `add` (to a cart) must
    not be found in every sum.
    """
    pattern = re.compile(rf"{re.escape(task)}(_\d+)?")
    suspects = [n for n in nodes if any(map(pattern.fullmatch, _PATH_SEPARATOR.split(n.name)))]
    generated = {(n.graph, n.name) for n in suspects if _is_named_for_its_kind(n)}
    for node in suspects:
        scopes = _PATH_SEPARATOR.split(node.name)
        for depth, scope in enumerate(scopes, start=1):
            path = "/".join(scopes[:depth])
            if pattern.fullmatch(scope) and (node.graph, path) not in generated:
                return node
    return None


def _is_named_for_its_kind(node: Node) -> bool:
    leaf = re.sub(r"_\d+$", "", node.name.rsplit("/", 1)[-1])
    return node.op.lower().startswith(leaf.replace("_", "").lower())


def _what(ranking: RankingSpec, name: str) -> str:
    """Says what an offending name is, where the configuration knows it."""
    base = name.removesuffix(LENGTH_SUFFIX)
    for known in (name, base):
        if known in ranking.columns:
            return f", a {ranking.columns[known].availability} column"
    for task in ranking.auxiliary_tasks:
        if name in {o.name for o in ranking.outputs_of(task)}:
            return f" of the auxiliary task {task!r}"
        if name in {
            key for o in ranking.outputs_of(task) for key in (o.label_key, o.mask_key, o.weight_key)
        }:
            return f", a label of task {task!r}"
    for output in ranking.outputs:
        if name in (output.label_key, output.mask_key, output.weight_key):
            return f", a label of task {output.task!r}"
    return ""
