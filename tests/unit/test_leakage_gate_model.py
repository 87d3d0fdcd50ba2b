"""The lock on exported models: each leak planted in a small SavedModel and refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from components.leakage_gate.model_gate import judge_models
from components.leakage_gate.model_lock import model_reasons
from components.leakage_gate.saved_model import ExportedGraph, Signature
from models.spec.ranking import RankingSpec

RANKING = RankingSpec.model_validate_json(
    """{
    "slate": "request", "user": "user", "item": "item",
    "columns": {
        "request": {"type": "string", "availability": "request", "role": "group"},
        "user": {"type": "string", "availability": "request", "role": "feature",
                 "scope": "context"},
        "item": {"type": "string", "availability": "request", "role": ["key", "feature"]},
        "price": {"type": "float", "availability": "request", "role": "feature"},
        "stock": {"type": "float", "availability": "request"},
        "history": {"type": "list[float]", "availability": "request", "role": "feature",
                    "max_length": 3, "scope": "context"},
        "tags": {"type": "list[string]", "availability": "request", "role": "feature",
                 "max_length": 3},
        "position": {"type": "float", "availability": "decision", "role": "feature"},
        "clicked": {"type": "bool", "availability": "future", "role": "target"},
        "bought": {"type": "bool", "availability": "future", "role": "target"},
        "liked": {"type": "bool", "availability": "future", "role": "auxiliary_target"},
        "dwell_seconds": {"type": "float", "availability": "future", "role": "auxiliary_target"}
    },
    "features": {"stock_rank": {"slate": {"of": "stock", "relation": "rank"}}},
    "tasks": {
        "click": {"kind": "binary", "target": "clicked", "gates": {"auc": {"min": 0.6}}},
        "purchase": {"kind": "binary", "target": "bought", "conditioned_on": "click",
                     "gates": {"auc": {"min": 0.6}}},
        "like": {"kind": "binary", "target": "liked", "role": "auxiliary"},
        "click_dwell": {"kind": "duration", "target": "dwell_seconds", "role": "auxiliary"}
    }}"""
)
OUTPUTS = ("click", "purchase", "purchase_given_click", "score")
STRINGS = ("item", "tags", "user")
PREDICT = ("history", "history_length", "item", "price", "stock_rank", "tags", "user")
RANK = ("history", "history_length", "item", "price", "stock", "tags", "user")
PARSED = ("history", "item", "price", "stock_rank", "tags", "user")
SIGNATURES = ("serving_default", "predict", "rank")


class _Export(tf.Module):
    """A model of one kernel, with the signatures of an export."""

    def __init__(self, variable: str) -> None:
        super().__init__()
        self.kernel = tf.Variable([[1.0]], name=variable)


def _export(
    directory: Path,
    *,
    variable: str = "click/kernel",
    outputs: Sequence[str] = OUTPUTS,
    predict: Iterable[str] = PREDICT,
    rank: Iterable[str] = RANK,
    parsed: Sequence[str] = PARSED,
    signatures: Sequence[str] = SIGNATURES,
    scope: str = "towers",
    attributes: dict[str, Any] | None = None,
    computed_keys: bool = False,
) -> str:
    """Saves a model; every argument is a place where a leak can be planted."""
    module = _Export(variable)
    vocabulary = directory.parent / "vocabulary"
    vocabulary.write_text("phone\n")
    module.vocabulary = tf.saved_model.Asset(str(vocabulary))
    for name, value in (attributes or {}).items():
        setattr(module, name, value)

    def answer(price: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.name_scope(scope):
            logit = tf.reshape(price, [-1, 1]) @ module.kernel
        return {name: tf.identity(logit[:, 0], name) for name in outputs}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serving_default(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        if computed_keys:
            keys = tf.strings.join([["pri"], ["ce"]])
            price = tf.raw_ops.ParseExampleV2(
                serialized=examples, names=[], sparse_keys=[], dense_keys=keys, ragged_keys=[],
                dense_defaults=[tf.constant([0.0])], num_sparse=0, sparse_types=[],
                ragged_value_types=[], ragged_split_types=[], dense_shapes=[[1]],
            ).dense_values[0]  # fmt: skip
            return answer(price)
        spec: dict[str, Any] = {}
        for name in parsed:
            dtype, default = (tf.string, "") if name in STRINGS else (tf.float32, 0.0)
            if name == "history":
                spec[name] = tf.io.RaggedFeature(dtype)
            elif name == "item":
                spec[name] = tf.io.VarLenFeature(dtype)
            else:
                spec[name] = tf.io.FixedLenFeature([], dtype, default_value=default)
        return answer(tf.io.parse_example(examples, spec)["price"])

    def named(names: Iterable[str], function_name: str) -> Any:
        specs = {}
        for name in names:
            dtype = tf.string if name in STRINGS else tf.float32
            specs[name] = tf.TensorSpec([None], dtype, name=name)

        def call(**features: tf.Tensor) -> dict[str, tf.Tensor]:
            return answer(features["price"])

        call.__name__ = function_name
        return tf.function(call).get_concrete_function(**specs)

    available = {
        "serving_default": serving_default,
        "predict": named(predict, "predict"),
        "rank": named(rank, "rank"),
        "debug": named(predict, "debug"),
    }
    tf.saved_model.save(module, str(directory), {name: available[name] for name in signatures})
    return str(directory)


def _reasons(tmp_path: Path, **leak: Any) -> list[str]:
    directory = _export(tmp_path / "model", **leak)
    verdict = judge_models(RANKING, {"mmoe": directory})
    assert verdict.passed == (not verdict.reasons)
    assert verdict.details["candidates"]["mmoe"] == [
        r.removeprefix("candidate mmoe: ") for r in verdict.reasons
    ]
    return list(verdict.reasons)


def _only_reason(tmp_path: Path, **leak: Any) -> str:
    reasons = _reasons(tmp_path, **leak)
    assert len(reasons) == 1, reasons
    assert reasons[0].startswith("candidate mmoe: ")
    assert "remedy" in reasons[0]
    return reasons[0]


def test_a_clean_export_passes(tmp_path: Path) -> None:
    assert _reasons(tmp_path) == []


def test_only_the_leaking_candidate_is_accused(tmp_path: Path) -> None:
    clean = _export(tmp_path / "clean")
    leaking = _export(tmp_path / "leaking", predict=(*PREDICT, "bought"))
    verdict = judge_models(RANKING, {"clean": clean, "leaking": leaking})
    assert not verdict.passed
    assert verdict.details["candidates"]["clean"] == []
    assert len(verdict.details["candidates"]["leaking"]) == 1
    assert verdict.reasons[0].startswith("candidate leaking: ")


@pytest.mark.parametrize(
    ("name", "what"),
    [("bought", "a future column"), ("position", "a decision column"), ("oracle", "")],
)
def test_an_input_outside_the_allow_list_is_refused(tmp_path: Path, name: str, what: str) -> None:
    reason = _only_reason(tmp_path, predict=(*PREDICT, name))
    assert f"'predict' has the input '{name}'" in reason
    assert what in reason


def test_rank_takes_what_slate_features_are_made_of_and_predict_does_not(tmp_path: Path) -> None:
    assert "'predict' has the input 'stock'" in _only_reason(tmp_path, predict=(*PREDICT, "stock"))


def test_rank_does_not_take_slate_features(tmp_path: Path) -> None:
    reason = _only_reason(tmp_path, rank=(*RANK, "stock_rank"))
    assert "'rank' has the input 'stock_rank'" in reason


@pytest.mark.parametrize("name", ["price_length", "tags_length"])
def test_a_length_is_an_input_of_numeric_sequences_only(tmp_path: Path, name: str) -> None:
    reason = _only_reason(tmp_path, predict=(*PREDICT, name))
    assert f"'{name}'" in reason


@pytest.mark.parametrize("name", ["clicked", "position", "click__label", "dwell_seconds"])
def test_a_parse_key_outside_the_allow_list_is_refused(tmp_path: Path, name: str) -> None:
    reason = _only_reason(tmp_path, parsed=(*PARSED, name))
    assert f"parses the feature '{name}'" in reason


def test_ragged_and_sparse_parse_keys_are_seen(tmp_path: Path) -> None:
    content = RANKING.model_dump(mode="json")
    del content["columns"]["history"]
    ranking = RankingSpec.model_validate_json(json.dumps(content))
    directory = _export(tmp_path / "model", predict=PREDICT[2:], rank=RANK[2:])
    verdict = judge_models(ranking, {"mmoe": directory})
    assert [("'history'" in r and "parses the feature" in r) for r in verdict.reasons] == [True]


def test_parse_keys_that_the_graph_computes_are_refused(tmp_path: Path) -> None:
    reason = _only_reason(tmp_path, computed_keys=True)
    assert "not constants of the graph" in reason


def test_an_auxiliary_output_is_refused(tmp_path: Path) -> None:
    reasons = _reasons(tmp_path, outputs=(*OUTPUTS, "like"), signatures=SIGNATURES)
    outputs = [r for r in reasons if "has the output 'like' of the auxiliary task" in r]
    assert [s for s in SIGNATURES if any(f"{s!r}" in r for r in outputs)] == list(SIGNATURES)


def test_a_missing_output_is_refused(tmp_path: Path) -> None:
    reasons = _reasons(tmp_path, outputs=OUTPUTS[1:])
    assert all("lacks the output 'click'" in r for r in reasons)
    assert len(reasons) == 3


def test_an_unknown_signature_is_refused(tmp_path: Path) -> None:
    reason = _only_reason(tmp_path, signatures=(*SIGNATURES, "debug"))
    assert "unknown signature 'debug'" in reason


def test_a_model_of_as_of_features_tells_what_they_mean() -> None:
    exposures = {"as_of": {"events": "impressions", "entity": "item", "aggregate": "count"}}
    changed = RANKING.model_dump(mode="json")
    changed["features"]["exposures"] = exposures
    ranking = RankingSpec.model_validate_json(json.dumps(changed))

    def reasons(**signatures: Signature) -> list[str]:
        graph = ExportedGraph(signatures, frozenset(), (), (), (), frozenset())
        return [r for r in model_reasons(ranking, graph) if "feature_definitions" in r]

    one = frozenset({"feature_definitions"})
    told = Signature({"feature_definitions": "string"}, one, one)
    assert reasons(feature_definitions=told) == []
    assert "is absent" in reasons()[0]
    also = Signature({**told.inputs, "liked": "float32"}, one, one)
    assert "received feature_definitions, liked" in reasons(feature_definitions=also)[0]
    says = Signature(told.inputs, frozenset({"like"}), one)
    assert "received feature_definitions, like" in reasons(feature_definitions=says)[0]


def test_an_absent_signature_is_refused(tmp_path: Path) -> None:
    reason = _only_reason(tmp_path, signatures=("serving_default", "predict"))
    assert "signature 'rank' is absent" in reason


def test_serving_default_takes_serialised_examples_only(tmp_path: Path) -> None:
    module = _Export("kernel")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="price")])
    def call(price: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: price * module.kernel[0, 0] for name in OUTPUTS}

    directory = str(tmp_path / "model")
    tf.saved_model.save(module, directory, {"serving_default": call})
    reasons = judge_models(RANKING, {"mmoe": directory}).reasons
    assert any("one string input" in r and "price (float32)" in r for r in reasons)


@pytest.mark.parametrize(
    "variable", ["like/kernel", "towers/like_tower/kernel", "click_dwell/bias"]
)
def test_a_variable_of_an_auxiliary_task_is_refused(tmp_path: Path, variable: str) -> None:
    reasons = _reasons(tmp_path, variable=variable)
    assert f"the variable '{variable}' belongs to the auxiliary task" in reasons[0]


def test_a_checkpoint_path_through_an_auxiliary_task_is_refused(tmp_path: Path) -> None:
    heads = {"click": tf.Variable(0.0, name="a"), "like": tf.Variable(0.0, name="b")}
    reason = _only_reason(tmp_path, attributes={"heads": heads})
    assert "heads/like" in reason


@pytest.mark.parametrize("scope", ["like", "heads/like_1/dense"])
def test_an_operation_of_an_auxiliary_task_is_refused(tmp_path: Path, scope: str) -> None:
    reason = _only_reason(tmp_path, scope=scope)
    assert "the operation" in reason
    assert "auxiliary task 'like'" in reason


@pytest.mark.parametrize(
    ("variable", "scope"),
    [("zeros_likeness/kernel", "alike"), ("likely/kernel", "dislike"), ("click/kernel", "click")],
)
def test_names_that_only_contain_a_task_name_pass(
    tmp_path: Path, variable: str, scope: str
) -> None:
    assert _reasons(tmp_path, variable=variable, scope=scope) == []


def test_operations_that_tensorflow_names_itself_are_not_a_task(tmp_path: Path) -> None:
    content = RANKING.model_dump(mode="json")
    content["tasks"]["matmul"] = content["tasks"].pop("like")
    ranking = RankingSpec.model_validate_json(json.dumps(content))
    assert ranking.auxiliary_tasks == ("click_dwell", "matmul")
    assert judge_models(ranking, {"mmoe": _export(tmp_path / "model")}).passed


def test_the_description_of_objects_may_name_future_columns(tmp_path: Path) -> None:
    """Python-side metadata is not part of what is served: it is left out on purpose."""

    class Holder(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="dwell_seconds")])
        def untraced_signature(self, dwell_seconds: tf.Tensor) -> tf.Tensor:
            return dwell_seconds

    directory = _export(tmp_path / "model", attributes={"holder": Holder()})
    assert b"dwell_seconds" in (Path(directory) / "saved_model.pb").read_bytes()
    assert judge_models(RANKING, {"mmoe": directory}).passed


def test_a_graph_input_of_no_signature_is_refused(tmp_path: Path) -> None:
    directory = _export(tmp_path / "model")
    path = Path(directory) / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    proto.meta_graphs[0].graph_def.node.add(name="smuggled", op="Placeholder")
    path.write_bytes(proto.SerializeToString())
    (reason,) = judge_models(RANKING, {"mmoe": directory}).reasons
    assert "an input 'smuggled' that belongs to no signature" in reason


def test_a_damaged_export_is_refused(tmp_path: Path) -> None:
    directory = Path(_export(tmp_path / "model"))
    pb = directory / "saved_model.pb"
    pb.write_bytes(pb.read_bytes()[:100])
    verdict = judge_models(RANKING, {"mmoe": str(directory), "gone": str(tmp_path / "gone")})
    assert not verdict.passed
    assert all("no readable SavedModel" in r for r in verdict.reasons)
    assert len(verdict.reasons) == 2


def test_no_candidate_is_refused() -> None:
    assert not judge_models(RANKING, {}).passed
