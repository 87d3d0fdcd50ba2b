"""Half-precision layers and XLA in what is exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from components.model_pusher.export_gate import export_problems
from components.model_pusher.requests import synthetic_requests
from serving.client import RankingClient
from serving.server.options import ServerOptions
from serving.server.server import EmbeddedServer
from serving.warmup import write_warmup
from tests.conformance.synthetic_ranking import Transformed, encode
from tests.conformance.trainer_run import Run, train

pytestmark = pytest.mark.slow


def nodes(run: Run) -> list[Any]:
    saved = saved_model_pb2.SavedModel.FromString((run.model / "saved_model.pb").read_bytes())
    library = saved.meta_graphs[0].graph_def.library
    return [node for function in library.function for node in function.node_def]


def scores(
    run: Run, transformed: Transformed, num_rows: int = 200, batch_rows: int = 200
) -> dict[str, np.ndarray]:
    rows = {name: values[:num_rows] for name, values in transformed.rows["validation"].items()}
    records = encode(rows)
    loaded = tf.saved_model.load(str(run.model))
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, num_rows, batch_rows):
        batch = tf.constant(records[start : start + batch_rows])
        for name, value in loaded.signatures["serving_default"](examples=batch).items():
            parts.setdefault(name, []).append(value.numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


@pytest.fixture(scope="module")
def whole(transformed: Transformed, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(transformed, tmp_path_factory.mktemp("float32"), "mmoe", epochs=2)


def test_bfloat16_layers_and_float32_variables_and_outputs(
    whole: Run, transformed: Transformed, tmp_path: Path
) -> None:
    half = train(transformed, tmp_path, "mmoe", epochs=2, precision="bfloat16")
    products = {
        tf.as_dtype(node.attr["T"].type)
        for node in nodes(half)
        if node.op in ("MatMul", "BatchMatMulV2", "Einsum")
    }
    assert products == {tf.bfloat16, tf.float32}, "towers in bfloat16, heads in float32"
    assert {tf.as_dtype(n.attr["dtype"].type) for n in nodes(half) if n.op == "ReadVariableOp"} == {
        tf.float32
    }
    expected, found = scores(whole, transformed), scores(half, transformed)
    for name, values in found.items():
        assert values.dtype == np.float32
        assert np.corrcoef(values, expected[name])[0, 1] > 0.9, name
        assert not np.allclose(values, expected[name], rtol=1e-4), name
    for batch_rows in (1, 7, 64):
        split = scores(half, transformed, batch_rows=batch_rows)
        for name, values in found.items():
            np.testing.assert_allclose(split[name], values, rtol=1e-5, err_msg=name)
    assert tf.keras.mixed_precision.global_policy().name == "float32"
    assert not export_problems(half.model, memory_bytes=None)


@pytest.mark.parametrize("kind", ["uncertainty", "grad_norm", "pcgrad"])
def test_balancers_weigh_float32_losses(
    kind: str, transformed: Transformed, tmp_path: Path
) -> None:
    runs = [
        train(transformed, tmp_path / p, epochs=1, precision=p, balancer={"kind": kind})
        for p in ("float32", "bfloat16")
    ]
    whole, half = (run.training["epochs"][0]["train_loss"]["total"] for run in runs)
    assert half == pytest.approx(whole, rel=0.05) and half != whole


def test_xla_compiles_what_is_exported_and_changes_no_answer(
    whole: Run, transformed: Transformed, tmp_path: Path
) -> None:
    compiled = train(transformed, tmp_path / "run", "mmoe", epochs=2, xla=True)
    marked = [node for node in nodes(compiled) if node.attr["_XlaMustCompile"].b]
    assert len(marked) == 3, "one call in each signature"
    assert not any(node.attr["_XlaMustCompile"].b for node in nodes(whole))
    expected, found = scores(whole, transformed), scores(compiled, transformed)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert not export_problems(compiled.model, memory_bytes=None)
    base_path = tmp_path / "base"
    base_path.mkdir()
    compiled.model.rename(base_path / "1")
    requests = synthetic_requests(transformed.ranking)
    write_warmup(base_path / "1", requests)
    with (
        EmbeddedServer(ServerOptions({"ranker": base_path})) as server,
        RankingClient(server.target, "ranker", timeout_seconds=60) as client,
    ):
        client.wait_until_available(60)
        rows = {name: values[:7] for name, values in transformed.rows["validation"].items()}
        served = client.predict_examples(encode(rows))
    for name, values in served.items():
        np.testing.assert_allclose(values, expected[name][:7], rtol=1e-5, atol=1e-6, err_msg=name)
