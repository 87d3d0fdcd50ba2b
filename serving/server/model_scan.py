"""SavedModels are programs: what one may do is looked at before it is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serving.server import errors
from serving.server.allowed_ops import (
    COMPUTING,
    EXAMPLE_PARSERS,
    RESTORING,
    SAVING,
    TABLE_INITIALISERS,
)
from serving.server.graph_places import GraphPlaces, Node, Place

SERVE_TAG = "serve"
"""Tag of the graph that servers load."""

_GRAPH_FILE = "saved_model.pb"
_OTHER_GRAPH_FILES = ("saved_model.pbtxt", "saved_model.cpb")


def scan_model(directory: Path) -> GraphPlaces | None:
    """Refuses a model that can do more than compute on what it is sent.

    Every node of the main graphs and of their functions must be on the allow-list of
    `serving.server.allowed_ops`: no file, process or network. Files are read in two places only:
    the model's own assets by table initialisers, the model's own checkpoint by the saver. What is
    parsed as tf.Examples has to be an input of a signature, as it is.

    Args:
        directory: Directory of the version, with a ``saved_model.pb``.

    Returns:
        The graph tagged `SERVE_TAG`; None without one, which the loader refuses.

    Raises:
        StatusError: PERMISSION_DENIED names the operation and the node; DATA_LOSS if the graph does
            not parse.
    """
    for name in _OTHER_GRAPH_FILES:
        if (directory / name).exists():
            raise errors.refused_file(name, f"{_GRAPH_FILE} is the graph that is looked at")
    served = None
    for meta_graph in read_saved_model(directory).meta_graphs:
        _check_assets(directory, meta_graph)
        graph = GraphPlaces(meta_graph)
        for node, reason in _refused_nodes(graph):
            raise errors.refused_op(node.proto.op, node.proto.name, node.function, reason)
        if SERVE_TAG in meta_graph.meta_info_def.tags:
            served = graph
    return served


def read_saved_model(directory: Path) -> Any:
    """Parses the SavedModel message of a directory.

    Raises:
        StatusError: DATA_LOSS if it does not parse.
    """
    # Not above: `serving.server.runtime` sets what TensorFlow reads when it is first imported.
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        return saved_model_pb2.SavedModel.FromString((directory / _GRAPH_FILE).read_bytes())
    except OSError as error:
        raise errors.status_of(error) from None
    except Exception:  # protobuf's DecodeError differs between its implementations
        raise errors.unparsable_saved_model(_GRAPH_FILE) from None


def _refused_nodes(graph: GraphPlaces) -> Iterator[tuple[Node, str]]:
    """Yields the nodes that no server may load, each with the reason."""
    for node in graph.nodes():
        if node.proto.op not in COMPUTING and (reason := _reason(graph, node)):
            yield node, reason


def _reason(graph: GraphPlaces, node: Node) -> str:
    """Returns why a node that does more than compute is refused; empty where it has its place."""
    op = node.proto.op
    if op in TABLE_INITIALISERS:
        if node.places != {Place.INITIALISER}:
            return "tables are filled by the model's initialiser only"
        if not graph.reads_own_asset(node, 1):
            return "a table may be filled from the model's own assets only"
        return ""
    if op in RESTORING:
        if node.places != {Place.RESTORE}:
            return "the saver alone restores"
        if not graph.reads_checkpoint(node, 0):
            return "the saver may read the model's own checkpoint only"
        return ""
    if op in EXAMPLE_PARSERS:
        if graph.taken_from_inputs(node, 0) is None:
            return "only inputs of signatures may be parsed, as they are: those can be checked"
        return ""
    if op in SAVING and node.places == {Place.SAVE}:
        return ""
    return "it is not on the allow-list"


def _check_assets(directory: Path, meta_graph: Any) -> None:
    """The loader joins paths as they are: an asset could be any file."""
    assets = (directory / "assets").resolve()
    for asset in meta_graph.asset_file_def:
        path = (directory / "assets" / asset.filename).resolve()
        if not path.is_relative_to(assets) or not assets.is_relative_to(directory.resolve()):
            raise errors.refused_file(repr(asset.filename), "an asset is a file under assets/")
