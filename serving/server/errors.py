"""What the server answers instead of a result: codes and the words that clients rely on.

The codes and the stable parts of the messages are TF Serving's; clients assert on both.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc

from serving.api.tensors import TensorError

MAX_MESSAGE_CHARACTERS = 1024
_TRUNCATED = "...TRUNCATED"

_CODES_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

_TABLE: tuple[tuple[type[BaseException], grpc.StatusCode], ...] = (
    (TensorError, grpc.StatusCode.INVALID_ARGUMENT),
    (FileNotFoundError, grpc.StatusCode.NOT_FOUND),
    (PermissionError, grpc.StatusCode.PERMISSION_DENIED),
    (OSError, grpc.StatusCode.DATA_LOSS),
    (MemoryError, grpc.StatusCode.RESOURCE_EXHAUSTED),
)
"""Codes of exceptions that are not a `StatusError`; the first match counts, else INTERNAL."""


class StatusError(Exception):
    """Ends a call, or a load, with a status.

    Attributes:
        code: gRPC status code.
        message: Text for the caller.
        echoes_data: Whether the text may quote tensor values, and so must not be logged.
    """

    def __init__(self, code: grpc.StatusCode, message: str, *, echoes_data: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.echoes_data = echoes_data

    def log_text(self) -> str:
        """Returns what may be written to a log."""
        return self.code.name if self.echoes_data else f"{self.code.name}: {self.message}"


def code_of_number(number: int) -> grpc.StatusCode:
    """Returns the status code of a number; UNKNOWN for a number that gRPC does not have."""
    return _CODES_BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN)


def status_of(error: BaseException) -> StatusError:
    """Maps any exception to the status that tells of it.

    The text of an unforeseen exception stays inside; the caller learns its class.
    """
    if isinstance(error, StatusError):
        return error
    for error_class, code in _TABLE:
        if isinstance(error, error_class):
            return StatusError(code, str(error))
    return StatusError(grpc.StatusCode.INTERNAL, f"the server failed with {type(error).__name__}")


def truncated(message: str) -> str:
    """Cuts a message at 1,024 characters, as TF Serving does."""
    if len(message) <= MAX_MESSAGE_CHARACTERS:
        return message
    return message[:MAX_MESSAGE_CHARACTERS] + _TRUNCATED


def _invalid(message: str) -> StatusError:
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def missing_model_spec() -> StatusError:
    """The request names no model at all."""
    return _invalid("Missing ModelSpec")


def missing_model_name() -> StatusError:
    """The model spec has an empty name."""
    return _invalid("ModelSpec has no name specified.")


def servable_not_found(model: str, version: int | None) -> StatusError:
    """The model, or the version asked for, is not being served."""
    request = f"Latest({model})" if version is None else f"Specific({model}, {version})"
    return StatusError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {request}")


def unknown_label(label: str) -> StatusError:
    """No version carries the label."""
    return _invalid(f"Unrecognized servable version label: {label}")


def unknown_signature(name: str) -> StatusError:
    """Predict for a signature that the model lacks."""
    return StatusError(
        grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.'
    )


def wrong_method_name(method_name: str) -> StatusError:
    """Predict on a signature that is no inference signature."""
    return StatusError(
        grpc.StatusCode.INTERNAL,
        f"Expected prediction signature method_name to be one of predict, classify or regress. "
        f"Was: {method_name}",
    )


def input_size_mismatch(sent: Iterable[str], required: Iterable[str]) -> StatusError:
    """Too many inputs, or too few and no defaults."""
    sent, required = set(sent), set(required)
    return _invalid(
        f"input size does not match signature: {len(sent)}!={len(required)} "
        f"len({_braced(sent)}) != len({_braced(required)}). "
        f"Sent extra: {_braced(sent - required)}. "
        f"Missing but required: {_braced(required - sent)}."
    )


def input_not_sent(alias: str, sent: Iterable[str], defaults: Iterable[str]) -> StatusError:
    """As many inputs as needed, but not this one, which has no default."""
    return _invalid(
        f"Signature input alias: {alias} was not sent and has no default. "
        f"Sent: {_braced(sent)}. Inputs with a default: {_braced(defaults)}."
    )


def invalid_input_names(sent: Iterable[str], used: Iterable[str]) -> StatusError:
    """An input beside those of the signature."""
    return _invalid(
        f"Inputs contains invalid name. Used request inputs: {_braced(used)}, "
        f"request input: {_braced(sent)}"
    )


def tensor_parsing_error(alias: str, reason: str) -> StatusError:
    """An input is no valid tensor."""
    return _invalid(f"tensor parsing error: {alias} ({reason})")


def unknown_output(alias: str, outputs: Iterable[str]) -> StatusError:
    """output_filter names what the signature does not return."""
    return _invalid(
        f"output tensor alias not found in signature: {alias} "
        f"Outputs expected to be in the set {_braced(outputs)}."
    )


def duplicate_output(alias: str) -> StatusError:
    """output_filter names an output twice."""
    return _invalid(f"duplicate output tensor alias: {alias}")


def wrong_input_type(alias: str, expected: str, received: str) -> StatusError:
    """An input has another data type than the signature's."""
    return _invalid(f"input {alias} must be a tensor of type {expected}, not {received}")


def wrong_input_shape(alias: str, expected: str, received: str) -> StatusError:
    """An input's shape does not fit the signature's."""
    return _invalid(f"input {alias} must have shape {expected}, not {received}")


def no_metadata_field() -> StatusError:
    """GetModelMetadata without a field."""
    return _invalid("GetModelMetadataRequest must specify at least one metadata_field")


def unknown_metadata_field(field: str) -> StatusError:
    """GetModelMetadata for something else than signatures."""
    return _invalid(f"Metadata field {field} is not supported")


def no_versions(model: str) -> StatusError:
    """GetModelStatus for a model never seen."""
    return StatusError(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {model}")


def no_version(model: str, version: int) -> StatusError:
    """GetModelStatus for a version never seen."""
    return StatusError(
        grpc.StatusCode.NOT_FOUND, f"Could not find version {version} of model {model}"
    )


def deadline_passed() -> StatusError:
    """The deadline passed before the request's turn came."""
    return StatusError(
        grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before the request was run"
    )


def unparsable_request() -> StatusError:
    """The bytes are no request message."""
    return _invalid("the request does not parse as the method's request message")


def not_offered(method: str, instead: str) -> StatusError:
    """A method of the contract that this server does not offer."""
    return StatusError(
        grpc.StatusCode.UNIMPLEMENTED,
        f"{method} is not offered by the polyrank embedded server; {instead}",
    )


def invalid_saved_model(reason: str) -> StatusError:
    """A version's files are there but are no model."""
    return _invalid(f"not a valid SavedModel: {reason}")


def no_saved_model(directory: str) -> StatusError:
    """A version's directory has no model."""
    return StatusError(grpc.StatusCode.NOT_FOUND, f"{directory} has no saved_model.pb")


def manifest_mismatch(reason: str) -> StatusError:
    """A version's files are not the ones that were pushed."""
    return StatusError(grpc.StatusCode.DATA_LOSS, f"push manifest: {reason}")


def warmup_failed(position: int, error: StatusError) -> StatusError:
    """A version cannot answer one of its own warm-up requests."""
    return StatusError(
        error.code,
        f"warm-up request {position} failed: {error.message}",
        echoes_data=error.echoes_data,
    )


def damaged_warmup_file(reason: str) -> StatusError:
    """The warm-up requests cannot be read."""
    return StatusError(grpc.StatusCode.DATA_LOSS, f"warm-up file: {reason}")


def unparsable_warmup_record(position: int) -> StatusError:
    """A warm-up record is no PredictionLog."""
    return _invalid(f"warm-up record {position} is no PredictionLog")


def unsupported_warmup_record(position: int, kind: str | None) -> StatusError:
    """A warm-up record is of a kind that this server does not run."""
    return StatusError(
        grpc.StatusCode.UNIMPLEMENTED,
        f"warm-up record {position} is a {kind or 'record of no kind'}; "
        "the polyrank embedded server runs predict_log records",
    )


def too_many_warmup_records(limit: int) -> StatusError:
    """Warming up would take too long."""
    return _invalid(f"Number of warmup records exceeds the maximum ({limit})")


def _braced(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
