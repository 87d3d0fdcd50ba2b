"""Whether the model servers that polyrank deploys on can load and hold an exported model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.spec.keys import DEFINITIONS
from serving.api.messages import DATA_TYPE_NAMES, DATA_TYPES
from serving.deploy.release import TF_SERVING, ServingRelease
from serving.server.errors import StatusError
from serving.server.model_scan import read_saved_model, scan_model

_VERSIONS_DURING_A_SWAP = 2


def export_problems(
    directory: Path, *, memory_bytes: int | None, release: ServingRelease = TF_SERVING
) -> list[str]:
    """Returns why a model cannot be pushed; empty for one that can.

    Args:
        directory: The SavedModel.
        memory_bytes: Memory that a server has for the model, on its GPU or host; None for no
            limit. Two versions are loaded during a swap, so a model may take half of it.
        release: The TF Serving to load it.
    """
    try:
        saved_model = read_saved_model(directory)
        scan_model(directory)
    except StatusError as error:
        return [f"no server would load it: {error.message}"]
    problems = []
    for meta_graph in saved_model.meta_graphs:
        problems += [
            *_version_problems(meta_graph.graph_def.versions, release),
            *_op_problems(meta_graph.graph_def, release),
            *_output_problems(meta_graph.signature_def),
        ]
    return [*problems, *_size_problems(directory, memory_bytes)]


def model_bytes(directory: Path) -> int:
    """Returns the size of what a server reads into memory: graph, variables and assets.

    A table of strings takes more in memory than the file of its vocabulary.
    """
    parts = [directory / "saved_model.pb"]
    parts += [p for name in ("variables", "assets") for p in (directory / name).rglob("*")]
    return sum(part.stat().st_size for part in parts if part.is_file())


def _version_problems(versions: Any, release: ServingRelease) -> Iterator[str]:
    what = f"TensorFlow {release.tensorflow} of TF Serving {release.version}"
    if versions.min_consumer > release.graph_version:
        yield (
            f"the graph asks for a reader of version {versions.min_consumer}; {what} has "
            f"{release.graph_version}; remedy: export with an older TensorFlow"
        )
    if release.graph_version in versions.bad_consumers:
        yield (
            f"the graph excludes readers of version {release.graph_version}, and {what} is one; "
            "remedy: export with another TensorFlow"
        )
    if versions.producer > release.newest_producer:
        yield (
            f"the graph's producer has version {versions.producer}; operations are compared with "
            f"those of {what} up to {release.newest_producer}; remedy: compare them and bring "
            "serving/deploy/release.py up to date, or export with an older TensorFlow"
        )


def _op_problems(graph: Any, release: ServingRelease) -> Iterator[str]:
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    for node in nodes:
        unknown = {f"operation {node.op}": release.unknown_ops.get(node.op)}
        for name in node.attr:
            reason = release.unknown_attributes.get((node.op, name))
            unknown[f"attribute {name} of operation {node.op}"] = reason
        for what, reason in unknown.items():
            if reason is not None:
                yield (
                    f"{what} (node {node.name!r}) is unknown to TensorFlow {release.tensorflow} "
                    f"of TF Serving {release.version}: {reason}"
                )


def _output_problems(signatures: Any) -> Iterator[str]:
    for name, signature in sorted(signatures.items()):
        for output, info in sorted(signature.outputs.items()):
            # The loader's initialiser is listed among the signatures; it has no tensor.
            told = name == DEFINITIONS and info.dtype == DATA_TYPES["DT_STRING"]
            if name.startswith("__") or told or info.dtype == DATA_TYPES["DT_FLOAT"]:
                continue
            yield (
                f"output {output!r} of signature {name!r} is "
                f"{DATA_TYPE_NAMES.get(info.dtype, '?').removeprefix('DT_').lower()}; expected "
                "float32, which every client reads; remedy: cast it when exporting"
            )


def _size_problems(directory: Path, memory_bytes: int | None) -> Iterator[str]:
    size = model_bytes(directory)
    if memory_bytes is not None and size * _VERSIONS_DURING_A_SWAP > memory_bytes:
        yield (
            f"the model has {size} bytes and a server {memory_bytes} for it; expected at most half "
            "of that, because two versions are loaded during a swap; remedy: smaller embedding "
            "tables (dimension, min_count, buckets), or raise push.memory_bytes"
        )
