"""gRPC health that follows the models' real state, and reflection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from serving.api import messages, services


def health_service(model: str) -> str:
    """Returns the health service's name for one model, ``<PredictionService>/<model>``."""
    return f"{services.PREDICTION_SERVICE}/{model}"


class Health:
    """The health service.

    ``''`` and PredictionService are SERVING while every model is available, and
    `health_service` of a model while that one is. ModelService is SERVING as long as the server
    runs, since it tells why a model is not.

    Args:
        read_availability: Returns, for each model, whether it is available.
    """

    def __init__(self, read_availability: Callable[[], Mapping[str, bool]]) -> None:
        self._read_availability = read_availability
        self._lock = threading.Lock()
        self._servicer = health.HealthServicer()
        self._models: set[str] = set()
        self._set(services.MODEL_SERVICE, True)
        self.refresh()

    def add_to(self, server: grpc.Server) -> None:
        """Adds the service to a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def refresh(self) -> None:
        """Reports what is available now; call it after every change."""
        # Models change in threads of their own: without the lock, one that read early could
        # report late, and what it reports would stay.
        with self._lock:
            availability = self._read_availability()
            # A model that is served no more was, at least, asked about before.
            for model in self._models - availability.keys():
                self._set(health_service(model), False)
            self._models |= availability.keys()
            for model, is_available in availability.items():
                self._set(health_service(model), is_available)
            are_available = all(availability.values())
            self._set(services.PREDICTION_SERVICE, are_available)
            self._set(health.OVERALL_HEALTH, are_available)

    def drain(self) -> None:
        """Reports NOT_SERVING for good."""
        self._servicer.enter_graceful_shutdown()

    def _set(self, service: str, is_serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        self._servicer.set(service, status.SERVING if is_serving else status.NOT_SERVING)


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
