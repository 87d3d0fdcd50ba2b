"""TF Serving's PredictionService."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from serving.api import services
from serving.api.messages import GetModelMetadataResponse, SignatureDefMap
from serving.server import errors
from serving.server.access import Access
from serving.server.call import Call
from serving.server.examples import run_classify, run_multi_inference, run_regress
from serving.server.limits import Limits
from serving.server.metrics import ServerMetrics
from serving.server.models import ServedModels
from serving.server.predict import run_predict
from serving.server.rpc import Handler, method_handler
from serving.server.runtime import LoadedModel
from serving.server.versions import Handle

_SIGNATURE_DEF = "signature_def"

_Run = Callable[[LoadedModel, Any, Call, Limits], Any]


class PredictionService:
    """Predict, Classify, Regress, MultiInference and GetModelMetadata.

    Args:
        models: The models to answer for.
        limits: How large a request may be.
        access: Who may ask.
    """

    def __init__(self, models: ServedModels, limits: Limits, access: Access) -> None:
        self._models = models
        self._limits = limits
        self._access = access

    def handler(self, metrics: ServerMetrics) -> grpc.GenericRpcHandler:
        """Returns the service for a gRPC server."""
        handlers: dict[services.Method, Handler] = {
            services.PREDICT: self.predict,
            services.CLASSIFY: self.classify,
            services.REGRESS: self.regress,
            services.MULTI_INFERENCE: self.multi_inference,
            services.GET_MODEL_METADATA: self.get_model_metadata,
        }
        return grpc.method_handlers_generic_handler(
            services.PREDICTION_SERVICE,
            {
                method.name: method_handler(method, handler, metrics)
                for method, handler in handlers.items()
            },
        )

    def predict(self, request: Any, call: Call) -> Any:
        """Answers a PredictRequest."""
        return self._infer(run_predict, request, call)

    def check(self, call: Call) -> None:
        """Checks that the caller may ask.

        Raises:
            StatusError: UNAUTHENTICATED.
        """
        self._access.check(call)

    def predict_on(self, handle: Handle[LoadedModel], request: Any, call: Call) -> Any:
        """Answers a PredictRequest with a version that the caller holds."""
        response = run_predict(handle.runtime, request, call, self._limits)
        response.model_spec.version.value = handle.version
        return response

    def classify(self, request: Any, call: Call) -> Any:
        """Answers a ClassificationRequest."""
        return self._infer(run_classify, request, call)

    def regress(self, request: Any, call: Call) -> Any:
        """Answers a RegressionRequest."""
        return self._infer(run_regress, request, call)

    def multi_inference(self, request: Any, call: Call) -> Any:
        """Answers a MultiInferenceRequest; the first task says which version answers all."""
        self._access.check(call)
        if not request.tasks or not request.tasks[0].HasField("model_spec"):
            raise errors.missing_model_spec()
        with self._models.acquire(request.tasks[0].model_spec, call) as handle:
            response = run_multi_inference(handle.runtime, request, call, self._limits)
            for result in response.results:
                result.model_spec.version.value = handle.version
        return response

    def _infer(self, run: _Run, request: Any, call: Call) -> Any:
        self._access.check(call)
        if not request.HasField("model_spec"):
            raise errors.missing_model_spec()
        with self._models.acquire(request.model_spec, call) as handle:
            response = run(handle.runtime, request, call, self._limits)
            response.model_spec.version.value = handle.version
        return response

    def get_model_metadata(self, request: Any, call: Call) -> Any:
        """Answers a GetModelMetadataRequest."""
        self._access.check(call)
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
