"""TF Serving's ModelService."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from serving.api import services
from serving.api.messages import GetModelStatusResponse, ReloadConfigResponse
from serving.server import errors
from serving.server.access import Access
from serving.server.call import Call
from serving.server.metrics import ServerMetrics
from serving.server.model_config import check_allowed, model_configs
from serving.server.models import ServedModels
from serving.server.rpc import method_handler


class ModelService:
    """GetModelStatus and HandleReloadConfigRequest.

    Args:
        models: The models to report on.
        access: Who may ask.
        allowed_roots: Directories beneath which the base paths of a reload may lie.
        may_reload: Whether configurations are taken at all.
    """

    def __init__(
        self,
        models: ServedModels,
        access: Access,
        allowed_roots: Sequence[Path],
        *,
        may_reload: bool = True,
    ) -> None:
        self._models = models
        self._access = access
        self._allowed_roots = allowed_roots
        self._may_reload = may_reload

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
        self._access.check(call)
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
        """Answers a ReloadConfigRequest: all of it is applied, or nothing.

        A refusal is the call's status, and nothing has changed.
        """
        self._access.check_admin(call)
        if not self._may_reload:
            raise errors.reload_not_permitted(
                "with several worker processes, change the models by restarting the server"
            )
        if request.config.WhichOneof("config") != "model_config_list":
            raise errors.not_a_config_list()
        configs = model_configs(request.config.model_config_list)
        for config in configs:
            check_allowed(config.base_path, self._allowed_roots)
        self._models.reload(configs, call.seconds_left)
        response = ReloadConfigResponse()
        response.status.SetInParent()
        return response
