"""GetModelMetadata and GetModelStatus: get_model_metadata_impl_test, get_model_status_impl_test."""

from __future__ import annotations

import pytest
from line_models import VERSION
from target import AVAILABLE, INVALID, NOT_FOUND, with_spec

from serving.api import messages, services

METADATA, STATUS = services.GET_MODEL_METADATA, services.GET_MODEL_STATUS


def metadata_request(*fields: str, **spec):
    made = messages.GetModelMetadataRequest(metadata_field=fields)
    with_spec(made.model_spec, **spec)
    return made


def status_request(**spec):
    made = messages.GetModelStatusRequest()
    with_spec(made.model_spec, **spec)
    return made


def test_metadata(target) -> None:
    response = target.call(METADATA, metadata_request("signature_def"))
    assert (response.model_spec.name, response.model_spec.version.value) == ("line", VERSION)
    signatures = messages.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    found = signatures.signature_def["serving_default"]
    assert found.method_name == "tensorflow/serving/predict"
    assert found.inputs["x"].dtype == messages.DATA_TYPES["DT_FLOAT"]
    assert {"regress_x_to_y", "classify_x_to_y"} <= set(signatures.signature_def)


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (messages.GetModelMetadataRequest(), INVALID, "Missing ModelSpec"),
        (metadata_request("signature_def", name=""), INVALID, "ModelSpec has no name specified."),
        (metadata_request(), INVALID, "must specify at least one metadata_field"),
        (metadata_request("weights"), INVALID, "weights is not supported"),
        (metadata_request("signature_def", name="m"), NOT_FOUND, "Latest(m)"),
        (metadata_request("signature_def", version=7), NOT_FOUND, "Specific(line, 7)"),
    ],
)
def test_metadata_that_is_refused(target, request_, code, text) -> None:
    found, told = target.refusal(METADATA, request_)
    assert found is code
    assert text in told


def test_status_of_all_versions(target) -> None:
    assert target.states("line") == {VERSION: AVAILABLE}


def test_status_of_one_version(target) -> None:
    response = target.call(STATUS, status_request(version=VERSION))
    (status,) = response.model_version_status
    assert (status.version, status.state, status.status.error_code) == (VERSION, AVAILABLE, 0)


def test_status_does_not_resolve_labels(target) -> None:
    response = target.call(STATUS, status_request(label="no such label"))
    assert [each.version for each in response.model_version_status] == [VERSION]


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (messages.GetModelStatusRequest(), INVALID, "Missing ModelSpec"),
        (status_request(name="m"), NOT_FOUND, "Could not find any versions of model m"),
        (status_request(version=9), NOT_FOUND, "Could not find version 9 of model line"),
    ],
)
def test_status_that_is_refused(target, request_, code, text) -> None:
    found, told = target.refusal(STATUS, request_)
    assert found is code
    assert text in told
