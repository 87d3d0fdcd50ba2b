"""What ships: the exported graph, its signatures, and that nothing else is in it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.model_pusher.export_gate import export_problems
from components.model_pusher.requests import synthetic_requests
from models.architectures.registry import ARCHITECTURES
from models.metrics.columns import TaskColumns
from models.metrics.estimation import compute
from models.request_transform import RequestTransform
from models.spec.errors import PolyrankError
from models.spec.feature import Feature
from models.spec.keys import key_feature
from serving.client import RankingClient
from serving.errors import InvalidRequestError
from serving.server.server import EmbeddedServer, ServerOptions
from serving.warmup import write_warmup
from tests.conformance.architecture_cases import small
from tests.conformance.synthetic_ranking import Rows, Transformed, encode, synthetic_ranking
from tests.conformance.trainer_run import Run, train

pytestmark = pytest.mark.slow
RANKING = synthetic_ranking()
OUTPUTS = {o.name for o in RANKING.outputs} | {"score"}
Tensors = dict[str, tf.Tensor]
DECLARED = {"score_weight__watch_seconds": tf.constant([0.1])}
"""What a server fills in; a loaded signature asks for it."""


@pytest.fixture(scope="module")
def run(transformed: Transformed, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model whose transform graph is gone: what is exported stands alone."""
    folder = tmp_path_factory.mktemp("export")
    graph = folder / "graph"
    shutil.copytree(transformed.graph, graph)
    trained = train(
        replace(transformed, graph=graph), folder, "mmoe", epochs=2, eval_split="served"
    )
    shutil.rmtree(graph)
    return trained


@pytest.fixture(scope="module")
def signatures(run: Run) -> dict[str, Any]:
    loaded = tf.saved_model.load(str(run.model))
    # The signatures live as long as what was loaded.
    return {"loaded": loaded, **loaded.signatures}


@pytest.fixture(scope="module")
def rows(transformed: Transformed) -> Rows:
    return transformed.rows["validation"]


def pick(rows: Rows, indices: Any) -> Rows:
    return {name: [values[i] for i in indices] for name, values in rows.items()}


def tensor(feature: Feature, values: list[Any]) -> np.ndarray:
    missing: Any = b"" if feature.dtype == "string" else np.nan
    if feature.length is not None:
        values = [[missing] * feature.length if v is None else v for v in values]
    else:
        values = [missing if v is None else v for v in values]
    return np.array(values, object if feature.dtype == "string" else np.float32)


def inputs(features: tuple[Feature, ...], rows: Rows) -> Tensors:
    found = {f.name: tf.constant(tensor(f, rows[f.name])) for f in features}
    if "content" in found:
        found["content_length"] = tf.fill([len(rows["content"])], tf.constant(2, tf.int64))
    return found


def assert_equal(a: Tensors, b: Tensors) -> None:
    assert set(a) == set(b) == OUTPUTS
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_inputs_are_the_allow_lists(signatures: dict[str, Any]) -> None:
    def received(name: str) -> set[str]:
        return set(signatures[name].structured_input_signature[1])

    assert received("serving_default") == {"examples"}
    assert received("predict") == {f.name for f in RANKING.request_features} | {"content_length"}
    assert received("rank") == {f.name for f in RANKING.rank_inputs} | {
        "content_length",
        "score_weight__watch_seconds",
    }
    assert "popularity" in received("rank") and "popularity_rank" not in received("rank")
    assert "position" not in received("predict") | received("rank")


def test_outputs_are_the_served_ones_in_float32(signatures: dict[str, Any], rows: Rows) -> None:
    for name in ("serving_default", "predict", "rank"):
        assert set(signatures[name].structured_outputs) == OUTPUTS
    outputs = signatures["serving_default"](examples=tf.constant(encode(rows)))
    for values in outputs.values():
        assert values.dtype == tf.float32 and values.shape == (len(rows["item_id"]),)
        assert np.isfinite(values).all()


def test_serving_default_equals_predict(signatures: dict[str, Any], rows: Rows) -> None:
    assert_equal(
        signatures["serving_default"](examples=tf.constant(encode(rows))),
        signatures["predict"](**inputs(RANKING.request_features, rows)),
    )


def test_serving_default_reads_nothing_but_request_features(
    signatures: dict[str, Any], rows: Rows
) -> None:
    request = {f.name: rows[f.name] for f in RANKING.request_features}
    serve = signatures["serving_default"]
    assert_equal(
        serve(examples=tf.constant(encode(rows))), serve(examples=tf.constant(encode(request)))
    )


def slate(rows: Rows) -> tuple[Rows, Rows]:
    """One slate of seven: what `rank` receives, and the same rows as `predict` wants them."""
    candidates = pick(rows, range(7))
    candidates["popularity"] = [3.0, None, 5.0, 3.0, 0.0, None, 1.0]
    candidates["price"] = [2.0, 4.0, None, 1.0, 0.0, 8.0, 1.0]
    context = {f.name: [rows[f.name][0]] for f in RANKING.rank_inputs if f.scope == "context"}
    full = candidates | {name: values * 7 for name, values in context.items()}
    full["popularity_rank"] = [1 / 7, 5 / 7, 0.0, 1 / 7, 4 / 7, 5 / 7, 3 / 7]
    full["priced"] = [6.0] * 7
    full["price_share"] = [2 / 16, 4 / 16, 0.0, 1 / 16, 0.0, 8 / 16, 1 / 16]
    full["price_ratio"] = [2 / 8, 4 / 8, 0.0, 1 / 8, 0.0, 1.0, 1 / 8]
    return candidates | context, full


def test_rank_broadcasts_context_and_computes_slate_features(
    signatures: dict[str, Any], rows: Rows
) -> None:
    request, full = slate(rows)
    ranked = signatures["rank"](**inputs(RANKING.rank_inputs, request), **DECLARED)
    assert_equal(ranked, signatures["predict"](**inputs(RANKING.request_features, full)))
    assert len(set(ranked["score"].numpy())) > 3


@pytest.mark.parametrize("num_candidates", [0, 1, 300])
def test_rank_of_any_number_of_candidates(
    num_candidates: int, signatures: dict[str, Any], rows: Rows
) -> None:
    request, _ = slate(rows)
    for feature in RANKING.rank_inputs:
        if feature.scope == "candidate":
            request[feature.name] = (request[feature.name] * 50)[:num_candidates]
    tensors = {
        f.name: tf.reshape(tensor(f, request[f.name]), [-1] if f.length is None else [-1, f.length])
        for f in RANKING.rank_inputs
        if num_candidates or f.scope == "context"
    }
    for feature in RANKING.rank_inputs:
        if feature.name not in tensors:
            shape = [0] if feature.length is None else [0, feature.length]
            kind = tf.string if feature.dtype == "string" else tf.float32
            tensors[feature.name] = tf.zeros(shape, kind)
    tensors["content_length"] = tf.fill([num_candidates], tf.constant(2, tf.int64))
    ranked = signatures["rank"](**tensors, **DECLARED)
    assert all(values.shape == (num_candidates,) for values in ranked.values())


def test_sequences_are_cut_and_padded(signatures: dict[str, Any], rows: Rows) -> None:
    some = pick(rows, range(5))
    exact = inputs(RANKING.request_features, some)
    padded = dict(exact)
    for name in ("history", "tags"):
        padded[name] = tf.concat([exact[name], tf.fill([5, 9], "i3")], axis=1)
    # Beyond `content_length` a value says nothing.
    exact["content"] = tf.constant([[1.0, np.nan]] * 5, tf.float32)
    padded["content"] = tf.constant([[1.0, 7.0, 9.0]] * 5, tf.float32)
    padded["content_length"] = tf.ones([5], tf.int64)
    assert_equal(signatures["predict"](**padded), signatures["predict"](**exact))
    short = dict(exact)
    short["history"] = exact["history"][:, :1]
    blank = dict(exact)
    blank["history"] = tf.concat([exact["history"][:, :1], tf.fill([5, 3], "")], axis=1)
    assert_equal(signatures["predict"](**short), signatures["predict"](**blank))
    lists = some | {
        "history": [[v for v in row if v][:1] or None for row in some["history"]],
        "tags": [[*row[:2], b"", b"i1"] for row in some["tags"]],
    }
    served = signatures["serving_default"](examples=tf.constant(encode(lists)))
    direct = inputs(RANKING.request_features, some)
    direct["history"] = direct["history"][:, :1]
    assert_equal(served, signatures["predict"](**direct))


def test_conditionals_and_score(signatures: dict[str, Any], rows: Rows) -> None:
    outputs = signatures["serving_default"](examples=tf.constant(encode(rows)))
    values = {name: tensor.numpy() for name, tensor in outputs.items()}
    for task in ("purchase", "spend"):
        product = values["click"] * values[f"{task}_given_click"]
        np.testing.assert_allclose(values[task], product, rtol=1e-5)
    score = values["click"] + 0.1 * np.log1p(values["watch_seconds"])
    np.testing.assert_allclose(values["score"], score, rtol=1e-5)


@pytest.fixture(scope="module")
def client(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankingClient]:
    base_path = tmp_path_factory.mktemp("serving")
    shutil.copytree(run.model, base_path / "1")
    write_warmup(base_path / "1", synthetic_requests(RANKING))
    with (
        EmbeddedServer(ServerOptions(models={"m": base_path}, port=0)) as server,
        RankingClient(server.target, "m") as client,
    ):
        client.wait_until_available(60)
        yield client


def served_slate(rows: Rows) -> tuple[Rows, Rows]:
    """The slate as a client sends it: context and candidates."""
    request, _ = slate(rows)
    request["content"] = [row or [] for row in request["content"]]
    names = {f.name: f.scope for f in RANKING.rank_inputs}
    context = {name: request[name][0] for name, scope in names.items() if scope == "context"}
    return context, {n: request[n] for n, scope in names.items() if scope == "candidate"}


def test_a_request_may_set_weights_within_bounds(client: RankingClient, rows: Rows) -> None:
    context, candidates = served_slate(rows)
    for weights in (None, {}, {"watch_seconds": 0.0}, {"watch_seconds": 2.5}):
        ranking = client.rank(context, candidates, weights=weights)
        weight = (weights or {}).get("watch_seconds", 0.1)
        expected = ranking.scores["click"] + weight * np.log1p(ranking.scores["watch_seconds"])
        np.testing.assert_allclose(ranking.scores["score"], expected, rtol=1e-5)
        assert np.all(np.diff(ranking.scores["score"]) <= 0)
    orders = [client.rank(context, candidates, weights={"watch_seconds": w}) for w in (0, 2.5)]
    assert len({tuple(ranking.order) for ranking in orders}) == 2


@pytest.mark.parametrize("weight", [-0.01, 2.51, float("nan"), float("inf")])
def test_weights_out_of_bounds_are_refused(
    weight: float, client: RankingClient, rows: Rows
) -> None:
    context, candidates = served_slate(rows)
    message = "score_weight__watch_seconds is out of bounds; expected 0 to 2.5"
    with pytest.raises(InvalidRequestError, match=message):
        client.rank(context, candidates, weights={"watch_seconds": weight})


def test_weights_without_bounds_are_fixed(client: RankingClient, rows: Rows) -> None:
    context, candidates = served_slate(rows)
    with pytest.raises(InvalidRequestError, match="cannot be set; expected one of watch_seconds"):
        client.rank(context, candidates, weights={"click": 2.0})


def test_the_export_predicts_what_validation_measured(
    run: Run, signatures: dict[str, Any], rows: Rows
) -> None:
    """Raw rows through the export give the metrics of transformed rows through the model."""
    outputs = signatures["serving_default"](examples=tf.constant(encode(rows)))
    slates = np.array(rows[key_feature("request_id")])
    best = run.training["epochs"][run.training["best_epoch"] - 1]["validation"]
    for output in RANKING.outputs:
        columns = TaskColumns(
            label=np.array(rows[output.label_key]),
            prediction=outputs[output.name].numpy(),
            weight=np.array(rows[output.weight_key]),
            group=slates,
            cluster=slates,
        )
        for metric, value in compute(output.metrics, columns).items():
            if np.isfinite(value):
                assert value == pytest.approx(best[output.name][metric], rel=1e-4), metric


FRESH_PROCESS = """
import json, sys
import tensorflow as tf

folder, request = sys.argv[1:]
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    loaded = tf.compat.v1.saved_model.load(session, ["serve"], folder)
    signature = loaded.signature_def["serving_default"]
    outputs = {name: info.name for name, info in signature.outputs.items()}
    records = [bytes.fromhex(record) for record in json.load(open(request))]
    values = session.run(outputs, {signature.inputs["examples"].name: records})
packages = {module.split(".")[0] for module in sys.modules}
foreign = sorted(packages & {"models", "tensorflow_transform", "tfx_bsl"})
print(json.dumps({"values": {k: v.tolist() for k, v in values.items()}, "foreign": foreign}))
"""


def test_loads_in_a_process_without_this_code(
    run: Run, signatures: dict[str, Any], rows: Rows, tmp_path: Path
) -> None:
    records = encode(pick(rows, range(20)))
    request = tmp_path / "request.json"
    request.write_text(json.dumps([record.hex() for record in records]))
    moved = tmp_path / "moved"
    shutil.copytree(run.model, moved)
    finished = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, str(moved), str(request)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    answer = json.loads(finished.stdout.splitlines()[-1])
    assert answer["foreign"] == []
    expected = signatures["serving_default"](examples=tf.constant(records))
    assert_equal({k: np.array(v) for k, v in answer["values"].items()}, expected)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_is_served_without_auxiliary_tasks_labels_or_decisions(
    architecture: str, transformed: Transformed, rows: Rows, tmp_path: Path
) -> None:
    run = train(
        transformed,
        tmp_path,
        architecture,
        model=small(architecture),
        epochs=1,
        interaction="cross",
        eval_split="served",
    )
    assert export_problems(run.model, memory_bytes=None) == []
    proto = (run.model / "saved_model.pb").read_bytes()
    index = (run.model / "variables" / "variables.index").read_bytes()
    for trace in ("scroll", "position", "__label", "__weight", "__mask", "__key", "clicked"):
        assert trace.encode() not in proto + index
    graph = tf.compat.v1.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(run.model))
        signature = meta.signature_def["serving_default"]
        click, examples = signature.outputs["click"], signature.inputs["examples"]
        served = session.run(click.name, {examples.name: encode(rows)})
    measured = run.training["epochs"][0]["validation"]["click"]
    columns = TaskColumns(
        label=np.array(rows["click__label"]),
        prediction=served,
        weight=np.array(rows["click__weight"]),
        group=np.arange(len(served)),
        cluster=np.arange(len(served)),
    )
    for metric, value in compute(("auc", "log_loss"), columns).items():
        assert value == pytest.approx(measured[metric], rel=1e-4)
    fed = {
        info.name.split(":")[0]
        for signature in meta.signature_def.values()
        for info in signature.inputs.values()
    }
    fed |= {asset.tensor_info.name.split(":")[0] for asset in meta.asset_file_def}
    placeholders = {n.name for n in meta.graph_def.node if n.op == "Placeholder"}
    assert placeholders - fed == {"saver_filename"}
    heads = [
        n.name
        for n in meta.graph_def.node
        if n.op == "VarHandleOp" and "heads" in n.name and "kernel" in n.name
    ]
    assert len(heads) == len(RANKING.served_tasks)


def test_features_that_depend_on_more_than_features_are_refused(transformed: Transformed) -> None:
    columns = RANKING.model_dump(mode="json")["columns"]
    columns["price"]["role"] = []
    with pytest.raises(PolyrankError, match="received price"):
        RequestTransform(str(transformed.graph), synthetic_ranking(columns=columns))
