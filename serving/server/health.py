"""gRPC health that follows the models' real state, and reflection."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from serving.api import messages, services

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The health service: SERVING for ``''`` and PredictionService while models are available.

    ModelService reports SERVING as long as the server runs, since it tells why a model is not.
    """

    def __init__(self) -> None:
        self._servicer = health.HealthServicer()
        self._servicer.set(services.MODEL_SERVICE, _SERVING)
        self.follow(False)

    def add_to(self, server: grpc.Server) -> None:
        """Adds the service to a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def follow(self, are_available: bool) -> None:
        """Reports whether the models are available."""
        status = _SERVING if are_available else _NOT_SERVING
        self._servicer.set(health.OVERALL_HEALTH, status)
        self._servicer.set(services.PREDICTION_SERVICE, status)

    def drain(self) -> None:
        """Reports NOT_SERVING for good."""
        self._servicer.enter_graceful_shutdown()


class _Pools:
    """Looks descriptors up in the API's private pool, then in protobuf's default pool."""

    def __getattr__(self, method: str) -> Any:
        def look_up(*args: Any) -> Any:
            try:
                return getattr(messages.POOL, method)(*args)
            except KeyError:
                return getattr(descriptor_pool.Default(), method)(*args)

        return look_up


def enable_reflection(server: grpc.Server) -> None:
    """Lets tools such as grpcurl list and describe the server's services."""
    names = (
        services.PREDICTION_SERVICE,
        services.MODEL_SERVICE,
        health.SERVICE_NAME,
        reflection.SERVICE_NAME,
    )
    reflection.enable_server_reflection(names, server, pool=_Pools())
