"""A SavedModel that can do more than compute is refused before it is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import grpc
import pytest
import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.client import pywrap_tf_session

from serving.server import allowed_ops
from serving.server.errors import StatusError
from serving.server.model_scan import read_saved_model, scan_model

Function = Callable[[tf.Tensor], tf.Tensor]


def save(directory: Path, function: Function, module: tf.Module | None = None) -> Path:
    """Saves a model with one signature, `x` string [N] to `y`."""
    module = module or tf.Module()
    module.version = tf.Variable(1.0)
    module.call = tf.function(
        lambda x: {"y": function(x)}, input_signature=[tf.TensorSpec([None], tf.string, name="x")]
    )
    tf.saved_model.save(module, str(directory), signatures={"predict": module.call})
    return directory


def refusal(directory: Path) -> str:
    with pytest.raises(StatusError) as caught:
        scan_model(directory)
    assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
    return caught.value.message


def restored(x: tf.Tensor) -> tf.Tensor:
    (value,) = tf.raw_ops.RestoreV2(
        prefix="/etc/other", tensor_names=["v"], shape_and_slices=[""], dtypes=[tf.string]
    )
    return tf.strings.join([x, value])


def saved(x: tf.Tensor) -> tf.Tensor:
    tf.raw_ops.SaveV2(prefix="/tmp/out", tensor_names=["x"], shape_and_slices=[""], tensors=[x])
    return x


def written(x: tf.Tensor) -> tf.Tensor:
    tf.io.write_file("/tmp/out", x[0])
    return x


def printed(x: tf.Tensor) -> tf.Tensor:
    tf.raw_ops.PrintV2(input=x[0], output_stream="file:///tmp/out")
    return x


def read_rows(x: tf.Tensor) -> tf.Tensor:
    return next(iter(tf.data.TextLineDataset("/etc/hostname").repeat().batch(1))) + x


def in_a_branch(x: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.size(x) > 0, lambda: tf.io.read_file(x[0]), lambda: tf.constant("a"))


def in_a_loop(x: tf.Tensor) -> tf.Tensor:
    def step(n: tf.Tensor, value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return n + 1, tf.io.read_file(value)

    return tf.while_loop(lambda n, _: n < 3, step, [tf.constant(0), x[0]])[1]


def in_a_called_function(x: tf.Tensor) -> tf.Tensor:
    return tf.function(lambda value: tf.io.read_file(value))(x[0])


PLANTED: dict[str, tuple[Function, str]] = {
    "reads a file": (lambda x: tf.io.read_file(x[0]), "ReadFile"),
    "reads a fixed file": (lambda x: x + tf.io.read_file("/etc/hostname"), "ReadFile"),
    "writes a file": (written, "WriteFile"),
    "py_function": (lambda x: tf.py_function(lambda v: v, [x], tf.string), "EagerPyFunc"),
    "numpy_function": (lambda x: tf.numpy_function(lambda v: v, [x], tf.string), "PyFunc"),
    "lists a folder": (lambda x: tf.io.matching_files(x), "MatchingFiles"),
    "reads rows": (read_rows, "Dataset"),
    "saves": (saved, "SaveV2"),
    "restores": (restored, "RestoreV2"),
    "prints": (printed, "PrintV2"),
    "maps a file": (
        lambda x: tf.raw_ops.ImmutableConst(
            dtype=tf.float32, shape=[1], memory_region_name="/etc/hostname"
        ),
        "ImmutableConst",
    ),
    "debugs to a file": (
        lambda x: tf.raw_ops.DebugIdentity(input=x, debug_urls=["file:///tmp/out"]),
        "DebugIdentity",
    ),
    "reads in a branch": (in_a_branch, "ReadFile"),
    "reads in a loop": (in_a_loop, "ReadFile"),
    "reads in a function": (in_a_called_function, "ReadFile"),
}


def parsed(rows: tf.Tensor) -> tf.Tensor:
    return tf.io.parse_example(rows, {"n": tf.io.FixedLenFeature([], tf.string, "")})["n"]


@pytest.mark.parametrize(
    "function",
    [
        parsed,
        lambda x: parsed(tf.reshape(tf.identity(x), [-1])[1:]),
        lambda x: tf.function(parsed)(x),
    ],
)
def test_inputs_may_be_parsed_as_examples(function: Function, tmp_path: Path) -> None:
    scan_model(save(tmp_path / "1", function))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: parsed(tf.io.decode_base64(x)),
        lambda x: parsed(tf.strings.join([x, x])),
        lambda x: tf.cond(tf.size(x) > 3, lambda: parsed(x), lambda: x),
    ],
)
def test_nothing_else_may_be_parsed_as_examples(function: Function, tmp_path: Path) -> None:
    message = refusal(save(tmp_path / "1", function))
    assert message.startswith("operation ParseExampleV2 of node '")
    assert "only inputs of signatures may be parsed" in message


@pytest.mark.parametrize("planted", PLANTED)
def test_planted_operations_are_refused(planted: str, tmp_path: Path) -> None:
    function, op = PLANTED[planted]
    message = refusal(save(tmp_path / "1", function))
    assert op in message.split(" of node ")[0]
    assert "it is not on the allow-list" in message or "the saver alone restores" in message
    assert " of node '" in message


def table(source: Any) -> tf.lookup.StaticVocabularyTable:
    initializer = tf.lookup.TextFileInitializer(
        source, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER,
    )  # fmt: skip
    return tf.lookup.StaticVocabularyTable(initializer, num_oov_buckets=1)


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "items.txt"
    path.write_text("a\nb\n")
    return path


@pytest.fixture
def with_table(tmp_path: Path, vocabulary: Path) -> Path:
    """An honest model: a table from an asset, a variable from the checkpoint."""
    module = tf.Module()
    module.table = table(str(vocabulary))
    return save(
        tmp_path / "1",
        lambda x: tf.cast(module.table.lookup(x), tf.float32) * module.version,
        module,
    )


def edit(directory: Path, change: Callable[[Any], None]) -> Path:
    path = directory / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(saved_model.meta_graphs[0])
    path.write_bytes(saved_model.SerializeToString())
    return directory


def function(meta_graph: Any, part: str) -> Any:
    (found,) = [f for f in meta_graph.graph_def.library.function if part in f.signature.name]
    return found


def text(node: Any, name: str, value: bytes) -> None:
    node.name, node.op = name, "Const"
    node.attr["dtype"].type = 7
    node.attr["value"].tensor.dtype = 7
    node.attr["value"].tensor.tensor_shape.SetInParent()
    node.attr["value"].tensor.string_val.append(value)


def test_tables_of_assets_and_the_saver_are_allowed(with_table: Path) -> None:
    scan_model(with_table)
    ops = {
        node.op
        for f in read_saved_model(with_table).meta_graphs[0].graph_def.library.function
        for node in f.node_def
    }
    assert {"InitializeTableFromTextFileV2", "RestoreV2", "SaveV2", "MergeV2Checkpoints"} <= ops


def fixed_table_path(meta_graph: Any) -> None:
    initializer = function(meta_graph, "_initializer")
    text(initializer.node_def.add(), "planted", b"/etc/passwd")
    (node,) = [n for n in initializer.node_def if n.op == "InitializeTableFromTextFileV2"]
    node.input[1] = "planted:output:0"


def table_path_of_another_constant(meta_graph: Any) -> None:
    text(meta_graph.graph_def.node.add(), "planted", b"/etc/passwd")
    (assign,) = [
        n
        for n in meta_graph.graph_def.node
        if n.op == "AssignVariableOp" and n.input[1] == "asset_path_initializer"
    ]
    assign.input[1] = "planted"


def second_assignment(meta_graph: Any) -> None:
    text(meta_graph.graph_def.node.add(), "planted", b"/etc/passwd")
    (assign,) = [
        n
        for n in meta_graph.graph_def.node
        if n.op == "AssignVariableOp" and n.input[1] == "asset_path_initializer"
    ]
    second = meta_graph.graph_def.node.add()
    second.CopyFrom(assign)
    second.name = "second"
    second.input[1] = "planted"


def assignment_by_another_handle(meta_graph: Any) -> None:
    (assign,) = [
        n
        for n in meta_graph.graph_def.node
        if n.op == "AssignVariableOp" and n.input[1] == "asset_path_initializer"
    ]
    (handle,) = [n for n in meta_graph.graph_def.node if n.name == assign.input[0]]
    twin = meta_graph.graph_def.node.add()
    twin.CopyFrom(handle)
    twin.name = "twin"


def table_filled_by_requests(meta_graph: Any) -> None:
    call = next(n for n in meta_graph.graph_def.node if n.name == "StatefulPartitionedCall")
    call.input.append("^NoOp")


def other_checkpoint(meta_graph: Any) -> None:
    restore = function(meta_graph, "_traced_restore")
    text(restore.node_def.add(), "planted", b"/etc/other")
    (node,) = [n for n in restore.node_def if n.op == "RestoreV2"]
    node.input[0] = "planted:output:0"


def write_while_restoring(meta_graph: Any) -> None:
    save_function = function(meta_graph, "_traced_save")
    restore = function(meta_graph, "_traced_restore")
    for node in save_function.node_def:
        if node.op == "MergeV2Checkpoints":
            planted = restore.node_def.add()
            planted.CopyFrom(node)


def restore_saves(meta_graph: Any) -> None:
    meta_graph.saver_def.restore_op_name = meta_graph.saver_def.save_tensor_name.split(":")[0]


def request_saves(meta_graph: Any) -> None:
    output = meta_graph.signature_def["predict"].outputs["y"]
    output.name = meta_graph.saver_def.save_tensor_name


def operation_nobody_knows(meta_graph: Any) -> None:
    node = meta_graph.graph_def.node.add()
    node.name, node.op = "planted", "FutureOp"


def never_called(meta_graph: Any) -> None:
    destroyer = function(meta_graph, "_destroyer")
    node = destroyer.node_def.add()
    node.name, node.op = "planted", "WriteFile"


EDITS = {
    fixed_table_path: "from the model's own assets only",
    table_path_of_another_constant: "from the model's own assets only",
    second_assignment: "from the model's own assets only",
    assignment_by_another_handle: "from the model's own assets only",
    table_filled_by_requests: "by the model's initialiser only",
    other_checkpoint: "own checkpoint only",
    write_while_restoring: "MergeV2Checkpoints",
    # Either half of the saver is then out of place; which one is named is the library's order.
    restore_saves: "is refused: ",
    request_saves: "ShardedFilename",
    operation_nobody_knows: "FutureOp of node 'planted' is refused: it is not on the allow-list",
    never_called: "WriteFile of node 'planted' of function",
}


@pytest.mark.parametrize("change", EDITS, ids=lambda change: change.__name__)
def test_places_are_watched(change: Callable[[Any], None], with_table: Path) -> None:
    assert EDITS[change] in refusal(edit(with_table, change))


@pytest.mark.parametrize("name", ["/etc/passwd", "../../outside.txt", "a/../../outside.txt"])
def test_assets_stay_inside(name: str, with_table: Path) -> None:
    def change(meta_graph: Any) -> None:
        meta_graph.asset_file_def[0].filename = name

    assert "an asset is a file under assets/" in refusal(edit(with_table, change))


def test_assets_may_not_be_links_to_the_outside(with_table: Path, vocabulary: Path) -> None:
    asset = with_table / "assets" / "items.txt"
    asset.unlink()
    asset.symlink_to(vocabulary)
    assert "an asset is a file under assets/" in refusal(with_table)


@pytest.mark.parametrize("name", ["saved_model.pbtxt", "saved_model.cpb"])
def test_there_is_one_graph(name: str, with_table: Path) -> None:
    (with_table / name).write_text("")
    assert name in refusal(with_table)


def test_a_graph_that_does_not_parse(with_table: Path) -> None:
    (with_table / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(StatusError, match="cannot parse") as caught:
        scan_model(with_table)
    assert caught.value.code is grpc.StatusCode.DATA_LOSS


def test_the_list_holds_operations_of_this_tensorflow() -> None:
    operations = pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())
    known = {op.name: op for op in op_def_pb2.OpList.FromString(operations).op}
    everything = (
        allowed_ops.COMPUTING
        | set(allowed_ops.EXAMPLE_PARSERS)
        | allowed_ops.TABLE_INITIALISERS
        | allowed_ops.RESTORING
        | allowed_ops.SAVING
    )
    assert everything <= set(known)
    suspects = (
        "File", "Dataset", "Iterator", "PyFunc", "Send", "Recv", "Rpc", "Remote", "Collective",
        "Nccl", "Print", "Summary", "Debug", "Dump", "Sql", "Reader", "Queue", "Stage", "Custom",
        "Xla", "TPU", "Tpu", "Random", "Timestamp", "Barrier", "Save", "Restore", "ImmutableConst",
    )  # fmt: skip
    assert [op for op in allowed_ops.COMPUTING if any(part in op for part in suspects)] == []
