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


class ResourceExhaustedError(ServingError):
    """The request is too large, or waited too long in the server's queue (RESOURCE_EXHAUSTED)."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    advice = "send fewer candidates a request, or raise the message limits of server and client"


class UnavailableError(ServingError):
    """The server cannot be reached or is going away (UNAVAILABLE)."""

    code = grpc.StatusCode.UNAVAILABLE
    advice = "check that a server listens at this address, or wait with wait_until_available()"


class OverloadedError(UnavailableError):
    """The server has no room, or the client held the request back because it had none of late.

    Has the code UNAVAILABLE in either case.
    """

    advice = "do without this answer, and give the server more cores or more of its kind"


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
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
    grpc.StatusCode.UNAUTHENTICATED: DeniedError,
    grpc.StatusCode.PERMISSION_DENIED: DeniedError,
}

# Of a full queue, the embedded server's words and TF Serving's.
_NO_ROOM = ("the server is overloaded", "The batch scheduling queue")


def from_status(what: str, code: grpc.StatusCode, details: str) -> ServingError:
    """Builds the error for a status that a call ended with.

    Args:
        what: What was asked of whom.
        code: The status code.
        details: The server's message.
    """
    error_class = _CLASSES.get(code, ServerFaultError)
    if error_class is UnavailableError and details.startswith(_NO_ROOM):
        error_class = OverloadedError
    error = error_class(what, received=f"{code.name} {details!r}", remedy=error_class.advice)
    error.code = code
    error.details = details
    return error
