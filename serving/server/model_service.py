"""TF Serving's ModelService."""

from __future__ import annotations

from typing import Any

import grpc

from serving.api import services
from serving.api.messages import GetModelStatusResponse
from serving.server import errors
from serving.server.metrics import ServerMetrics
from serving.server.models import ServedModels
from serving.server.rpc import Call, method_handler


class ModelService:
    """GetModelStatus; HandleReloadConfigRequest answers UNIMPLEMENTED.

    Args:
        models: The models to report on.
    """

    def __init__(self, models: ServedModels) -> None:
        self._models = models

    def handler(self, metrics: ServerMetrics) -> grpc.GenericRpcHandler:
        """Returns the service for a gRPC server."""
        handlers = {
            services.GET_MODEL_STATUS: self.get_model_status,
            services.HANDLE_RELOAD_CONFIG_REQUEST: self.handle_reload_config_request,
        }
        return grpc.method_handlers_generic_handler(
            services.MODEL_SERVICE,
            {
                method.name: method_handler(method, handler, metrics)
                for method, handler in handlers.items()
            },
        )

    def get_model_status(self, request: Any, call: Call) -> Any:
        """Answers a GetModelStatusRequest."""
        if not request.HasField("model_spec"):
            raise errors.missing_model_spec()
        response = GetModelStatusResponse()
        for status in self._models.statuses(request.model_spec, call):
            reported = response.model_version_status.add(
                version=status.version, state=int(status.state)
            )
            reported.status.SetInParent()
            if status.error is not None:
                reported.status.error_code = status.error.code.value[0]
                reported.status.error_message = errors.truncated(status.error.message)
        return response

    def handle_reload_config_request(self, request: Any, call: Call) -> Any:
        """Refuses: the models of this server are set when it starts."""
        raise errors.not_offered(
            "HandleReloadConfigRequest",
            "push a new version into the base path, or restart the server",
        )
