"""Strings that a graph parses as tf.Examples are checked before, whatever their input is called."""

from __future__ import annotations

import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import grpc
import numpy as np
import pytest
import tensorflow as tf

from serving.api import messages
from serving.api.messages import Example, PredictRequest, message_class
from serving.api.tensors import decode, encode
from serving.server.call import Call
from serving.server.errors import StatusError
from serving.server.limits import Limits
from serving.server.loading import load_version
from serving.server.predict import run_predict
from serving.server.runtime import SavedModelRuntime

STRINGS = tf.TensorSpec([None], tf.string, "rows")
SequenceExample = message_class("tensorflow.SequenceExample")


class Parser(tf.Module):
    """Three signatures that take `rows`: tf.Examples, tf.SequenceExamples and any strings."""

    @tf.function(input_signature=[STRINGS])
    def flat(self, rows):
        parsed = tf.io.parse_example(
            tf.reshape(rows, [-1]), {"n": tf.io.FixedLenFeature([], tf.int64, 0)}
        )
        return {"n": parsed["n"]}

    @tf.function(input_signature=[STRINGS])
    def steps(self, rows):
        _, parsed, _ = tf.io.parse_sequence_example(
            rows, sequence_features={"n": tf.io.RaggedFeature(tf.int64)}
        )
        return {"n": parsed["n"].to_tensor()}

    @tf.function(input_signature=[STRINGS])
    def plain(self, rows):
        return {"n": tf.strings.length(rows)}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> SavedModelRuntime:
    module = Parser()
    path = tmp_path_factory.mktemp("parser") / "1"
    signatures = {name: getattr(module, name) for name in ("flat", "steps", "plain")}
    tf.saved_model.save(module, str(path), signatures=signatures)
    return load_version(path)


def ask(runtime: SavedModelRuntime, signature: str, *rows: bytes) -> list:
    request = PredictRequest()
    request.model_spec.signature_name = signature
    request.inputs["rows"].CopyFrom(encode(np.array(rows, object)))
    response = run_predict(runtime, request, Call(), Limits())
    return decode(response.outputs["n"]).tolist()


def example(value: int) -> bytes:
    made = Example()
    made.features.feature["n"].int64_list.value.append(value)
    return made.SerializeToString()


def sequence(*values: int) -> bytes:
    made = SequenceExample()
    for value in values:
        made.feature_lists.feature_list["n"].feature.add().int64_list.value.append(value)
    return made.SerializeToString()


def test_messages_pass(runtime) -> None:
    assert ask(runtime, "flat", example(3), b"") == [3, 0]
    assert ask(runtime, "steps", sequence(1, 2)) == [[[1], [2]]]


@pytest.mark.parametrize(
    ("signature", "valid", "name"),
    [("flat", example(3), "tf.Example"), ("steps", sequence(1), "tf.SequenceExample")],
)
def test_a_row_that_is_none_never_reaches_tensorflow(
    runtime, monkeypatch, signature, valid, name
) -> None:
    monkeypatch.setattr(runtime, "run", lambda *_, **__: pytest.fail("it reached TensorFlow"))
    with pytest.raises(StatusError, match=f"a row is no {name}$") as failure:
        ask(runtime, signature, valid, valid[:-1])
    assert failure.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_strings_that_nothing_parses_may_be_anything(runtime) -> None:
    assert ask(runtime, "plain", b"\xff\xff", example(3)[:-1]) == [2, len(example(3)) - 1]


def test_only_the_signature_that_parses_is_checked(runtime) -> None:
    checked = {
        name: runtime.signatures[name].inputs["rows"].message for name in ("flat", "steps", "plain")
    }
    assert checked == {"flat": messages.Example, "steps": SequenceExample, "plain": None}


def test_of_a_message_with_raw_content_and_a_list_the_content_is_checked(runtime) -> None:
    """TensorFlow decodes the content: a good list must not hide it."""
    request = PredictRequest()
    request.model_spec.signature_name = "flat"
    request.inputs["rows"].CopyFrom(encode(np.array([example(5)], object)))
    request.inputs["rows"].tensor_content = b"\4junk"
    with pytest.raises(StatusError, match="tf.Example"):
        run_predict(runtime, request, Call(), Limits())
