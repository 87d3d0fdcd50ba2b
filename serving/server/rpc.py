"""One way for every method: parse, run, map failures to codes, measure, serialize."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from serving.api.services import Method
from serving.server import errors
from serving.server.access import bearer_token
from serving.server.call import Call
from serving.server.metrics import ServerMetrics

_LOG = logging.getLogger(__name__)
T = TypeVar("T")


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

    def parse_and_answer(content: bytes, call: Call) -> bytes:
        try:
            request = method.request.FromString(content)
        except Exception:  # protobuf's DecodeError, whichever implementation is installed
            raise errors.unparsable_request() from None
        answer: bytes = handler(request, call).SerializeToString()
        return answer

    def serve(content: bytes, context: grpc.ServicerContext) -> bytes:
        seconds = context.time_remaining()
        call = Call(
            deadline=None if seconds is None else time.monotonic() + seconds,
            token=bearer_token(_authorization(context)),
        )
        try:
            return answer_call(method.name, lambda: parse_and_answer(content, call), call, metrics)
        except errors.StatusError as failure:
            context.abort(failure.code, errors.truncated(failure.message))
            raise AssertionError("abort raises") from None

    return grpc.unary_unary_rpc_method_handler(serve)


def answer_call(name: str, run: Callable[[], T], call: Call, metrics: ServerMetrics) -> T:
    """Answers a call and counts it, however it came.

    Args:
        name: The method's name.
        run: Answers, or raises.
        call: The call that it is.
        metrics: Where it is counted.

    Raises:
        StatusError: The call has no answer. Only the caller may see its text.
    """
    start = time.perf_counter()
    code = "OK"
    try:
        if call.deadline is not None and call.deadline <= time.monotonic():
            raise errors.deadline_passed()
        return run()
    except Exception as error:
        failure = errors.status_of(error)
        code = failure.code.name
        _log(name, call, failure, error)
        raise failure from None
    finally:
        metrics.observe(call, method=name, code=code, seconds=time.perf_counter() - start)


def _authorization(context: grpc.ServicerContext) -> str:
    for key, value in context.invocation_metadata():
        if key == "authorization":
            return str(value)
    return ""


def _log(method: str, call: Call, failure: errors.StatusError, error: Exception) -> None:
    """Logs server faults with the place in the code, never with a value from the request."""
    if failure.code is not grpc.StatusCode.INTERNAL:
        return
    place = "".join(traceback.format_tb(error.__traceback__))
    _LOG.error(
        "%s of model %r version %r failed: %s\n%s",
        method,
        call.model,
        call.version,
        type(error).__name__,
        place,
    )
