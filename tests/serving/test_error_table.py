"""The codes and words of TF Serving's contract, row by row, over the wire."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from serving.api import messages, services
from serving.api.tensors import decode, encode

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


@pytest.fixture(scope="module")
def base_path(base_path, export, edit_saved_model):
    """Adds signatures with a default and with a method name that is not for inference."""

    def add_signatures(signatures) -> None:
        with_default = signatures["with_default"]
        with_default.CopyFrom(signatures["predict"])
        price = with_default.defaults["price"]
        price.dtype = 1
        price.float_val.append(7.0)
        price.tensor_shape.dim.add().size = 1
        signatures["training"].CopyFrom(signatures["predict"])
        signatures["training"].method_name = "tensorflow/supervised/training"

    export(base_path, 3, change=lambda path: edit_saved_model(path, add_signatures))
    return base_path


def valid_request(signature: str = "predict", num_rows: int = 2) -> object:
    request = messages.PredictRequest()
    request.model_spec.name = "ranker"
    request.model_spec.signature_name = signature
    for name, array in {
        "user_id": np.array([b"u"] * num_rows, object),
        "item_id": np.array([b"hat"] * num_rows, object),
        "price": np.arange(num_rows, dtype=np.float32),
        "history": np.full((num_rows, 1), b"", object),
    }.items():
        request.inputs[name].CopyFrom(encode(array))
    return request


def changed(change) -> object:
    request = valid_request()
    change(request)
    return request


def replaced(name: str, array: np.ndarray) -> object:
    return changed(lambda request: request.inputs[name].CopyFrom(encode(array)))


def renamed(old: str, new: str) -> object:
    def change(request) -> None:
        request.inputs[new].CopyFrom(request.inputs[old])
        del request.inputs[old]

    return changed(change)


def metadata_request(*fields: str, **spec: object) -> object:
    request = messages.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.SetInParent()
    return with_spec(request, **spec)


def status_request(**spec: object) -> object:
    request = messages.GetModelStatusRequest()
    request.model_spec.SetInParent()
    return with_spec(request, **spec)


def with_spec(
    request, name: str = "ranker", version: int | None = None, label: str | None = None
) -> object:
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    return request


def parse_error() -> object:
    def change(request) -> None:
        request.inputs["price"].tensor_content = b"abc"

    return changed(change)


EXAMPLES = valid_request("serving_default")
EXAMPLES.inputs.clear()
EXAMPLES.inputs["examples"].CopyFrom(encode(np.array([b"not an example"], object)))

PREDICT, METADATA, STATUS = (
    services.PREDICT,
    services.GET_MODEL_METADATA,
    services.GET_MODEL_STATUS,
)

ROWS = {
    "predict without model_spec": (
        PREDICT, messages.PredictRequest(), INVALID, ["Missing ModelSpec"]
    ),
    "metadata without model_spec": (
        METADATA, messages.GetModelMetadataRequest(), INVALID, ["Missing ModelSpec"]
    ),
    "status without model_spec": (
        STATUS, messages.GetModelStatusRequest(), INVALID, ["Missing ModelSpec"]
    ),
    "predict with an empty name": (
        PREDICT, with_spec(valid_request(), name=""), INVALID, ["ModelSpec has no name specified."]
    ),
    "metadata with an empty name": (
        METADATA,
        metadata_request("signature_def", name=""),
        INVALID,
        ["ModelSpec has no name specified."],
    ),
    "predict, unknown model": (
        PREDICT,
        with_spec(valid_request(), name="m"),
        NOT_FOUND,
        ["Servable not found for request: Latest(m)"],
    ),
    "predict, unknown model and version": (
        PREDICT,
        with_spec(valid_request(), name="m", version=7),
        NOT_FOUND,
        ["Servable not found for request: Specific(m, 7)"],
    ),
    "predict, unknown version": (
        PREDICT,
        with_spec(valid_request(), version=7),
        NOT_FOUND,
        ["Servable not found for request: Specific(ranker, 7)"],
    ),
    "metadata, unknown version": (
        METADATA,
        metadata_request("signature_def", version=7),
        NOT_FOUND,
        ["Servable not found for request: Specific(ranker, 7)"],
    ),
    "predict, unknown label": (
        PREDICT,
        with_spec(valid_request(), label="canary"),
        INVALID,
        ["Unrecognized servable version label: canary"],
    ),
    "predict, unknown signature": (
        PREDICT,
        valid_request("absent"),
        grpc.StatusCode.FAILED_PRECONDITION,
        ['Serving signature key "absent" not found.'],
    ),
    "predict, signature of another kind": (
        PREDICT,
        valid_request("training"),
        grpc.StatusCode.INTERNAL,
        ["Expected prediction signature method_name to be one of"],
    ),
    "too few inputs": (
        PREDICT,
        changed(lambda request: request.inputs.pop("price")),
        INVALID,
        [
            "input size does not match signature: 3!=4 ",
            "Sent extra: {}",
            "Missing but required: {price}",
        ],
    ),
    "too many inputs": (
        PREDICT,
        replaced("colour", np.array([1.0])),
        INVALID,
        ["input size does not match signature: 5!=4 ", "Sent extra: {colour}"],
    ),
    "right number, wrong name": (
        PREDICT, renamed("price", "cost"), INVALID, ["Signature input alias: price"]
    ),
    "unparsable tensor": (PREDICT, parse_error(), INVALID, ["tensor parsing error: price"]),
    "unknown output": (
        PREDICT,
        changed(lambda request: request.output_filter.append("buy")),
        INVALID,
        ["output tensor alias not found in signature: buy"],
    ),
    "repeated output": (
        PREDICT,
        changed(lambda request: request.output_filter.extend(["click", "click"])),
        INVALID,
        ["duplicate output tensor alias: click"],
    ),
    "wrong dtype": (PREDICT, replaced("price", np.array([1, 2])), INVALID, ["price", "DT_FLOAT"]),
    "string for number": (PREDICT, replaced("price", np.array(["1", "2"])), INVALID, ["price"]),
    "wrong rank": (
        PREDICT, replaced("price", np.zeros((2, 1), np.float32)), INVALID, ["price", "shape"]
    ),
    "rows that do not fit each other": (
        PREDICT, replaced("history", np.full((5, 1), b"", object)), INVALID, []
    ),
    "malformed tf.Example": (PREDICT, EXAMPLES, INVALID, ["Could not parse example input"]),
    "metadata without a field": (
        METADATA, metadata_request(), INVALID, ["must specify at least one metadata_field"]
    ),
    "metadata, unknown field": (
        METADATA, metadata_request("weights"), INVALID, ["weights is not supported"]
    ),
    "status, unknown model": (
        STATUS, status_request(name="m"), NOT_FOUND, ["Could not find any versions of model m"]
    ),
    "status, empty name": (
        STATUS, status_request(name=""), NOT_FOUND, ["Could not find any versions of model "]
    ),
    "status, unknown version": (
        STATUS,
        status_request(version=9),
        NOT_FOUND,
        ["Could not find version 9 of model ranker"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_error_table(channel, row) -> None:
    method, request, code, texts = ROWS[row]
    with pytest.raises(grpc.RpcError) as failure:
        method.bind(channel)(request, timeout=10)
    assert failure.value.code() is code, failure.value.details()
    for text in texts:
        assert text in failure.value.details()


def test_the_valid_request_of_this_table_is_answered(channel) -> None:
    response = services.PREDICT.bind(channel)(valid_request(), timeout=10)
    assert decode(response.outputs["score"]).tolist() == [0.0, 1.0]


def test_responses_name_the_resolved_signature_and_version(channel) -> None:
    request = valid_request("")
    request.inputs.clear()
    request.inputs["examples"].CopyFrom(encode(np.array([], object)))
    response = services.PREDICT.bind(channel)(request, timeout=10)
    assert response.model_spec.signature_name == "serving_default"
    assert response.model_spec.version.value == 3
    assert response.model_spec.WhichOneof("version_choice") == "version"
    assert response.model_spec.name == "ranker"


def test_metadata_names_model_and_version_but_no_signature(channel) -> None:
    request = metadata_request("signature_def")
    response = services.GET_MODEL_METADATA.bind(channel)(request, timeout=10)
    assert (response.model_spec.name, response.model_spec.version.value) == ("ranker", 3)
    assert response.model_spec.signature_name == ""
    found = messages.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    assert {"predict", "rank", "serving_default"} <= set(found.signature_def)
    assert found.signature_def["predict"].inputs["price"].dtype == 1


def test_inputs_with_defaults_may_be_left_out(channel) -> None:
    request = valid_request("with_default", num_rows=1)
    del request.inputs["price"]
    response = services.PREDICT.bind(channel)(request, timeout=10)
    assert decode(response.outputs["score"]).tolist() == [7.0]


def test_inputs_without_default_may_not_be_left_out_beside_those_with_one(channel) -> None:
    request = valid_request("with_default", num_rows=1)
    del request.inputs["item_id"]
    with pytest.raises(grpc.RpcError) as failure:
        services.PREDICT.bind(channel)(request, timeout=10)
    assert failure.value.code() is INVALID
    assert "Signature input alias: item_id" in failure.value.details()


def test_unknown_name_beside_defaults_is_refused(channel) -> None:
    request = valid_request("with_default", num_rows=1)
    request.inputs["cost"].CopyFrom(request.inputs["price"])
    del request.inputs["price"]
    with pytest.raises(grpc.RpcError) as failure:
        services.PREDICT.bind(channel)(request, timeout=10)
    assert failure.value.code() is INVALID
    assert "Inputs contains invalid name" in failure.value.details()


def test_output_filter_chooses_outputs(channel) -> None:
    request = changed(lambda r: r.output_filter.append("click"))
    response = services.PREDICT.bind(channel)(request, timeout=10)
    assert list(response.outputs) == ["click"]


def test_status_of_one_version(channel) -> None:
    response = services.GET_MODEL_STATUS.bind(channel)(status_request(version=3), timeout=10)
    (status,) = response.model_version_status
    assert (status.version, status.state, status.status.error_code) == (3, 30, 0)


def test_status_does_not_resolve_labels(channel) -> None:
    response = services.GET_MODEL_STATUS.bind(channel)(status_request(label="stable"), timeout=10)
    assert [status.version for status in response.model_version_status] == [3]


def test_long_messages_are_cut(channel) -> None:
    request = valid_request("x" * 5000)
    with pytest.raises(grpc.RpcError) as failure:
        services.PREDICT.bind(channel)(request, timeout=10)
    details = failure.value.details()
    assert details.startswith('Serving signature key "xxx')
    assert details.endswith("...TRUNCATED")
    assert len(details) == 1024 + len("...TRUNCATED")


def test_bytes_that_are_no_request_are_the_callers_fault(channel) -> None:
    raw = channel.unary_unary(services.PREDICT.path)
    with pytest.raises(grpc.RpcError) as failure:
        raw(b"\xff\xff\xff", timeout=10)
    assert failure.value.code() is INVALID


def test_shapes_far_beyond_the_request_are_refused_before_they_are_built(channel) -> None:
    request = valid_request()
    del request.inputs["price"].tensor_shape.dim[:]
    request.inputs["price"].tensor_shape.dim.add().size = 1 << 40
    request.inputs["price"].ClearField("tensor_content")
    with pytest.raises(grpc.RpcError) as failure:
        services.PREDICT.bind(channel)(request, timeout=10)
    assert failure.value.code() is INVALID
    assert "tensor parsing error: price" in failure.value.details()


def test_message_over_the_limit_is_refused(channel) -> None:
    request = replaced("item_id", np.array([b"x" * (2 << 20)], object))
    with pytest.raises(grpc.RpcError) as failure:
        services.PREDICT.bind(channel)(request, timeout=10)
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_deadline_while_running(channel) -> None:
    request = valid_request("slow")
    request.inputs.clear()
    request.inputs["num_steps"].CopyFrom(encode(np.array([10**12])))
    with pytest.raises(grpc.RpcError) as failure:
        services.PREDICT.bind(channel)(request, timeout=0.2)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
