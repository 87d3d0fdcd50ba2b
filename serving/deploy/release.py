"""The TF Serving release that polyrank deploys on, and what its TensorFlow can load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ServingRelease:
    """A release of TF Serving and the limits of the TensorFlow inside it.

    Attributes:
        version: Version of TF Serving, and tag of its image.
        tensorflow: Version of the TensorFlow that it is built from.
        graph_version: Graph version that this TensorFlow writes; it reads graphs whose
            `min_consumer` is at most this and that do not list it under `bad_consumers`.
        newest_producer: Newest graph version whose operations were compared with its own.
        unknown_ops: Operations of newer TensorFlows that it lacks, with the reason.
        unknown_attributes: Attributes, ``(operation, attribute)``, that it does not know. A graph
            carries one only where it differs from its default.
    """

    version: str
    tensorflow: str
    graph_version: int
    newest_producer: int
    unknown_ops: Mapping[str, str]
    unknown_attributes: Mapping[tuple[str, str], str]

    @property
    def image(self) -> str:
        """The image for CPUs."""
        return f"tensorflow/serving:{self.version}"

    @property
    def gpu_image(self) -> str:
        """The image for GPUs."""
        return f"{self.image}-gpu"


TF_SERVING = ServingRelease(
    version="2.20.0",
    tensorflow="2.20.0",
    # tensorflow.python.framework.versions.GRAPH_DEF_VERSION of 2.20.0, and of 2.21.0, whose 1,910
    # operations were compared one by one with the 1,909 of 2.20.0: names, attributes with their
    # defaults and allowed values, inputs, outputs. What differs is below, and nothing else.
    graph_version=2288,
    newest_producer=2474,
    unknown_ops={"DecodeJxl": "TensorFlow 2.21 added it"},
    unknown_attributes={
        ("TensorListGetItem", "Tshape"): "TensorFlow 2.21 added it; 2.20 reads int32 shapes only"
    },
)
