"""What a caller of a ranking service can be told, one class per gRPC status code."""

from __future__ import annotations

import grpc

from models.spec.errors import PolyrankError


class ServingError(PolyrankError):
    """A request that got no answer.

    Attributes:
        code: The gRPC status code, also for faults found before anything was sent.
        details: The server's own words, empty for faults found before sending.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    details: str = ""
    advice = "see the server's log"


class InvalidRequestError(ServingError):
    """The request does not fit the model (INVALID_ARGUMENT)."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    advice = "compare the request with RankingClient.metadata()"


class PreconditionError(ServingError):
    """The model cannot answer this now, or lacks the signature (FAILED_PRECONDITION)."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    advice = "compare the request with RankingClient.metadata()"


class NotFoundError(ServingError):
    """The server has no such model or version (NOT_FOUND)."""

    code = grpc.StatusCode.NOT_FOUND
    advice = "check the model's name and version; RankingClient.status() lists what is served"


class DeadlineError(ServingError):
    """No answer came in time (DEADLINE_EXCEEDED)."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    advice = "raise timeout_seconds, or send fewer candidates"


class OverloadedError(ServingError):
    """The request is too large, or the server has no room for it (RESOURCE_EXHAUSTED)."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    advice = "send fewer candidates a request, or raise the message limits of server and client"


class UnavailableError(ServingError):
    """The server cannot be reached or is going away (UNAVAILABLE)."""

    code = grpc.StatusCode.UNAVAILABLE
    advice = "check that a server listens at this address, or wait with wait_until_available()"


class UnimplementedError(ServingError):
    """The server does not offer this method (UNIMPLEMENTED)."""

    code = grpc.StatusCode.UNIMPLEMENTED
    advice = "check that the address is a TF Serving or polyrank gRPC port"


class DeniedError(ServingError):
    """The server refuses the caller (UNAUTHENTICATED or PERMISSION_DENIED)."""

    code = grpc.StatusCode.PERMISSION_DENIED
    advice = "check the credentials"


class ServerFaultError(ServingError):
    """The server failed (INTERNAL, DATA_LOSS, ABORTED, ...), or answered what no model may."""

    code = grpc.StatusCode.INTERNAL


_CLASSES: dict[grpc.StatusCode, type[ServingError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
    grpc.StatusCode.UNAUTHENTICATED: DeniedError,
    grpc.StatusCode.PERMISSION_DENIED: DeniedError,
}


def from_status(what: str, code: grpc.StatusCode, details: str) -> ServingError:
    """Builds the error for a status that a call ended with.

    Args:
        what: What was asked of whom.
        code: The status code.
        details: The server's message.
    """
    error_class = _CLASSES.get(code, ServerFaultError)
    error = error_class(what, received=f"{code.name} {details!r}", remedy=error_class.advice)
    error.code = code
    error.details = details
    return error
