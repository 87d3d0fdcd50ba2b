"""One way for every method: parse, run, map failures to codes, measure, serialize."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from serving.api.services import Method
from serving.server import errors
from serving.server.metrics import ServerMetrics

_LOG = logging.getLogger(__name__)


@dataclass
class Call:
    """What a method may know of its call, and what it says about it.

    Attributes:
        deadline_seconds: Time left until the caller gives up; None without a deadline.
        model: Set by the method to the served model that it resolved, for the metrics.
        version: Likewise the version.
    """

    deadline_seconds: float | None
    model: str = ""
    version: str = ""


Handler = Callable[[Any, Call], Any]


def method_handler(
    method: Method, handler: Handler, metrics: ServerMetrics
) -> grpc.RpcMethodHandler:
    """Wraps a method for gRPC.

    The request arrives as bytes, so that bytes that do not parse are the caller's fault
    (INVALID_ARGUMENT); gRPC itself would report its own (INTERNAL).

    Args:
        method: The method.
        handler: Answers a request message, or raises; a `StatusError` names its code.
        metrics: Where calls are counted.
    """

    def serve(content: bytes, context: grpc.ServicerContext) -> bytes:
        start = time.perf_counter()
        call = Call(context.time_remaining())
        failure: errors.StatusError | None = None
        answer = b""
        try:
            answer = _answer(method, handler, content, call)
        except Exception as error:
            failure = errors.status_of(error)
            _log(method, call, failure, error)
        metrics.observe(
            model=call.model,
            version=call.version,
            method=method.name,
            code="OK" if failure is None else failure.code.name,
            latency_us=(time.perf_counter() - start) * 1e6,
        )
        if failure is not None:
            context.abort(failure.code, errors.truncated(failure.message))
        return answer

    return grpc.unary_unary_rpc_method_handler(serve)


def _answer(method: Method, handler: Handler, content: bytes, call: Call) -> bytes:
    if call.deadline_seconds is not None and call.deadline_seconds <= 0:
        raise errors.deadline_passed()
    try:
        request = method.request.FromString(content)
    except Exception:  # protobuf's DecodeError, whichever implementation is installed
        raise errors.unparsable_request() from None
    answer: bytes = handler(request, call).SerializeToString()
    return answer


def _log(method: Method, call: Call, failure: errors.StatusError, error: Exception) -> None:
    """Logs server faults with the place in the code, never with a value from the request."""
    if failure.code is not grpc.StatusCode.INTERNAL:
        return
    place = "".join(traceback.format_tb(error.__traceback__))
    _LOG.error(
        "%s of model %r version %r failed: %s\n%s",
        method.name,
        call.model,
        call.version,
        type(error).__name__,
        place,
    )
