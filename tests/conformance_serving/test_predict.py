"""Predict: predict_util_test, and the Predict cases of tensorflow_model_server_test."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from line_models import VERSION
from target import INVALID, NOT_FOUND, PRECONDITION, example, floats, predict_request, with_spec

from serving.api import messages, services
from serving.api.tensors import decode, encode

PREDICT = services.PREDICT


def test_predict_names_signature_and_version(target) -> None:
    response = target.call(PREDICT, predict_request({"x": floats(2, -1)}))
    assert decode(response.outputs["y"]).tolist() == [[7.0], [-2.0]]
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == (
        "line", "serving_default", VERSION,
    )  # fmt: skip
    assert spec.WhichOneof("version_choice") == "version"


@pytest.mark.parametrize("name", ["line", "tf2_line"])
def test_named_version(target, name) -> None:
    assert target.slope(name, version=VERSION) == 3.0


def test_tf2_signature(target) -> None:
    assert target.slope("tf2_line") == 3.0


def test_values_in_typed_fields(target) -> None:
    request = predict_request({})
    proto = request.inputs["x"]
    proto.dtype = 1
    proto.tensor_shape.dim.add().size = 2
    proto.tensor_shape.dim.add().size = 1
    proto.float_val.append(4.0)  # the last value stands for those that follow
    response = target.call(PREDICT, request)
    assert decode(response.outputs["y"]).tolist() == [[13.0], [13.0]]


@pytest.mark.parametrize("signature", ["examples", "regress_x_to_y", "classify_x_to_y"])
def test_predict_on_signatures_for_examples(target, signature) -> None:
    alias = "inputs"
    rows = np.array([example(x=2.0).SerializeToString()], object)
    outputs = target.predict({alias: rows}, signature)
    expected = {"examples": "y", "regress_x_to_y": "outputs", "classify_x_to_y": "scores"}
    assert outputs[expected[signature]][0, 0] == 7.0


def test_missing_model_spec(target) -> None:
    code, text = target.refusal(PREDICT, messages.PredictRequest())
    assert code is INVALID
    assert "Missing ModelSpec" in text


def test_empty_name(target) -> None:
    code, text = target.refusal(PREDICT, predict_request({"x": floats(1)}, name=""))
    assert code is INVALID
    assert "ModelSpec has no name specified." in text


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"name": "m"}, "Servable not found for request: Latest(m)"),
        ({"name": "m", "version": 7}, "Servable not found for request: Specific(m, 7)"),
        ({"version": 7}, "Servable not found for request: Specific(line, 7)"),
    ],
)
def test_unknown_model_or_version(target, spec, text) -> None:
    code, told = target.refusal(PREDICT, predict_request({"x": floats(1)}, **spec))
    assert code is NOT_FOUND
    assert text in told


def test_unknown_label(target) -> None:
    code, text = target.refusal(PREDICT, predict_request({"x": floats(1)}, label="x"))
    assert code is INVALID
    assert "Unrecognized servable version label: x" in text


def test_unknown_signature(target) -> None:
    code, text = target.refusal(PREDICT, predict_request({"x": floats(1)}, "absent"))
    assert code is PRECONDITION
    assert 'Serving signature key "absent" not found.' in text


@pytest.mark.parametrize(
    ("inputs", "signature", "texts"),
    [
        ({}, "", ["input size does not match signature", "Missing but required: {x}"]),
        (
            {"x": floats(1), "z": floats(1)},
            "",
            ["input size does not match signature", "Sent extra: {z}"],
        ),
        ({"z": floats(1)}, "", ["Signature input alias: "]),
        (
            {"x": floats(1)},
            "two_inputs",
            ["input size does not match signature", "Missing but required: {x2}"],
        ),
    ],
)
def test_inputs_that_do_not_fit(target, inputs, signature, texts) -> None:
    code, told = target.refusal(PREDICT, predict_request(inputs, signature))
    assert code is INVALID
    for text in texts:
        assert text in told


def test_unparsable_tensor(target) -> None:
    request = predict_request({"x": floats(1)})
    request.inputs["x"].tensor_content = b"abc"
    code, text = target.refusal(PREDICT, request)
    assert code is INVALID
    assert "tensor parsing error: x" in text


@pytest.mark.parametrize("value", [np.array([[b"1"]], object), np.array([[1]])])
def test_wrong_type(target, value) -> None:
    code, _ = target.refusal(PREDICT, predict_request({"x": value}))
    assert code is INVALID


def test_output_filter(target) -> None:
    request = predict_request({"x": floats(1)}, "two_outputs", ("y2",))
    response = target.call(PREDICT, request)
    assert {name: decode(value).tolist() for name, value in response.outputs.items()} == {
        "y2": [[5.0]]
    }


def test_output_filter_prunes_what_is_computed(target) -> None:
    infinite = {"x": floats(np.inf)}
    response = target.call(PREDICT, predict_request(infinite, "checked", ("y",)))
    assert decode(response.outputs["y"]).tolist() == [[np.inf]]
    code, text = target.refusal(PREDICT, predict_request(infinite, "checked", ("finite",)))
    assert code is INVALID
    assert "x is not finite" in text


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        (("absent",), "output tensor alias not found in signature: absent"),
        (("y", "y"), "duplicate output tensor alias: y"),
    ],
)
def test_output_filters_that_do_not_fit(target, outputs, text) -> None:
    code, told = target.refusal(PREDICT, predict_request({"x": floats(1)}, outputs=outputs))
    assert code is INVALID
    assert text in told


def test_defaults_stand_for_inputs_that_are_left_out(target) -> None:
    assert target.predict({"x": floats(1)}, "with_default")["sum"].tolist() == [[8.0]]
    both = {"x": floats(1), "x2": floats(2)}
    assert target.predict(both, "with_default")["sum"].tolist() == [[3.0]]


def test_strings_and_scalars(target) -> None:
    texts = np.array([b"A\xff", b""], object)
    outputs = target.predict({"texts": texts}, "texts")
    assert outputs["raw_bytes"].tolist() == texts.tolist()
    assert target.predict({"x": floats(1, 2)}, "scalar")["total"].tolist() == 3.0


def test_no_rows(target) -> None:
    assert target.predict({"x": np.zeros((0, 1), np.float32)})["y"].shape == (0, 1)


def test_malformed_example(target) -> None:
    rows = np.array([b"not an example"], object)
    code, text = target.refusal(PREDICT, predict_request({"inputs": rows}, "examples"))
    assert code is INVALID
    assert "Could not parse example input" in text


def test_deadline_while_running(target) -> None:
    request = predict_request({"num_steps": np.array([10**12])}, "slow")
    code, _ = target.refusal(PREDICT, request, timeout=0.3)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_long_messages_are_cut(target) -> None:
    _, text = target.refusal(PREDICT, predict_request({"x": floats(1)}, "x" * 5000))
    assert text.endswith("...TRUNCATED")
    assert len(text) == 1024 + len("...TRUNCATED")


def test_a_version_and_a_label_are_one_choice(target) -> None:
    request = predict_request({"x": floats(1)})
    with_spec(request.model_spec, version=VERSION, label="x")  # the last one set counts
    code, _ = target.refusal(PREDICT, request)
    assert code is INVALID


def test_shape_that_does_not_fit_is_refused_before_the_graph_runs(embedded) -> None:
    request = predict_request({})
    request.inputs["x"].CopyFrom(encode(np.zeros((2, 3), np.float32)))
    code, text = embedded.refusal(PREDICT, request)
    assert code is INVALID
    assert "shape" in text
