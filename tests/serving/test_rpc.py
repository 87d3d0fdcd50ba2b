"""The frame around every method: late requests, faults of the server, and what is logged."""

from __future__ import annotations

import logging

import grpc
import pytest

from serving.api import messages, services
from serving.server import errors
from serving.server.metrics import ServerMetrics
from serving.server.rpc import method_handler

SECRET = "value from a request"


class Aborted(Exception):
    pass


class Context:
    """What of grpc.ServicerContext is used."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.status: tuple[grpc.StatusCode, str] | None = None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", "Bearer token"),)

    def time_remaining(self) -> float | None:
        return self.seconds

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.status = (code, details)
        raise Aborted


def answer(handler, *, seconds: float | None = 1.0, content: bytes = b""):
    context = Context(seconds)
    metrics = ServerMetrics()
    serve = method_handler(services.PREDICT, handler, metrics).unary_unary
    with pytest.raises(Aborted):
        serve(content, context)
    assert context.status is not None
    labels = {
        "model_name": "", "version": "", "API": "Predict", "status": context.status[0].name
    }  # fmt: skip
    count = metrics.registry.get_sample_value(":tensorflow:serving:request_count", labels)
    assert count == 1
    return context.status


def test_a_request_whose_deadline_passed_in_the_queue_is_not_run() -> None:
    ran = []
    code, _ = answer(lambda request, call: ran.append(request), seconds=0.0)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not ran


def test_the_deadline_reaches_the_method() -> None:
    seen = []

    def handler(request, call):
        seen.append((call.seconds_left, call.token))
        return messages.PredictResponse()

    serve = method_handler(services.PREDICT, handler, ServerMetrics()).unary_unary
    serve(b"", Context(0.5))
    serve(b"", Context(None))
    (limited, token), (unlimited, _) = seen
    assert 0.4 < limited <= 0.5
    assert unlimited is None
    assert token == "token"


def test_unforeseen_faults_are_internal_and_keep_their_text(caplog) -> None:
    def handler(request, call):
        raise KeyError(SECRET)

    with caplog.at_level(logging.DEBUG):
        code, details = answer(handler)
    assert code is grpc.StatusCode.INTERNAL
    assert SECRET not in details
    assert "KeyError" in details
    assert "KeyError" in caplog.text
    assert "test_rpc.py" in caplog.text  # the place, for whoever has to mend it
    assert SECRET not in caplog.text


def test_faults_of_the_caller_are_told_to_the_caller_and_not_logged(caplog) -> None:
    def handler(request, call):
        raise errors.StatusError(grpc.StatusCode.INVALID_ARGUMENT, SECRET)

    with caplog.at_level(logging.DEBUG):
        assert answer(handler) == (grpc.StatusCode.INVALID_ARGUMENT, SECRET)
    assert SECRET not in caplog.text


def test_bytes_that_do_not_parse() -> None:
    code, _ = answer(lambda request, call: None, content=b"\xff\xff")
    assert code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (FileNotFoundError("x"), grpc.StatusCode.NOT_FOUND),
        (OSError("x"), grpc.StatusCode.DATA_LOSS),
        (ZeroDivisionError(), grpc.StatusCode.INTERNAL),
    ],
)
def test_codes_of_exceptions(error, code) -> None:
    assert errors.status_of(error).code is code
