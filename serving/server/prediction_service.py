"""TF Serving's PredictionService."""

from __future__ import annotations

from typing import Any

import grpc

from serving.api import services
from serving.api.messages import GetModelMetadataResponse, SignatureDefMap
from serving.server import errors
from serving.server.metrics import ServerMetrics
from serving.server.models import ServedModels
from serving.server.predict import run_predict
from serving.server.rpc import Call, Handler, method_handler

_SIGNATURE_DEF = "signature_def"


class PredictionService:
    """Predict and GetModelMetadata; the other methods answer UNIMPLEMENTED.

    Args:
        models: The models to answer for.
        max_tensor_bytes: Most memory to build a request's input tensors in.
    """

    def __init__(self, models: ServedModels, max_tensor_bytes: int) -> None:
        self._models = models
        self._max_tensor_bytes = max_tensor_bytes

    def handler(self, metrics: ServerMetrics) -> grpc.GenericRpcHandler:
        """Returns the service for a gRPC server."""
        handlers: dict[services.Method, Handler] = {
            services.PREDICT: self.predict,
            services.GET_MODEL_METADATA: self.get_model_metadata,
        }
        for method in (services.CLASSIFY, services.REGRESS, services.MULTI_INFERENCE):
            handlers[method] = _not_offered(method)
        return grpc.method_handlers_generic_handler(
            services.PREDICTION_SERVICE,
            {
                method.name: method_handler(method, handler, metrics)
                for method, handler in handlers.items()
            },
        )

    def predict(self, request: Any, call: Call) -> Any:
        """Answers a PredictRequest."""
        if not request.HasField("model_spec"):
            raise errors.missing_model_spec()
        with self._models.acquire(request.model_spec, call) as handle:
            return run_predict(
                handle.runtime,
                request,
                version=handle.version,
                timeout_seconds=call.deadline_seconds,
                max_tensor_bytes=self._max_tensor_bytes,
            )

    def get_model_metadata(self, request: Any, call: Call) -> Any:
        """Answers a GetModelMetadataRequest."""
        if not request.HasField("model_spec"):
            raise errors.missing_model_spec()
        if not request.metadata_field:
            raise errors.no_metadata_field()
        for field in request.metadata_field:
            if field != _SIGNATURE_DEF:
                raise errors.unknown_metadata_field(field)
        response = GetModelMetadataResponse()
        with self._models.acquire(request.model_spec, call) as handle:
            response.model_spec.name = request.model_spec.name
            response.model_spec.version.value = handle.version
            signatures = SignatureDefMap()
            for name, definition in handle.runtime.signature_defs.items():
                signatures.signature_def[name].CopyFrom(definition)
        response.metadata[_SIGNATURE_DEF].Pack(signatures)
        return response


def _not_offered(method: services.Method) -> Handler:
    def refuse(request: Any, call: Call) -> Any:
        raise errors.not_offered(method.name, "use Predict with the signature's name")

    return refuse
