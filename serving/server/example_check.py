"""tf.Examples that came as bytes are parsed before TensorFlow sees them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from serving.api.messages import message_class
from serving.server import errors
from serving.server.allowed_ops import EXAMPLE_PARSERS
from serving.server.graph_places import GraphPlaces


def example_inputs(graph: GraphPlaces) -> dict[str, Any]:
    """Returns which inputs of signatures a graph parses: by their nodes, the message classes.

    Args:
        graph: The graph of a model that has passed `serving.server.model_scan`.
    """
    return {
        name: message_class(EXAMPLE_PARSERS[node.proto.op])
        for node in graph.requested_nodes()
        if node.proto.op in EXAMPLE_PARSERS
        for name in graph.taken_from_inputs(node, 0) or ()
    }


def check_examples(rows: Iterable[bytes], message: Any) -> None:
    """Checks that every row is a message.

    TensorFlow parses examples with code of its own, which now and then crashes the process on bytes
    that are no message (seen with 2.21 within 35,000 damaged requests).

    Args:
        rows: The bytes.
        message: The message class, tf.Example or tf.SequenceExample.

    Raises:
        StatusError: INVALID_ARGUMENT, without quoting the row.
    """
    for row in rows:
        try:
            message.FromString(row)
        except Exception:  # protobuf's DecodeError, whichever implementation is installed
            raise errors.malformed_example(message.DESCRIPTOR.name) from None
