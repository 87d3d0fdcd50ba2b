"""What an exported SavedModel can see and say, read from its files without loading the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from models.spec.errors import DataError

_INITIALISERS = ("__saved_model_init_op", "__saved_model_train_op")
"""Entries of `signature_def` that are not signatures but the loader's own hooks."""

_SAVER_INPUT = "saver_filename"

_PARSE_EXAMPLE_OPS = ("ParseExample", "ParseExampleV2")
_PARSE_KEY_ATTRIBUTES = {"ParseSingleExample": ("sparse_keys", "dense_keys")}
_OPAQUE_OPS = frozenset(
    {"DecodeCSV", "DecodeRaw", "DecodePaddedRaw", "ParseTensor", "PyFunc", "EagerPyFunc"}
)
"""Operations that read inputs by position or by code that the graph does not show."""


@dataclass(frozen=True)
class Signature:
    """One signature.

    Attributes:
        inputs: Input name to dtype name (`string`, `float32`, ...).
        outputs: Output names.
        placeholders: Names of the graph nodes that feed it.
    """

    inputs: Mapping[str, str]
    outputs: frozenset[str]
    placeholders: frozenset[str]


@dataclass(frozen=True)
class Node:
    """One graph operation: where it stands (`graph` or a function's name), its name and kind."""

    graph: str
    name: str
    op: str


@dataclass(frozen=True)
class ExportedGraph:
    """The parts of a SavedModel that a leak would show in.

    Attributes:
        signatures: By name, the loader's hooks left out.
        parse_keys: tf.Example feature names that any parse operation reads.
        opaque_parsers: Parse operations whose feature names are not constants of the graph.
        nodes: Every operation of the main graphs and of the function library.
        stray_placeholders: Graph inputs that belong to no signature and are no asset's path.
        variables: Names of variables: keys of the checkpoint and shared names in the graph.
    """

    signatures: Mapping[str, Signature]
    parse_keys: frozenset[str]
    opaque_parsers: tuple[str, ...]
    nodes: tuple[Node, ...]
    stray_placeholders: tuple[str, ...]
    variables: frozenset[str]


def read_exported_graph(directory: str) -> ExportedGraph:
    """Reads `saved_model.pb` and the checkpoint's index.

    Args:
        directory: A SavedModel.

    Raises:
        DataError: There is no readable SavedModel.
    """
    path = Path(directory) / "saved_model.pb"
    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # protobuf's DecodeError differs between its implementations
        if type(error).__name__ != "DecodeError":
            raise
        raise _unreadable(path, error) from error
    if not proto.meta_graphs:
        raise _unreadable(path, "no graph")

    signatures: dict[str, Signature] = {}
    nodes: list[Node] = []
    parse_keys: set[str] = set()
    opaque: list[str] = []
    stray: list[str] = []
    variables = set(_checkpoint_names(directory))
    for meta_graph in proto.meta_graphs:
        of_this_graph = _signatures(meta_graph)
        signatures |= of_this_graph
        fed = {p for s in of_this_graph.values() for p in s.placeholders} | {_SAVER_INPUT}
        fed |= {_node_name(asset.tensor_info.name) for asset in meta_graph.asset_file_def}
        for graph, body in _bodies(meta_graph):
            by_name = {node.name: node for node in body}
            for node in body:
                nodes.append(Node(graph, node.name, node.op))
                if node.op == "VarHandleOp" and node.attr["shared_name"].s:
                    variables.add(node.attr["shared_name"].s.decode())
                if graph == "graph" and node.op.startswith("Placeholder") and node.name not in fed:
                    stray.append(node.name)
                if _is_parser(node.op):
                    keys = _parse_keys(node, by_name)
                    parse_keys |= keys or set()
                    if keys is None:
                        opaque.append(f"{graph}/{node.name} ({node.op})")
    return ExportedGraph(
        signatures,
        frozenset(parse_keys),
        tuple(opaque),
        tuple(nodes),
        tuple(stray),
        frozenset(variables),
    )


def _unreadable(path: Path, received: object) -> DataError:
    return DataError(
        f"no readable SavedModel at {path}",
        constraint="a saved_model.pb with one graph",
        received=received,
        remedy="train and export the candidate again",
    )


def _signatures(meta_graph: meta_graph_pb2.MetaGraphDef) -> dict[str, Signature]:
    return {
        name: Signature(
            {key: tf.dtypes.as_dtype(info.dtype).name for key, info in signature.inputs.items()},
            frozenset(signature.outputs),
            frozenset(_node_name(info.name) for info in signature.inputs.values()),
        )
        for name, signature in meta_graph.signature_def.items()
        if name not in _INITIALISERS
    }


def _node_name(tensor: str) -> str:
    return tensor.split(":")[0]


def _bodies(
    meta_graph: meta_graph_pb2.MetaGraphDef,
) -> Iterator[tuple[str, list[node_def_pb2.NodeDef]]]:
    graph = meta_graph.graph_def
    yield "graph", list(graph.node)
    for function in graph.library.function:
        yield function.signature.name, list(function.node_def)


def _is_parser(op: str) -> bool:
    return "Example" in op or op.startswith("DecodeProto") or op in _OPAQUE_OPS


def _parse_keys(
    node: node_def_pb2.NodeDef, by_name: Mapping[str, node_def_pb2.NodeDef]
) -> set[str] | None:
    """Returns the feature names a parse operation reads, None where they cannot be told."""
    if node.op in _PARSE_KEY_ATTRIBUTES:
        return {
            key.decode()
            for attribute in _PARSE_KEY_ATTRIBUTES[node.op]
            for key in node.attr[attribute].list.s
        }
    if node.op not in _PARSE_EXAMPLE_OPS:
        return None
    keys: set[str] = set()
    for value in _key_inputs(node):
        constant = by_name.get(value.lstrip("^").split(":")[0])
        if constant is None or constant.op != "Const":
            return None
        keys |= _strings(constant)
    return keys


def _key_inputs(node: node_def_pb2.NodeDef) -> list[str]:
    """Returns the inputs of a ParseExample or ParseExampleV2 that hold feature names."""
    inputs = [value for value in node.input if not value.startswith("^")]
    if node.op == "ParseExampleV2":
        return inputs[2:5]
    num_keys = node.attr["Nsparse"].i + node.attr["Ndense"].i
    return inputs[2 : 2 + num_keys]


def _strings(constant: node_def_pb2.NodeDef) -> set[str]:
    values: Any = tf.make_ndarray(constant.attr["value"].tensor)
    return {v.decode() if isinstance(v, bytes) else str(v) for v in np.ravel(values)}


def _checkpoint_names(directory: str) -> list[str]:
    prefix = Path(directory) / "variables" / "variables"
    if not prefix.with_suffix(".index").exists():
        return []
    return [name for name, _ in tf.train.list_variables(str(prefix))]
