"""The API's services: their methods, and stubs for a channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from serving.api import messages


@dataclass(frozen=True)
class Method:
    """One unary method of a service.

    Attributes:
        service: Full name of the service.
        name: Name of the method.
        request: Message class of the request.
        response: Message class of the response.
    """

    service: str
    name: str
    request: Any
    response: Any

    @property
    def path(self) -> str:
        """The path of the method in gRPC, ``/service/name``."""
        return f"/{self.service}/{self.name}"

    def bind(self, channel: grpc.Channel) -> Callable[..., Any]:
        """Returns a callable ``(request, timeout=seconds) -> response`` on `channel`."""
        call: Callable[..., Any] = channel.unary_unary(
            self.path,
            request_serializer=self.request.SerializeToString,
            response_deserializer=self.response.FromString,
        )
        return call


PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

PREDICT = Method(PREDICTION_SERVICE, "Predict", messages.PredictRequest, messages.PredictResponse)
CLASSIFY = Method(
    PREDICTION_SERVICE,
    "Classify",
    messages.ClassificationRequest,
    messages.ClassificationResponse,
)
REGRESS = Method(
    PREDICTION_SERVICE, "Regress", messages.RegressionRequest, messages.RegressionResponse
)
MULTI_INFERENCE = Method(
    PREDICTION_SERVICE,
    "MultiInference",
    messages.MultiInferenceRequest,
    messages.MultiInferenceResponse,
)
GET_MODEL_METADATA = Method(
    PREDICTION_SERVICE,
    "GetModelMetadata",
    messages.GetModelMetadataRequest,
    messages.GetModelMetadataResponse,
)
GET_MODEL_STATUS = Method(
    MODEL_SERVICE,
    "GetModelStatus",
    messages.GetModelStatusRequest,
    messages.GetModelStatusResponse,
)
HANDLE_RELOAD_CONFIG_REQUEST = Method(
    MODEL_SERVICE,
    "HandleReloadConfigRequest",
    messages.ReloadConfigRequest,
    messages.ReloadConfigResponse,
)
