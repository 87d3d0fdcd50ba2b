"""The part of the transform graph that a served model needs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from models.spec.errors import PolyrankError
from models.spec.feature import Feature
from models.spec.keys import (
    TRANSFORMED_CATEGORICAL,
    TRANSFORMED_NUMERIC,
    TRANSFORMED_SEQUENCES,
)
from models.spec.ranking import RankingSpec

_PACKED = (TRANSFORMED_CATEGORICAL, TRANSFORMED_NUMERIC, TRANSFORMED_SEQUENCES)


class RequestTransform(tf.Module):
    """Applies TensorFlow Transform's graph to request features alone.

    The nodes that the packed features depend on are cut out of the saved transform graph and
    copied into the caller's: inputs are an allow-list, and no name of a label or weight comes
    along. Features of decision columns (a position) do not exist when a request is served: they
    are fixed to missing, and nothing that is served reads them.

    Args:
        transform_graph: Folder that Transform wrote.
        ranking: Declares the request features.

    Raises:
        PolyrankError: A packed feature depends on anything else.
    """

    def __init__(self, transform_graph: str, ranking: RankingSpec) -> None:
        """Cuts out the sub-graph."""
        super().__init__(name="request_transform")
        saved = os.path.join(transform_graph, tft.TFTransformOutput.TRANSFORM_FN_DIR)
        loaded = tf.saved_model.load(saved)
        # Lookup tables and the vocabulary files behind them; tracked, so that an export has them.
        self._tables = loaded.resources
        self._assets = loaded.assets
        self._features = ranking.training_features
        function = loaded.transform_fn
        graph = function.graph
        names = sorted(function.structured_input_signature[0][0])
        placeholders = dict(zip(names, function.inputs, strict=False))
        self._inputs = {f.name: placeholders[f.name].name for f in self._features}
        self._captures = [(external, internal.name) for external, internal in graph.captures]
        outputs = dict(zip(sorted(function.structured_outputs), function.outputs, strict=True))
        self._outputs = {name: outputs[name].name for name in _PACKED if name in outputs}
        self._shapes = {name: outputs[name].shape for name in self._outputs}
        self._graph_def = _sub_graph(
            graph.as_graph_def(), [_node(name) for name in self._outputs.values()]
        )
        self._refuse_other_inputs(placeholders)

    def _refuse_other_inputs(self, placeholders: Mapping[str, tf.Tensor]) -> None:
        """Every placeholder left must be a feature or a captured constant or table."""
        allowed = {_node(name) for name in self._inputs.values()}
        allowed |= {_node(name) for _, name in self._captures}
        by_node = {_node(tensor.name): name for name, tensor in placeholders.items()}
        others = sorted(
            by_node.get(node.name, node.name)
            for node in self._graph_def.node
            if node.op == "Placeholder" and node.name not in allowed
        )
        if others:
            raise PolyrankError(
                "the transformed features depend on columns that no request carries",
                constraint=f"inputs among {', '.join(sorted(self._inputs))}",
                received=", ".join(others),
                remedy="mend models/preprocessing.py: packed features may read features only",
            )

    def __call__(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Transforms.

        Args:
            features: Request features by name, dense: string or float32, [batch] or
                [batch, length].

        Returns:
            The packed features of `models.preprocessing.preprocessing_fn`.
        """
        present = next(iter(features.values()))
        num_rows = tf.shape(present)[0]
        feeds: dict[str, tf.Tensor] = {}
        for feature in self._features:
            served = feature.availability == "request"
            value = features[feature.name] if served else _missing(feature, num_rows)
            feeds[self._inputs[feature.name]] = value
        for external, name in self._captures:
            is_table = external.dtype == tf.resource
            feeds[name] = tf.identity(external) if is_table else tf.constant(external.numpy())
        used = {node.name for node in self._graph_def.node}
        results = tf.graph_util.import_graph_def(
            self._graph_def,
            input_map={name: value for name, value in feeds.items() if _node(name) in used},
            return_elements=list(self._outputs.values()),
            name="transform",
        )
        return {
            name: tf.ensure_shape(result, self._shapes[name])
            for name, result in zip(self._outputs, results, strict=True)
        }


def _node(tensor_name: str) -> str:
    return tensor_name.lstrip("^").split(":")[0]


def _sub_graph(graph_def: Any, wanted: Sequence[str]) -> Any:
    """Returns the nodes that the wanted nodes depend on, and the function library."""
    by_name = {node.name: node for node in graph_def.node}
    needed: set[str] = set()
    frontier = list(wanted)
    while frontier:
        name = frontier.pop()
        if name not in needed:
            needed.add(name)
            frontier += [_node(tensor_name) for tensor_name in by_name[name].input]
    cut = tf.compat.v1.GraphDef(library=graph_def.library, versions=graph_def.versions)
    cut.node.extend(node for node in graph_def.node if node.name in needed)
    return cut


def _missing(feature: Feature, num_rows: tf.Tensor) -> tf.Tensor:
    shape = [num_rows] if feature.length is None else [num_rows, feature.length]
    return tf.fill(shape, "" if feature.dtype == "string" else float("nan"))
