"""The threads that work on requests, and what happens when more come than they can take."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc

from serving.api import services
from serving.server import errors

_SHEDDABLE = tuple(
    f"/{service}/" for service in (services.PREDICTION_SERVICE, services.MODEL_SERVICE)
)


class RequestPool(ThreadPoolExecutor):
    """A thread pool that knows how many requests it has not finished.

    Args:
        num_threads: How many requests are worked on at once.
        max_queued: How many more may wait.
    """

    def __init__(self, num_threads: int, max_queued: int) -> None:
        super().__init__(num_threads, thread_name_prefix="request")
        self._most = num_threads + max_queued
        self._num_unfinished = 0
        self._count_lock = threading.Lock()

    @property
    def is_full(self) -> bool:
        """Whether no further request should be taken."""
        return self._num_unfinished >= self._most

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Takes a request, full or not; see `is_full`."""
        with self._count_lock:
            self._num_unfinished += 1
        try:
            future = super().submit(fn, *args, **kwargs)
        except RuntimeError:  # shut down
            self._finished()
            raise
        future.add_done_callback(self._finished)
        return future

    def _finished(self, _: Future[Any] | None = None) -> None:
        with self._count_lock:
            self._num_unfinished -= 1


class ShedOverload(grpc.ServerInterceptor):
    """Refuses calls with UNAVAILABLE while the pool is full. Health and reflection always answer.

    A refused call is answered at once, by a thread of its own, and so within its deadline; if it
    waited its turn like the others, what it asked for could be computed as well.

    Args:
        pool: The server's pool.
    """

    def __init__(self, pool: RequestPool) -> None:
        self._pool = pool
        self._refusers = ThreadPoolExecutor(1, thread_name_prefix="refuse")

        def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
            failure = errors.overloaded()
            context.abort(failure.code, failure.message)
            raise AssertionError("abort raises")

        # gRPC's own, experimental, way to choose a pool for a method. Without it a refusal would
        # wait for its turn: late, but still a refusal.
        refuse.experimental_thread_pool = self._refusers  # type: ignore[attr-defined]
        self._refusal = grpc.unary_unary_rpc_method_handler(refuse)

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        """Chooses the handler of a call; gRPC asks before the call is queued."""
        if self._pool.is_full and handler_call_details.method.startswith(_SHEDDABLE):
            return self._refusal
        return continuation(handler_call_details)

    def shutdown(self) -> None:
        """Ends its thread."""
        self._refusers.shutdown(wait=False)
