"""No model is pushed that the deployed TF Serving could not load or hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import versions

from components.model_pusher.export_gate import export_problems, model_bytes
from components.model_pusher.push import versions as pushed_versions
from components.verdict import Verdict, write_verdict
from models.spec.errors import Refused
from serving.deploy.release import TF_SERVING
from tests.conformance.synthetic_ranking import synthetic_ranking


def save(directory: Path, dtype: tf.DType = tf.float32) -> Path:
    module = tf.Module()
    module.weights = tf.Variable(tf.zeros([1000], tf.float32))
    module.call = tf.function(
        lambda x: {"score": tf.cast(tf.map_fn(lambda v: v + module.weights[0], x), dtype)},
        input_signature=[tf.TensorSpec([None], tf.float32, name="x")],
    )
    tf.saved_model.save(module, str(directory), signatures={"predict": module.call})
    return directory


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("export") / "model")


def edited(exported: Path, folder: Path, change: Callable[[Any], None]) -> Path:
    saved_model = saved_model_pb2.SavedModel.FromString((exported / "saved_model.pb").read_bytes())
    change(saved_model.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    return folder


def test_an_export_of_this_tensorflow_can_be_pushed(exported: Path) -> None:
    assert export_problems(exported, memory_bytes=None) == []


def test_the_table_is_about_the_installed_tensorflow() -> None:
    """A new TensorFlow needs a new comparison with the release that is deployed."""
    installed = versions.GRAPH_DEF_VERSION
    assert installed <= TF_SERVING.newest_producer


def get_item(meta_graph: Any) -> Any:
    for function in meta_graph.graph_def.library.function:
        for node in function.node_def:
            if node.op == "TensorListGetItem":
                return node
    raise AssertionError("no loop")


def new_attribute(meta_graph: Any) -> None:
    get_item(meta_graph).attr["Tshape"].type = 9


def newer_reader(meta_graph: Any) -> None:
    meta_graph.graph_def.versions.min_consumer = TF_SERVING.graph_version + 1


def excluded_reader(meta_graph: Any) -> None:
    meta_graph.graph_def.versions.bad_consumers.append(TF_SERVING.graph_version)


def newer_producer(meta_graph: Any) -> None:
    meta_graph.graph_def.versions.producer = TF_SERVING.newest_producer + 1


def planted(meta_graph: Any) -> None:
    meta_graph.graph_def.node.add(name="planted", op="ReadFile")


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (new_attribute, ["attribute Tshape of operation TensorListGetItem", "2.20.0"]),
        (newer_reader, ["reader of version 2289", "has 2288"]),
        (excluded_reader, ["excludes readers of version 2288"]),
        (newer_producer, ["producer has version 2475", "release.py"]),
        (planted, ["no server would load it", "ReadFile of node 'planted'"]),
    ],
)
def test_graphs_that_the_release_cannot_read(
    change: Callable[[Any], None], texts: list[str], exported: Path, tmp_path: Path
) -> None:
    (problem,) = export_problems(edited(exported, tmp_path, change), memory_bytes=None)
    assert all(text in problem for text in texts)


def test_operations_that_the_release_lacks(exported: Path) -> None:
    release = replace(TF_SERVING, unknown_ops={"TensorListStack": "it is new"})
    problems = export_problems(exported, memory_bytes=None, release=release)
    assert problems and all("TensorListStack" in p and "it is new" in p for p in problems)


def test_outputs_are_float32(tmp_path: Path) -> None:
    (problem,) = export_problems(save(tmp_path, tf.float64), memory_bytes=None)
    assert "output 'score' of signature 'predict' is double; expected float32" in problem


def test_two_versions_fit_into_the_memory(exported: Path) -> None:
    size = model_bytes(exported)
    assert 4000 < size < 100_000
    assert export_problems(exported, memory_bytes=2 * size) == []
    (problem,) = export_problems(exported, memory_bytes=2 * size - 1)
    assert f"has {size} bytes" in problem and "push.memory_bytes" in problem


def test_files_that_are_no_model(tmp_path: Path) -> None:
    assert "no server would load it" in export_problems(tmp_path, memory_bytes=None)[0]


@pytest.mark.slow
def test_the_pusher_asks_the_gate(exported: Path, tmp_path: Path) -> None:
    from tfx.types import standard_artifacts

    from components.artifacts import Blessing, ChampionChoice
    from components.model_pusher.executor import Executor

    def artifact(kind: type[Any], name: str) -> list[Any]:
        made = kind()
        made.uri = str(tmp_path / name)
        Path(made.uri).mkdir(exist_ok=True)
        return [made]

    inputs = {
        "blessing": artifact(Blessing, "blessing"),
        "champion": artifact(ChampionChoice, "champion"),
        "model_mmoe": artifact(standard_artifacts.Model, "model"),
    }
    write_verdict(inputs["blessing"][0].uri, Verdict("champion", passed=True))
    (tmp_path / "champion" / "champion.json").write_text('{"champion": "mmoe"}')
    shutil.copytree(exported, tmp_path / "model" / "Format-Serving")
    outputs = {"pushed_model": artifact(standard_artifacts.PushedModel, "pushed")}
    properties = {
        "ranking_json": synthetic_ranking().model_dump_json(),
        "model_name": "m",
        "serving_dir": str(tmp_path / "serving"),
        "run_id": "r",
        "provenance_json": '{"window": {"test_end": 1000}}',
        "memory_bytes": "5000",
        "allow_older": "false",
        "deploy_json": "{}",
    }
    with pytest.raises(Refused, match="ModelPusher refused mmoe: the model has"):
        Executor().Do(inputs, outputs, properties)
    assert not (tmp_path / "serving").exists()
    Executor().Do(inputs, outputs, properties | {"memory_bytes": "null"})
    base_path = tmp_path / "serving" / "m"
    assert sorted(p.name for p in base_path.iterdir()) == ["1", "config", "run_tf_serving.sh"]
    assert (base_path / "config" / "models.config").is_file()
    assert json.loads((tmp_path / "pushed" / "pushed.json").read_text())["version"] == 1

    older = {"run_id": "s", "provenance_json": '{"window": {"test_end": 999}}'}
    properties |= {"memory_bytes": "null", **older}
    outputs = {"pushed_model": artifact(standard_artifacts.PushedModel, "superseded")}
    Executor().Do(inputs, outputs, properties)
    assert sorted(pushed_versions(base_path)) == [1]
    assert not (tmp_path / "superseded" / "pushed.json").exists()
    told = json.loads((tmp_path / "superseded" / "superseded.json").read_text())
    assert told == {"version": 1, "run_id": "r", "test_end": 1000}
    outputs = {"pushed_model": artifact(standard_artifacts.PushedModel, "asked")}
    Executor().Do(inputs, outputs, properties | {"allow_older": "true"})
    assert sorted(pushed_versions(base_path)) == [1, 2]
    assert [p.name for p in (tmp_path / "asked").iterdir()] == ["pushed.json"]
