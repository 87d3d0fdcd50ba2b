"""What is said to a server, without one: retries, budgets, metadata; a clock of the test's own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest

from models.spec.keys import DEFINITIONS
from serving import errors, retry
from serving.api import messages, services, tensors
from serving.conversation import Call, ClientSettings, Conversation, Pause
from serving.retry import RetryPolicy
from serving.snapshot import FeatureSnapshot
from serving.snapshot_features import OtherDefinitionError, SnapshotFeatures
from serving.snapshot_format import EntitySet, Numbers, Texts, write_snapshot


class RpcError(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "told"


class Server:
    """Answers the steps of a conversation; every call takes a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call_seconds: float = 0.0) -> None:
        self.now = 100.0
        self.call_seconds = call_seconds
        self.steps: list[Call | Pause] = []
        self.failures: list[grpc.StatusCode] = []
        self.version = 1
        self.definitions: dict[int, dict[str, str]] = {}
        monkeypatch.setattr(retry.time, "monotonic", lambda: self.now)

    def hold(self, steps: Any) -> Any:
        """Carries steps out."""
        answer: Callable[[], Any] = partial(next, steps)
        while True:
            try:
                step = answer()
            except StopIteration as end:
                return end.value
            self.steps.append(step)
            if isinstance(step, Pause):
                self.now += step.seconds
                answer = partial(next, steps)
                continue
            self.now += self.call_seconds
            if self.failures:
                answer = partial(steps.throw, RpcError(self.failures.pop(0)))
            else:
                answer = partial(steps.send, self.respond(step))

    def respond(self, call: Call) -> Any:
        response = call.method.response()
        if call.method is services.GET_MODEL_STATUS:
            response.model_version_status.add(version=self.version, state=30)
            return response
        response.model_spec.name = "m"
        response.model_spec.version.value = self.version
        if call.method is services.GET_MODEL_METADATA:
            signatures = messages.SignatureDefMap()
            predict = signatures.signature_def["predict"]
            predict.inputs["x"].dtype = messages.DATA_TYPES["DT_FLOAT"]
            predict.inputs["x"].tensor_shape.dim.add(size=-1)
            predict.outputs["score"].dtype = messages.DATA_TYPES["DT_FLOAT"]
            if self.version in self.definitions:
                text = json.dumps(self.definitions[self.version]).encode()
                told = signatures.signature_def[DEFINITIONS]
                told.defaults[DEFINITIONS].CopyFrom(tensors.encode([text]))
            response.metadata["signature_def"].Pack(signatures)
        else:
            response.outputs["score"].CopyFrom(tensors.encode(np.zeros(1, np.float32)))
        return response

    def calls(self) -> list[str]:
        return [step.method.name for step in self.steps if isinstance(step, Call)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


def conversation(**options: Any) -> Conversation:
    return Conversation(ClientSettings("127.0.0.1:1", "m", **options))


def test_every_attempt_has_what_is_left_of_the_budget(server) -> None:
    server.call_seconds = 0.25
    server.failures = [grpc.StatusCode.UNAVAILABLE] * 3
    policy = RetryPolicy(max_retries=3, first_seconds=0.5, factor=1.0)
    server.hold(conversation(timeout_seconds=10.0, retry=policy).status())
    elapsed = 0.0
    for step in server.steps:
        if isinstance(step, Pause):
            assert 0.0 <= step.seconds <= 0.5
            elapsed += step.seconds
        else:
            assert step.timeout_seconds == pytest.approx(10.0 - elapsed)
            elapsed += 0.25
    assert len(server.calls()) == 4


@pytest.mark.parametrize("seed", range(20))
def test_nothing_begins_after_the_deadline(server, seed) -> None:
    server.call_seconds = 0.3
    server.failures = [grpc.StatusCode.UNAVAILABLE] * 99
    talk = conversation(timeout_seconds=1.0, retry=RetryPolicy(max_retries=50, first_seconds=0.4))
    talk._jitter = random.Random(seed)
    with pytest.raises(errors.UnavailableError):
        server.hold(talk.status())
    assert server.now - 100.0 < 1.0 + 0.3
    assert all(step.timeout_seconds > 0 for step in server.steps if isinstance(step, Call))


@pytest.mark.parametrize("code", sorted(set(grpc.StatusCode), key=lambda code: code.name))
def test_only_unavailable_is_tried_again(server, code) -> None:
    if code is grpc.StatusCode.OK:
        return
    server.failures = [code]
    asked = conversation(retry=RetryPolicy(max_retries=1, first_seconds=0.01)).status()
    if code is grpc.StatusCode.UNAVAILABLE:
        server.hold(asked)
    else:
        with pytest.raises(errors.ServingError) as failure:
            server.hold(asked)
        assert failure.value.code is code and failure.value.details == "told"
    assert len(server.calls()) == (2 if code is grpc.StatusCode.UNAVAILABLE else 1)


@pytest.mark.parametrize("options", [{"max_retries": -1}, {"first_seconds": -0.1}, {"factor": 0.5}])
def test_policies_that_make_no_sense(options) -> None:
    with pytest.raises(errors.InvalidRequestError, match="retry policy"):
        RetryPolicy(**options)


def test_jitter_spreads_the_waits_below_the_longest() -> None:
    policy = RetryPolicy(first_seconds=0.1, factor=2.0)
    source = random.Random(5)
    for number, longest in enumerate((0.1, 0.2, 0.4)):
        waits = [policy.wait_seconds(number, source) for _ in range(500)]
        assert 0 <= min(waits) < 0.1 * longest and 0.9 * longest < max(waits) <= longest


def test_metadata_is_asked_once_and_again_after_a_swap(server) -> None:
    talk = conversation()

    def ask() -> None:
        server.hold(talk.predict({"x": [1.0]}, "predict", None))

    ask()
    ask()
    assert server.calls() == ["GetModelMetadata", "Predict", "Predict"]
    server.version = 2
    ask()
    ask()
    assert server.calls()[3:] == ["Predict", "GetModelMetadata", "Predict"]


def test_metadata_counts_against_the_budget(server) -> None:
    server.call_seconds = 0.75
    server.hold(conversation(timeout_seconds=2.0).predict({"x": [1.0]}, "predict", None))
    assert [step.timeout_seconds for step in server.steps] == [2.0, 1.25]


def test_polls_slow_down(server, monkeypatch) -> None:
    server.failures = [grpc.StatusCode.NOT_FOUND] * 8
    assert server.hold(conversation().wait_until_available(60.0)) == 1
    pauses = [step.seconds for step in server.steps if isinstance(step, Pause)]
    assert pauses == [0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5, 0.5]


# Features of a snapshot ------------------------------------------------------------------------


@pytest.fixture
def talk(tmp_path) -> Conversation:
    """A client that fills `x` by item."""
    views = Numbers("x", "x/1", np.array([7.0]), default=0.0, elapses=False)
    items = EntitySet(("item",), Texts.of([b"a"]), (views,))
    write_snapshot(tmp_path / "s", 0, [items], [])
    features = SnapshotFeatures(FeatureSnapshot.open(tmp_path / "s"), clock=lambda: 0)
    return conversation(features=features)


def sent(server: Server) -> list[float]:
    predicts = [step for step in server.steps if step.method is services.PREDICT]
    return [tensors.decode(step.request.inputs["x"])[0] for step in predicts]


def test_features_that_mean_the_same_are_filled_in(server, talk) -> None:
    server.definitions = {1: {"x": "x/1", "other": "other/1"}}
    server.hold(talk.predict({"item": ["a"]}, "predict", None))
    assert sent(server) == [7.0]


@pytest.mark.parametrize("definitions", [{"x": "x/2"}, {"y": "x/1"}, None])
def test_features_that_mean_something_else_are_not_sent(server, talk, definitions) -> None:
    server.definitions = {} if definitions is None else {1: definitions}
    with pytest.raises(OtherDefinitionError, match=r"feature 'x' is not the one.*RUN_ID/features"):
        server.hold(talk.predict({"item": ["a"]}, "predict", None))
    assert sent(server) == []
    server.hold(talk.predict({"x": [1.0]}, "predict", None))
    assert sent(server) == [1.0]  # the request's own value is the caller's


def test_an_answer_of_a_newer_model_counts_only_if_the_features_fit_it(server, talk) -> None:
    server.definitions = {1: {"x": "x/1"}, 2: {"x": "x/1"}, 3: {"x": "x/2"}}
    for server.version in (1, 2):
        assert server.hold(talk.predict({"item": ["a"]}, "predict", None))
    server.version = 3
    with pytest.raises(OtherDefinitionError, match="definition x/2"):
        server.hold(talk.predict({"item": ["a"]}, "predict", None))
    assert server.calls().count("Predict") == 3
