"""Classify, Regress, MultiInference: classifier_test, regressor_test, multi_inference_test."""

from __future__ import annotations

import grpc
import pytest
from line_models import VERSION
from target import INVALID, example, example_input, with_spec

from serving.api import messages, services

CLASSIFY, REGRESS, MULTI = services.CLASSIFY, services.REGRESS, services.MULTI_INFERENCE
CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"


def request(method, signature: str = "", *, rows=None, context=None, **spec):
    made = method.request()
    with_spec(made.model_spec, signature=signature, **spec)
    rows = [example(x=2.0), example(x=-1.0)] if rows is None else rows
    made.input.CopyFrom(example_input(*rows, context=context))
    return made


def classified(response) -> list[list[tuple[str, float]]]:
    return [
        [(each.label, each.score) for each in row.classes]
        for row in response.result.classifications
    ]


def regressed(response) -> list[float]:
    return [each.value for each in response.result.regressions]


def multi_request(*tasks, rows=None):
    made = messages.MultiInferenceRequest()
    for signature, method, *name in tasks:
        task = made.tasks.add(method_name=method)
        with_spec(task.model_spec, signature=signature, name=name[0] if name else "line")
    made.input.CopyFrom(example_input(*(rows or [example(x=2.0)])))
    return made


# Classify


def test_classify_classes_and_scores(target) -> None:
    response = target.call(CLASSIFY, request(CLASSIFY, "classify_x_to_y"))
    assert classified(response) == [[("7", 7.0), ("8", 8.0)], [("-2", -2.0), ("-1", -1.0)]]
    spec = response.model_spec
    assert (spec.name, spec.signature_name, spec.version.value) == (
        "line", "classify_x_to_y", VERSION,
    )  # fmt: skip


def test_classify_scores_only(target) -> None:
    response = target.call(CLASSIFY, request(CLASSIFY, "classify_scores"))
    assert classified(response)[0] == [("", 7.0), ("", 8.0)]


def test_classify_classes_only(target) -> None:
    response = target.call(CLASSIFY, request(CLASSIFY, "classify_classes"))
    assert classified(response)[1] == [("-2", 0.0), ("-1", 0.0)]


def test_zero_scores_are_present(target) -> None:
    rows = [example(x=-1 / 3)]
    (row,) = classified(target.call(CLASSIFY, request(CLASSIFY, "classify_scores", rows=rows)))
    assert [score for _, score in row] == pytest.approx([0.0, 1.0], abs=1e-6)


def test_classify_tf2(target) -> None:
    response = target.call(CLASSIFY, request(CLASSIFY, "classify", name="tf2_line"))
    assert [row[0][1] for row in classified(response)] == [7.0, -2.0]


def test_classify_with_context(target) -> None:
    context = example(x=4.0)
    made = request(CLASSIFY, "classify_scores", rows=[example(x2=9.0)], context=context)
    assert classified(target.call(CLASSIFY, made))[0][0][1] == 13.0


def test_a_feature_of_the_example_counts_more_than_the_contexts(target) -> None:
    made = request(CLASSIFY, "classify_scores", rows=[example(x=2.0)], context=example(x=4.0))
    assert classified(target.call(CLASSIFY, made))[0][0][1] == 7.0


@pytest.mark.parametrize(
    ("signature", "text"),
    [
        ("absent", "No signature was found with the name: absent"),
        ("classify_flat", "Expected Tensor shape: [batch_size num_classes]"),
        ("classify_short", "Expected scores output batch size of 2"),
        ("classify_numbers", "Expected classes Tensor of DT_STRING"),
        ("classify_texts", "Expected scores Tensor of DT_FLOAT"),
        ("classify_uneven", "Tensors class and score should match in dim_size(1)"),
        ("classify_misnamed", "Expected classification signature outputs to contain"),
        ("two_inputs", "Expected one input Tensor."),
    ],
)
def test_classify_signatures_that_do_not_fit(target, signature, text) -> None:
    code, told = target.refusal(CLASSIFY, request(CLASSIFY, signature))
    assert code is INVALID
    assert text in told


# Regress


def test_regress(target) -> None:
    response = target.call(REGRESS, request(REGRESS, "regress_x_to_y"))
    assert regressed(response) == [7.0, -2.0]
    assert response.model_spec.signature_name == "regress_x_to_y"
    assert response.model_spec.version.value == VERSION


def test_regress_another_signature(target) -> None:
    assert regressed(target.call(REGRESS, request(REGRESS, "regress_x_to_y2"))) == [8.0, -1.0]


def test_regress_one_dimension(target) -> None:
    assert regressed(target.call(REGRESS, request(REGRESS, "regress_flat"))) == [7.0, -2.0]


def test_regress_tf2(target) -> None:
    made = request(REGRESS, "regress", name="tf2_line")
    assert regressed(target.call(REGRESS, made)) == [7.0, -2.0]


def test_regress_with_context(target) -> None:
    made = request(REGRESS, "regress_x_to_y", rows=[example()], context=example(x=4.0))
    assert regressed(target.call(REGRESS, made)) == [13.0]


@pytest.mark.parametrize(
    ("signature", "text"),
    [
        ("absent", "No signature was found with the name: absent"),
        ("regress_wide", "Expected output Tensor shape to be either [batch_size] or"),
        ("regress_short", "Input batch size did not match output batch size: 2 vs. 1"),
        ("regress_texts", "Expected output Tensor of DT_FLOAT"),
        ("regress_misnamed", "No regression outputs found in SignatureDef"),
        ("two_inputs", "Expected one input Tensor."),
    ],
)
def test_regress_signatures_that_do_not_fit(target, signature, text) -> None:
    code, told = target.refusal(REGRESS, request(REGRESS, signature))
    assert code is INVALID
    assert text in told


def test_regress_on_a_tensor_that_takes_no_examples(target) -> None:
    code, _ = target.refusal(REGRESS, request(REGRESS, "regress_x2_to_y3"))
    assert code is INVALID


# Both


@pytest.mark.parametrize("method", [CLASSIFY, REGRESS], ids=lambda method: method.name)
def test_requests_that_are_refused(target, method) -> None:
    signature = f"{method.name.lower()}_x_to_y"
    code, text = target.refusal(method, method.request())
    assert code is INVALID
    assert "Missing ModelSpec" in text
    code, text = target.refusal(method, request(method, signature, name=""))
    assert code is INVALID
    assert "ModelSpec has no name specified." in text
    code, text = target.refusal(method, request(method, signature, name="m"))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "Servable not found for request: Latest(m)" in text
    for context in (None, example(x=1.0)):
        code, text = target.refusal(method, request(method, signature, rows=[], context=context))
        assert code is INVALID
        assert "Input is empty." in text
    no_kind = method.request()
    with_spec(no_kind.model_spec, signature=signature)
    code, text = target.refusal(method, no_kind)
    assert code is INVALID
    assert "Input is empty." in text
    code, _ = target.refusal(method, request(method, signature, rows=[example(x2=1.0)]))
    assert code is INVALID  # x has no default


# MultiInference


def test_multi_inference(target) -> None:
    tasks = (("regress_x_to_y", REGRESS_METHOD), ("classify_x_to_y", CLASSIFY_METHOD))
    response = target.call(MULTI, multi_request(*tasks))
    regression, classification = response.results
    assert regression.WhichOneof("result") == "regression_result"
    assert [each.value for each in regression.regression_result.regressions] == [7.0]
    assert classification.WhichOneof("result") == "classification_result"
    (row,) = classification.classification_result.classifications
    assert [(each.label, each.score) for each in row.classes] == [("7", 7.0), ("8", 8.0)]
    for result, (signature, _) in zip(response.results, tasks, strict=True):
        assert result.model_spec.signature_name == signature
        assert result.model_spec.version.value == VERSION


def test_multi_inference_tf2(target) -> None:
    tasks = (("regress", REGRESS_METHOD, "tf2_line"), ("classify", CLASSIFY_METHOD, "tf2_line"))
    response = target.call(MULTI, multi_request(*tasks))
    assert response.results[0].regression_result.regressions[0].value == 7.0
    (row,) = response.results[1].classification_result.classifications
    assert row.classes[0].score == 7.0


@pytest.mark.parametrize(
    ("tasks", "code", "text"),
    [
        (
            [("regress_x_to_y", REGRESS_METHOD), ("regress_x_to_y", REGRESS_METHOD)],
            INVALID,
            "Duplicate evaluation of signature: regress_x_to_y",
        ),
        (
            [("regress_x_to_y", REGRESS_METHOD), ("regress", REGRESS_METHOD, "tf2_line")],
            INVALID,
            "must access the same model name",
        ),
        (
            [("regress_x_to_y", "tensorflow/serving/predict")],
            grpc.StatusCode.UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            [("absent", REGRESS_METHOD)],
            INVALID,
            "Requested signature not found in model graph: absent",
        ),
        (
            [("regress_misnamed", REGRESS_METHOD)],
            INVALID,
            "No regression outputs found in SignatureDef",
        ),
        ([("", REGRESS_METHOD, "m")], grpc.StatusCode.NOT_FOUND, "Latest(m)"),
    ],
)
def test_multi_inference_that_is_refused(target, tasks, code, text) -> None:
    found, told = target.refusal(MULTI, multi_request(*tasks))
    assert found is code, told
    assert text in told


def test_multi_inference_without_tasks(target) -> None:
    code, _ = target.refusal(MULTI, messages.MultiInferenceRequest())
    assert code is INVALID
