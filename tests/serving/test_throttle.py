"""What a client holds back while a server refuses, against servers of the test's own."""

from __future__ import annotations

import random
import threading
from concurrent import futures

import grpc
import pytest

from serving import errors, throttle
from serving.api import services
from serving.client import RankingClient
from serving.retry import RetryPolicy
from serving.server import errors as server_errors
from serving.throttle import Throttle, ThrottlePolicy


class Clock:
    """Stands still unless it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(throttle.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Server:
    """Has room for so many calls a second, and for a few at once."""

    def __init__(self, clock: Clock, room: int) -> None:
        self.clock = clock
        self.room = room
        self.left = 0.0

    def ask(self, held: Throttle, rate: int, seconds: int) -> tuple[float, float]:
        """Calls at `rate` a second; returns what is sent and answered a second."""
        sent = answered = 0
        for _ in range(rate * seconds):
            self.clock.now += 1 / rate
            self.left = min(self.left + self.room / rate, 10.0)
            if held.admits():
                has_room = self.left >= 1 - 1e-9
                self.left -= has_room
                held.note(accepted=has_room)
                sent += 1
                answered += has_room
        return sent / seconds, answered / seconds


@pytest.mark.parametrize("multiplier", [1.1, 1.5, 2.0])
def test_an_overloaded_server_is_sent_a_multiple_of_what_it_accepts(clock, multiplier) -> None:
    held = Throttle(ThrottlePolicy(multiplier=multiplier), random.Random(1))
    server = Server(clock, room=200)
    server.ask(held, rate=600, seconds=20)
    sent, answered = server.ask(held, rate=600, seconds=20)
    assert 0.98 * 200 <= answered <= 200.5
    assert sent == pytest.approx(multiplier * answered, rel=0.04)


def test_a_server_that_accepts_all_is_sent_all(clock) -> None:
    held = Throttle(ThrottlePolicy(multiplier=1.0), random.Random(1))
    assert Server(clock, room=300).ask(held, rate=300, seconds=20) == (300, 300)


def test_slow_answers_are_no_refusals(clock) -> None:
    held = Throttle(ThrottlePolicy(), random.Random(1))
    assert all(held.admits() for _ in range(10_000))  # none of them ended


def test_a_few_refusals_mean_little(clock) -> None:
    num_held_back = 0
    for seed in range(400):
        held = Throttle(ThrottlePolicy(), random.Random(seed))
        held.note(accepted=False)
        num_held_back += not held.admits()
    # (1 - 0) / (1 + 8), of 400: 44, give or take 4 deviations of 6.3.
    assert 19 <= num_held_back <= 70


@pytest.mark.parametrize("room", [0, 100])
def test_when_the_server_has_room_again_all_is_sent_again(clock, room) -> None:
    held = Throttle(ThrottlePolicy(), random.Random(1))
    server = Server(clock, room)
    server.ask(held, rate=600, seconds=20)
    sent, _ = server.ask(held, rate=600, seconds=20)
    # A tenth is sent whatever happens.
    assert sent == pytest.approx(max(1.5 * room, 60), rel=0.1)
    server.room = 600
    server.ask(held, rate=600, seconds=20)
    assert server.ask(held, rate=600, seconds=20) == (600, 600)


def test_what_is_past_the_window_is_forgotten(clock) -> None:
    held = Throttle(ThrottlePolicy(window_seconds=10.0), random.Random(1))
    for _ in range(1000):
        held.note(accepted=False)
    assert not all(held.admits() for _ in range(100))
    clock.now += 11.1
    assert all(held.admits() for _ in range(100))


def test_threads_share_a_throttle() -> None:
    held = Throttle(ThrottlePolicy(window_seconds=1e6), random.Random(1))

    def count() -> None:
        for number in range(5000):
            held.note(accepted=number % 2 == 0)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (held._num_requests, held._num_accepted) == (40_000, 20_000)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("multiplier", 0.9),
        ("multiplier", float("nan")),
        ("padding", 0.0),
        ("window_seconds", 0.0),
        ("most", 1.0),
        ("most", 0.0),
    ],
)
def test_policies_that_make_no_sense(option, value) -> None:
    with pytest.raises(errors.InvalidRequestError, match=f"{option} of the throttle policy"):
        ThrottlePolicy(**{option: value})


@pytest.mark.parametrize(
    "failure",
    [server_errors.overloaded(), server_errors.batch_queue_full(10)],
    ids=["calls", "batches"],
)
def test_what_a_full_server_says_is_known(failure) -> None:
    told = errors.from_status("no answer", failure.code, failure.message)
    assert isinstance(told, errors.OverloadedError)
    assert told.code is grpc.StatusCode.UNAVAILABLE and told.details == failure.message


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses"),
        (grpc.StatusCode.UNAVAILABLE, server_errors.stopping().message),
        (grpc.StatusCode.INTERNAL, server_errors.overloaded().message),
    ],
)
def test_other_failures_are_not_taken_for_a_full_server(code, words) -> None:
    assert not isinstance(errors.from_status("no answer", code, words), errors.OverloadedError)


class Full(grpc.GenericRpcHandler):
    """A server without room for predictions; it counts what it is asked."""

    def __init__(self, words: str) -> None:
        self._words = words
        self.num_calls = 0
        self.server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(self,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if details.method == services.GET_MODEL_STATUS.path:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
        return grpc.unary_unary_rpc_method_handler(self.refuse)

    def refuse(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.num_calls += 1
        context.abort(grpc.StatusCode.UNAVAILABLE, self._words)
        raise AssertionError("abort raises")

    def __enter__(self) -> Full:
        self.server.start()
        return self

    def __exit__(self, *exc) -> None:
        self.server.stop(0).wait()


def ask(port: int, num_questions: int, **options) -> list[errors.ServingError]:
    failures = []
    with RankingClient(f"127.0.0.1:{port}", "m", **options) as client:
        for _ in range(num_questions):
            with pytest.raises(errors.UnavailableError) as failure:
                client.metadata()
            failures.append(failure.value)
        client.status()  # is asked, whatever became of the others
    return failures


def test_a_client_asks_a_full_server_less_and_less() -> None:
    with Full(server_errors.overloaded().message) as full:
        failures = ask(full.port, 300, retry=RetryPolicy(max_retries=0))
        assert 8 <= full.num_calls < 150
    assert all(isinstance(failure, errors.OverloadedError) for failure in failures)
    held_back = [failure for failure in failures if not failure.details]
    assert len(held_back) == 300 - full.num_calls
    assert "was not asked" in str(held_back[0]) and "remedy" in str(held_back[0])


def test_retries_are_held_back_too() -> None:
    patient = RetryPolicy(max_retries=5, first_seconds=0.001, factor=1.0)
    with Full(server_errors.overloaded().message) as full:
        ask(full.port, 100, retry=patient)
        assert full.num_calls < 150  # of 600


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (server_errors.overloaded().message, {"throttle": None}),
        (server_errors.stopping().message, {}),  # another server may answer
    ],
    ids=["throttle-off", "not-full"],
)
def test_what_is_sent_all_the_same(words, options) -> None:
    with Full(words) as full:
        ask(full.port, 100, retry=RetryPolicy(max_retries=0), **options)
        assert full.num_calls == 100
