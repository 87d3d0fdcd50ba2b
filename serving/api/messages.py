"""Message classes of the TF Serving API, from stored descriptors, without TensorFlow.

The descriptors live in a pool of their own, so these classes coexist in one process with
TensorFlow's and tensorflow-serving-api's classes of the same names. Convert between the two with
``SerializeToString`` and ``FromString``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from serving.api import DESCRIPTOR_FILE


def _load_pool(path: Path) -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
        pool.Add(file)
    return pool


POOL = _load_pool(DESCRIPTOR_FILE)
"""The private descriptor pool that holds the API's files."""


def message_class(full_name: str) -> Any:
    """Returns the class of a message of the API.

    Args:
        full_name: e.g. ``tensorflow.serving.PredictRequest``.

    Raises:
        KeyError: The API has no such message.
    """
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))


ModelSpec = message_class("tensorflow.serving.ModelSpec")
PredictRequest = message_class("tensorflow.serving.PredictRequest")
PredictResponse = message_class("tensorflow.serving.PredictResponse")
ClassificationRequest = message_class("tensorflow.serving.ClassificationRequest")
ClassificationResponse = message_class("tensorflow.serving.ClassificationResponse")
RegressionRequest = message_class("tensorflow.serving.RegressionRequest")
RegressionResponse = message_class("tensorflow.serving.RegressionResponse")
MultiInferenceRequest = message_class("tensorflow.serving.MultiInferenceRequest")
MultiInferenceResponse = message_class("tensorflow.serving.MultiInferenceResponse")
GetModelMetadataRequest = message_class("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse = message_class("tensorflow.serving.GetModelMetadataResponse")
SignatureDefMap = message_class("tensorflow.serving.SignatureDefMap")
GetModelStatusRequest = message_class("tensorflow.serving.GetModelStatusRequest")
GetModelStatusResponse = message_class("tensorflow.serving.GetModelStatusResponse")
ModelVersionStatus = message_class("tensorflow.serving.ModelVersionStatus")
ReloadConfigRequest = message_class("tensorflow.serving.ReloadConfigRequest")
ReloadConfigResponse = message_class("tensorflow.serving.ReloadConfigResponse")
ModelServerConfig = message_class("tensorflow.serving.ModelServerConfig")
Example = message_class("tensorflow.Example")
Input = message_class("tensorflow.serving.Input")
ClassificationResult = message_class("tensorflow.serving.ClassificationResult")
RegressionResult = message_class("tensorflow.serving.RegressionResult")
PredictionLog = message_class("tensorflow.serving.PredictionLog")
SignatureDef = message_class("tensorflow.SignatureDef")
TensorProto = message_class("tensorflow.TensorProto")
TensorShapeProto = message_class("tensorflow.TensorShapeProto")

DATA_TYPES: dict[str, int] = {
    value.name: value.number for value in POOL.FindEnumTypeByName("tensorflow.DataType").values
}
"""TensorFlow's data types by name, e.g. ``{'DT_FLOAT': 1}``."""

DATA_TYPE_NAMES: dict[int, str] = {number: name for name, number in DATA_TYPES.items()}
"""The inverse of `DATA_TYPES`."""
