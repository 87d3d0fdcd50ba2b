"""What the server answers instead of a result: codes and the words that clients rely on.

The codes and the stable parts of the messages are TF Serving's; clients assert on both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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


def label_of_unavailable_version(model: str, version: int) -> StatusError:
    """A label may point only to a version that answers."""
    return StatusError(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"Request to assign label to version {version} of model {model}, "
        "which is not currently available for inference",
    )


def invalid_config(reason: str) -> StatusError:
    """A new configuration cannot be used."""
    return _invalid(f"model config: {reason}")


def repeated_model(model: str) -> StatusError:
    """A new configuration names a model twice."""
    return _invalid(f"Illegal to list model {model} multiple times in config list")


def relative_base_path(model: str, base_path: str) -> StatusError:
    """A base path depends on the server's working directory."""
    return _invalid(
        f"Expected model {model} to have an absolute path or URI; got base_path()={base_path}"
    )


def base_path_not_allowed(base_path: str) -> StatusError:
    """A base path lies outside the allowed roots."""
    return StatusError(
        grpc.StatusCode.PERMISSION_DENIED,
        f"base path {base_path} lies outside the directories that this server may serve from",
    )


def not_a_config_list() -> StatusError:
    """A reload asks for something else than a list of models."""
    return _invalid(
        "ServerModelConfig type not supported by HandleReloadConfigRequest. "
        "Only ModelConfigList is currently supported"
    )


def models_not_available(reasons: Mapping[str, str]) -> StatusError:
    """A reload's new models do not serve, so nothing of it was applied."""
    told = ", ".join(f"{{{name}: {reason}}}" for name, reason in sorted(reasons.items()))
    return StatusError(
        grpc.StatusCode.UNKNOWN,
        f"{len(reasons)} model(s) did not become available: {{{told}}}; nothing was changed",
    )


def reload_under_way() -> StatusError:
    """Another reload did not end in time."""
    return StatusError(
        grpc.StatusCode.DEADLINE_EXCEEDED, "another reload was under way until the deadline"
    )


def stopping() -> StatusError:
    """The server is going away."""
    return StatusError(grpc.StatusCode.UNAVAILABLE, "the server is stopping")


def unauthenticated() -> StatusError:
    """No token, or another one."""
    return StatusError(grpc.StatusCode.UNAUTHENTICATED, "the request carries no valid bearer token")


def reload_not_permitted(reason: str) -> StatusError:
    """This server, as it was started, does not take configurations from this caller."""
    return StatusError(
        grpc.StatusCode.PERMISSION_DENIED, f"HandleReloadConfigRequest is not permitted: {reason}"
    )


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


def signature_not_found(name: str) -> StatusError:
    """Classify or Regress for a signature that the model lacks."""
    return _invalid(f"No signature was found with the name: {name}")


def unfit_signature(kind: str, reason: str) -> StatusError:
    """A signature that cannot answer Classify or Regress."""
    return _invalid(f"{kind} signature: {reason}")


def unfit_result(reason: str) -> StatusError:
    """A model computed something that is no classification or regression."""
    return _invalid(reason)


def malformed_example(message: str) -> StatusError:
    """A row of serialized tf.Examples is none."""
    return _invalid(f"Could not parse example input: a row is no tf.{message}")


def empty_input() -> StatusError:
    """Classify, Regress or MultiInference without examples."""
    return _invalid("Input is empty.")


def no_tasks() -> StatusError:
    """MultiInference for nothing."""
    return _invalid("Found ModelSpec with an empty model name.")


def mixed_models() -> StatusError:
    """MultiInference for several models."""
    return _invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")


def repeated_signature(name: str) -> StatusError:
    """MultiInference for one signature twice."""
    return _invalid(f"Duplicate evaluation of signature: {name}")


def absent_signature(name: str) -> StatusError:
    """MultiInference for a signature that the model lacks."""
    return _invalid(f"Requested signature not found in model graph: {name}")


def unsupported_method(method_name: str) -> StatusError:
    """MultiInference for something else than classifying and regressing."""
    return StatusError(
        grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {method_name}"
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


def too_many_rows(alias: str, num_rows: int, limit: int) -> StatusError:
    """An input has more rows than the server takes."""
    return _invalid(f"input {alias} has {num_rows} rows; this server takes at most {limit}")


def string_too_long(alias: str, num_bytes: int, limit: int) -> StatusError:
    """An input holds a longer string than the server takes."""
    return _invalid(
        f"input {alias} holds a string of {num_bytes} bytes; this server takes at most {limit}"
    )


def rest_signature_not_found(name: str) -> StatusError:
    """REST predict for a signature that the model lacks."""
    return _invalid(f'Serving signature name: "{name}" not found in signature def')


def malformed_path(method: str, path: str) -> StatusError:
    """A REST path that leads nowhere."""
    return _invalid(f"Malformed request: {method} {path}")


def invalid_json(reason: str) -> StatusError:
    """A REST body that is not JSON."""
    return _invalid(f"JSON Parse error: {reason}")


def unfit_json(reason: str) -> StatusError:
    """A REST body that is JSON, but no request."""
    return _invalid(reason)


def no_metadata_field() -> StatusError:
    """GetModelMetadata without a field."""
    return _invalid("GetModelMetadataRequest must specify at least one metadata_field")


def batch_too_large(size: int, limit: int) -> StatusError:
    """A request alone exceeds a batch."""
    return _invalid(f"Task size {size} is larger than maximum input batch size {limit}")


def batch_queue_full(num_batches: int) -> StatusError:
    """As many batches wait as may wait."""
    return StatusError(
        grpc.StatusCode.UNAVAILABLE,
        f"The batch scheduling queue to which this task was submitted is full; "
        f"currently {num_batches} batches enqueued and max_enqueued_batches is {num_batches}",
    )


def expired_in_queue() -> StatusError:
    """The deadline passed while the request waited for its batch."""
    return StatusError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "Run() timeout exceeded while waiting in batching queue (expired in queue)",
    )


def timed_out() -> StatusError:
    """The deadline passed while the request was running."""
    return StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "Timed out waiting for notification")


def overloaded() -> StatusError:
    """As many requests wait as may wait."""
    return StatusError(
        grpc.StatusCode.UNAVAILABLE, "the server is overloaded: its queue of requests is full"
    )


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


def invalid_saved_model(reason: str) -> StatusError:
    """A version's files are there but are no model."""
    return _invalid(f"not a valid SavedModel: {reason}")


def no_saved_model(directory: str) -> StatusError:
    """A version's directory has no model."""
    return StatusError(grpc.StatusCode.NOT_FOUND, f"{directory} has no saved_model.pb")


def no_manifest(directory: str, name: str) -> StatusError:
    """A version without a push manifest, where one is required."""
    return StatusError(
        grpc.StatusCode.PERMISSION_DENIED,
        f"version {directory} has no {name}, so nothing says that its files are what was pushed; "
        "push it with polyrank, or serve without --require-manifest",
    )


def refused_op(op: str, node: str, function: str, reason: str) -> StatusError:
    """A version's graph holds an operation that may do more than compute."""
    where = f" of function {function!r}" if function else ""
    return StatusError(
        grpc.StatusCode.PERMISSION_DENIED,
        f"operation {op} of node {node!r}{where} is refused: {reason}",
    )


def refused_file(name: str, reason: str) -> StatusError:
    """A version has, or names, a file that must not take part in it."""
    return StatusError(grpc.StatusCode.PERMISSION_DENIED, f"file {name} is refused: {reason}")


def unparsable_saved_model(name: str) -> StatusError:
    """A version's graph is cut or damaged."""
    return StatusError(grpc.StatusCode.DATA_LOSS, f"cannot parse {name}")


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
        f"warm-up record {position} is a {kind or 'record of no kind'}; the polyrank embedded "
        "server runs predict, classify, regress and multi_inference records",
    )


def too_many_warmup_records(limit: int) -> StatusError:
    """Warming up would take too long."""
    return _invalid(f"Number of warmup records exceeds the maximum ({limit})")


def _braced(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
