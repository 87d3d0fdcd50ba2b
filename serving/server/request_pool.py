"""The threads that work on requests, and what happens when more come than they can take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from serving.api import services
from serving.server import errors
from serving.server.metrics import ServerMetrics

_PREDICTIONS = {
    method.path: method.name
    for method in (
        services.PREDICT,
        services.CLASSIFY,
        services.REGRESS,
        services.MULTI_INFERENCE,
        services.GET_MODEL_METADATA,
    )
}
_REFLECTION = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"
_QUESTIONS = (f"/{health.SERVICE_NAME}/Check", services.GET_MODEL_STATUS.path)


class RequestPool(ThreadPoolExecutor):
    """A thread pool that knows how many requests it has not finished.

    Args:
        num_threads: How many requests are worked on at once.
        max_queued: How many more may wait.

    Attributes:
        is_closing: Whether no further prediction should be taken, because the server is to stop.
    """

    def __init__(self, num_threads: int, max_queued: int) -> None:
        super().__init__(num_threads, thread_name_prefix="request")
        self._most = num_threads + max_queued
        self._num_unfinished = 0
        self._count_lock = threading.Lock()
        self.is_closing = False

    @property
    def is_full(self) -> bool:
        """Whether no further request should be taken."""
        return self._num_unfinished >= self._most

    @property
    def is_idle(self) -> bool:
        """Whether no request is worked on or waits."""
        return self._num_unfinished == 0

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


class _InPlace(ThreadPoolExecutor):
    """Runs what it is given at once, in the thread that gives it; for what does not fail."""

    def __init__(self) -> None:
        super().__init__(1)
        self._done: Future[Any] = Future()
        self._done.set_result(None)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs a function; its future is done."""
        fn(*args, **kwargs)
        return self._done


class ShedOverload(grpc.ServerInterceptor):
    """Refuses predictions with UNAVAILABLE while the pool is full, or about to close.

    A refusal has to be quick, or refusing costs what answering would: it is sent from the thread
    that saw the call arrive, before the request's message is read. So it comes within the call's
    deadline. Health checks and GetModelStatus are answered by threads apart from the pool, so that
    an overloaded server is not taken for a dead one. Reflection, whose callers hold a thread as
    long as they please, has one of its own.

    Args:
        pool: The server's pool.
        metrics: Where refusals are counted.
    """

    def __init__(self, pool: RequestPool, metrics: ServerMetrics) -> None:
        self._pool = pool
        self._metrics = metrics
        self._apart = ThreadPoolExecutor(2, thread_name_prefix="apart")
        self._reflection = ThreadPoolExecutor(1, thread_name_prefix="reflection")
        self._no_room = _refusal(errors.overloaded())
        self._stopping = _refusal(errors.stopping())

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        """Chooses the handler of a call; gRPC asks before the call is queued."""
        method = handler_call_details.method
        if method in _PREDICTIONS and (self._pool.is_full or self._pool.is_closing):
            self._metrics.count_refused(_PREDICTIONS[method], grpc.StatusCode.UNAVAILABLE.name)
            return self._stopping if self._pool.is_closing else self._no_room
        handler = continuation(handler_call_details)
        if handler and method in _QUESTIONS:
            return self._run_apart(handler)
        return self._reflect(handler) if handler and method == _REFLECTION else handler

    def shutdown(self) -> None:
        """Ends its threads."""
        self._apart.shutdown(wait=False)
        self._reflection.shutdown(wait=False)

    def _run_apart(self, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            return handler.unary_unary(request, context)

        answer.experimental_thread_pool = self._apart  # type: ignore[attr-defined]
        return grpc.unary_unary_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )

    def _reflect(self, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        def answer(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            found: Iterator[Any] = handler.stream_stream(requests, context)
            return found

        answer.experimental_thread_pool = self._reflection  # type: ignore[attr-defined]
        return grpc.stream_stream_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )


def _refusal(failure: errors.StatusError) -> grpc.RpcMethodHandler:
    def refuse(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.set_code(failure.code)
        context.set_details(failure.message)
        return iter(())

    # gRPC's own, experimental, way to choose a pool for a method. Without it refusals, and answers
    # that are given apart, would wait for their turn: late, but the same.
    refuse.experimental_thread_pool = _InPlace()  # type: ignore[attr-defined]
    # As streams: gRPC reads a single request before it calls the method, and a stream of no answers
    # ends with a status alone, without the cost of raising an error.
    return grpc.stream_stream_rpc_method_handler(refuse)
