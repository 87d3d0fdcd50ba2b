"""The REST API: the REST cases of tensorflow_model_server_test, json_tensor_test."""

from __future__ import annotations

import base64
import math
import urllib.request

import pytest
from line_models import VERSION

PREDICT = "/v1/models/line:predict"


def b64(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


def test_predict_rows(rest) -> None:
    status, body = rest.http(PREDICT, {"instances": [[2.0], [-1]]})
    assert (status, body) == (200, {"predictions": [[7.0], [-2.0]]})


def test_predict_named_rows(rest) -> None:
    rows = [{"x": [1.0], "x2": [2.0]}, {"x": [0.0], "x2": [0.0]}]
    status, body = rest.http(PREDICT, {"signature_name": "two_inputs", "instances": rows})
    assert status == 200
    assert body == {"predictions": [{"y": [4.0], "y3": [7.0]}, {"y": [1.0], "y3": [1.0]}]}


def test_predict_columns(rest) -> None:
    status, body = rest.http(PREDICT, {"inputs": [[2.0]]})
    assert (status, body) == (200, {"outputs": [[7.0]]})
    named = {"signature_name": "two_inputs", "inputs": {"x": [[1.0]], "x2": [[2.0]]}}
    status, body = rest.http(PREDICT, named)
    assert (status, body) == (200, {"outputs": {"y": [[4.0]], "y3": [[7.0]]}})


def test_a_scalar_has_no_rows(rest) -> None:
    document = {"signature_name": "scalar", "inputs": [[1.0], [2.0]]}
    assert rest.http(PREDICT, document) == (200, {"outputs": 3.0})
    status, body = rest.http(PREDICT, {"signature_name": "scalar", "instances": [[1.0]]})
    assert status == 400
    assert set(body) == {"error"}


def test_strings_and_base64(rest) -> None:
    rows = ["Ab\u00e9", b64(b"C\xff")]
    document = {"signature_name": "texts", "instances": rows}
    status, body = rest.http(PREDICT, document)
    assert status == 200
    assert body["predictions"][0] == {
        "lower": "ab\u00e9", "raw_bytes": b64("Ab\u00e9".encode())
    }  # fmt: skip
    assert body["predictions"][1]["raw_bytes"] == b64(b"C\xff")


def test_numbers_that_are_not_finite(rest) -> None:
    body = b'{"instances": [[NaN], [Infinity], [-Infinity]]}'
    status, answer = rest.http(PREDICT, raw=body)
    assert status == 200
    (nan,), (high,), (low,) = answer["predictions"]
    assert math.isnan(nan)
    assert (high, low) == (math.inf, -math.inf)


def test_short_decimals(rest) -> None:
    assert rest.http(PREDICT, {"instances": [[0.1]]}) == (200, {"predictions": [[1.3]]})


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({}, "inputs"),
        ({"instances": [[1.0]], "inputs": [[1.0]]}, "inputs"),
        ({"instances": 1.0}, "list/array"),
        ({"instances": []}, "No values in"),
        ({"instances": [["a"]]}, "expected type"),
        ({"instances": [[True]]}, "expected type"),
        ({"instances": [[None]]}, "expected type"),
        ({"instances": [[1.0], [1.0, 2.0]]}, "size"),
        ({"instances": [[1.0], 2.0]}, ""),
        ({"instances": [{"absent": [1.0]}]}, "does not have named input: absent"),
        ({"instances": [{"x": [1.0]}, {"z": [1.0]}]}, ""),
        ({"signature_name": "two_inputs", "instances": [[1.0]]}, ""),
        ({"signature_name": 7, "instances": [[1.0]]}, "must be a string value"),
        ({"signature_name": "absent", "instances": [[1.0]]}, "absent"),
        ({"signature_name": "texts", "instances": [{"b64": "!"}]}, "base64"),
    ],
)
def test_predict_bodies_that_are_refused(rest, document, text) -> None:
    status, body = rest.http(PREDICT, document)
    assert status == 400, body
    assert text in body["error"]


@pytest.mark.parametrize("raw", [b"{", b"[]", b"", b"\xff", b'{"instances": [[1.0]]'])
def test_bodies_that_are_no_json_object(rest, raw) -> None:
    status, body = rest.http(PREDICT, raw=raw)
    assert status == 400
    assert body["error"]


def test_classify(rest) -> None:
    document = {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}, {"x": [-1.0]}]}
    status, body = rest.http("/v1/models/line:classify", document)
    assert status == 200
    assert body == {"results": [[["7", 7.0], ["8", 8.0]], [["-2", -2.0], ["-1", -1.0]]]}


def test_regress_with_context(rest) -> None:
    document = {
        "signature_name": "regress_x_to_y", "context": {"x": 4.0}, "examples": [{}, {"x": 2.0}]
    }  # fmt: skip
    assert rest.http("/v1/models/line:regress", document) == (200, {"results": [13.0, 7.0]})


@pytest.mark.parametrize("method", ["classify", "regress"])
@pytest.mark.parametrize(
    "document",
    [
        {},
        {"examples": {}},
        {"examples": []},
        {"examples": [1]},
        {"examples": [{"x": None}]},
        {"examples": [{"x": [1.0, "a"]}]},
        {"examples": [{"x": 1.0}], "signature_name": "absent"},
    ],
)
def test_example_bodies_that_are_refused(rest, method, document) -> None:
    named = {"signature_name": f"{method}_x_to_y", **document}
    status, body = rest.http(f"/v1/models/line:{method}", named)
    assert status == 400, body
    assert body["error"]


def test_versions_and_labels_in_the_path(rest) -> None:
    document = {"instances": [[2.0]]}
    path = f"/v1/models/line/versions/{VERSION}:predict"
    assert rest.http(path, document) == (200, {"predictions": [[7.0]]})
    status, body = rest.http("/v1/models/line/versions/7:predict", document)
    assert status == 404
    assert "Servable not found for request: Specific(line, 7)" in body["error"]
    status, body = rest.http("/v1/models/line/labels/x:predict", document)
    assert status == 400
    assert "Unrecognized servable version label: x" in body["error"]


def test_labels(rest, pushing, push) -> None:
    push(pushing.models / "rest_labelled", 1, slope=5.0)
    pushing.reload(pushing.config("rest_labelled", labels={"stable": 1}))
    path = "/v1/models/rest_labelled/labels/stable:predict"
    assert rest.http(path, {"instances": [[1.0]]}) == (200, {"predictions": [[6.0]]})


def test_unknown_model(rest) -> None:
    status, body = rest.http("/v1/models/m:predict", {"instances": [[1.0]]})
    assert status == 404
    assert "Servable not found for request: Latest(m)" in body["error"]


@pytest.mark.parametrize("path", ["/v1/models/line", f"/v1/models/line/versions/{VERSION}"])
def test_status(rest, path) -> None:
    status, body = rest.http(path)
    assert status == 200
    ok = {"error_code": "OK", "error_message": ""}
    assert body == {
        "model_version_status": [{"version": str(VERSION), "state": "AVAILABLE", "status": ok}]
    }


def test_status_of_an_unknown_model(rest) -> None:
    status, body = rest.http("/v1/models/m")
    assert status == 404
    assert "Could not find any versions of model m" in body["error"]


def test_metadata(rest) -> None:
    status, body = rest.http("/v1/models/line/metadata")
    assert status == 200
    assert (body["model_spec"]["name"], body["model_spec"]["version"]) == ("line", str(VERSION))
    found = body["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert found["method_name"] == "tensorflow/serving/predict"
    assert found["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in found["outputs"]["y"]["tensor_shape"]["dim"]] == ["-1", "1"]


@pytest.mark.parametrize(
    "path", ["/v1/models/line:absent", "/v1", "/v1/models/line/versions/x:predict"]
)
def test_malformed_paths(rest, path) -> None:
    status, body = rest.http(path, {"instances": [[1.0]]})
    assert status in (400, 404)
    assert body["error"]


def test_prometheus(rest) -> None:
    rest.http(PREDICT, {"instances": [[2.0]]})
    url = f"http://{rest.rest}/monitoring/prometheus/metrics"
    text = urllib.request.urlopen(url, timeout=10).read().decode()
    for name in ("request_count", "request_latency", "runtime_latency"):
        assert f":tensorflow:serving:{name}" in text
    wanted = ['model_name="line"', 'status="OK"']
    if rest.is_embedded:  # TF Serving has neither label
        wanted += [f'version="{VERSION}"', 'API="Predict"']
    counts = [
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith(":tensorflow:serving:request_count{")
        and all(label in line for label in wanted)
    ]
    assert sum(counts) >= 1
