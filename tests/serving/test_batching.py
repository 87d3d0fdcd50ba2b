"""Dynamic batching: what shares a batch, what never does, what fails alone. Without TensorFlow."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from models.spec.errors import ConfigError
from serving.server.batching import BatchedModel, BatchingOptions, BatchThreads
from serving.server.errors import StatusError

CODES = grpc.StatusCode


class Doubler:
    """Doubles `x`; refuses 13; holds every run until it may go on."""

    signatures: dict[str, object] = {}
    signature_defs: dict[str, object] = {}

    def __init__(self) -> None:
        self.runs: list[tuple[list[int], tuple[str, ...]]] = []
        self.timeouts: list[float | None] = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.has_begun = threading.Event()
        self.is_closed = False

    def run(self, feeds, fetches, timeout_seconds=None, *, is_batchable=False):
        assert not is_batchable
        self.has_begun.set()
        assert self.may_run.wait(30)
        self.runs.append(([len(value) for value in feeds.values()], tuple(fetches)))
        self.timeouts.append(timeout_seconds)
        (x, *_) = feeds.values()
        if 13 in x:
            raise StatusError(CODES.INVALID_ARGUMENT, "thirteen")
        return [np.asarray(x) * 2 if name == "double" else np.sum(x) for name in fetches]

    def close(self) -> None:
        self.is_closed = True


class Rig:
    """A batched model whose one batch thread can be kept busy while requests queue."""

    def __init__(self, **options) -> None:
        self.model = Doubler()
        self.threads = BatchThreads(1)
        self.waited: list[float] = []
        self.batched = BatchedModel(
            self.model, BatchingOptions(**options), self.threads, self.waited.append
        )
        self.pool = ThreadPoolExecutor(32)

    def ask(self, *x: float, fetches=("double",), timeout=None, is_batchable=True, feeds=None):
        feeds = feeds or {"x": np.array(x)}
        return self.pool.submit(
            self.batched.run, feeds, fetches, timeout, is_batchable=is_batchable
        )

    def hold(self) -> object:
        """Occupies the batch thread; returns the request that does."""
        self.model.has_begun.clear()
        self.model.may_run.clear()
        held = self.ask(100.0)
        assert self.model.has_begun.wait(30)
        return held

    def queued(self, num_tasks: int) -> None:
        """Waits until so many requests wait in queues."""
        end = time.monotonic() + 30
        while True:
            with self.batched._changed:
                queues = self.batched._queues.values()
                if sum(len(b.tasks) for queue in queues for b in queue) == num_tasks:
                    return
            assert time.monotonic() < end
            time.sleep(0.001)

    def go(self) -> None:
        self.model.runs.clear()
        self.model.may_run.set()

    def close(self) -> None:
        self.model.may_run.set()
        self.batched.close()
        self.threads.stop()
        self.pool.shutdown()


@pytest.fixture
def rig():
    rigs: list[Rig] = []

    def make(**options) -> Rig:
        rigs.append(Rig(**options))
        return rigs[-1]

    yield make
    for each in rigs:
        each.close()


def values(future) -> list[list[float]]:
    return [np.asarray(value).tolist() for value in future.result(30)]


def test_requests_that_wait_share_a_run_and_get_their_own_rows(rig) -> None:
    r = rig()
    held = r.hold()
    asked = [r.ask(1.0), r.ask(2.0, 3.0), r.ask(4.0)]
    r.queued(3)
    r.go()
    found = [values(future)[0] for future in asked]
    assert sorted(map(tuple, found)) == [(2.0,), (4.0, 6.0), (8.0,)]
    assert found[1] == [4.0, 6.0]
    assert [sizes for sizes, _ in r.model.runs] == [[1], [4]]
    assert values(held) == [[200.0]]
    assert len(r.waited) == 4


def test_a_request_alone_does_not_wait_by_default(rig) -> None:
    assert values(rig().ask(1.0)) == [[2.0]]


def test_a_batch_waits_for_its_timeout_but_not_when_it_is_full(rig) -> None:
    r = rig(batch_timeout_micros=20_000_000, max_batch_size=4)
    first = r.ask(1.0)
    r.queued(1)
    assert not r.model.runs
    others = [r.ask(2.0), r.ask(3.0, 4.0)]
    assert values(first) == [[2.0]]
    for other in others:
        other.result(30)
    assert [sizes for sizes, _ in r.model.runs] == [[4]]


def test_a_batch_that_waits_is_run_when_its_time_has_come(rig) -> None:
    r = rig(batch_timeout_micros=50_000)
    start = time.monotonic()
    assert values(r.ask(1.0)) == [[2.0]]
    assert time.monotonic() - start >= 0.05


def test_batches_do_not_exceed_their_size(rig) -> None:
    r = rig(max_batch_size=3)
    r.hold()
    asked = [r.ask(1.0, 2.0)]
    r.queued(1)
    asked.append(r.ask(3.0, 4.0))
    r.queued(2)
    r.go()
    assert [values(future)[0] for future in asked] == [[2.0, 4.0], [6.0, 8.0]]
    assert [sizes for sizes, _ in r.model.runs] == [[1], [2], [2]]


def test_a_request_larger_than_a_batch(rig) -> None:
    with pytest.raises(StatusError, match="Task size 4 is larger than maximum") as failure:
        rig(max_batch_size=3).ask(1.0, 2.0, 3.0, 4.0).result(30)
    assert failure.value.code is CODES.INVALID_ARGUMENT


def test_queues_are_of_equal_inputs_and_outputs(rig) -> None:
    r = rig()
    r.hold()
    asked = [
        r.ask(1.0),
        r.ask(1.0, feeds={"y": np.array([1.0])}),
        r.ask(1.0, fetches=("double", "sum")),
        r.ask(2.0),
    ]
    r.queued(4)
    r.go()
    for future in asked:
        future.result(30)
    runs = [(sizes, fetches) for sizes, fetches in r.model.runs[1:]]  # without the one held
    assert sorted(runs) == [([1], ("double",)), ([1], ("double", "sum")), ([2], ("double",))]


def test_rows_of_other_shapes_run_in_another_batch(rig) -> None:
    r = rig()
    r.hold()
    wide = r.ask(feeds={"x": np.ones((1, 5))})
    r.queued(1)
    narrow = r.ask(feeds={"x": np.ones((1, 2))})
    r.queued(2)
    r.go()
    assert np.shape(values(wide)[0]) == (1, 5)
    assert np.shape(values(narrow)[0]) == (1, 2)


def test_signatures_that_are_not_batchable_run_alone(rig) -> None:
    r = rig()
    assert values(r.ask(1.0, 2.0, fetches=("sum",), is_batchable=False)) == [3.0]
    assert r.model.runs == [([2], ("sum",))]
    assert not r.waited


def test_a_poison_request_fails_alone(rig) -> None:
    r = rig()
    r.hold()
    good, bad, other = r.ask(1.0), r.ask(13.0), r.ask(2.0, 3.0)
    r.queued(3)
    r.go()
    assert values(good) == [[2.0]]
    assert values(other) == [[4.0, 6.0]]
    with pytest.raises(StatusError, match="thirteen"):
        bad.result(30)
    # All together, then each alone.
    assert sorted(sizes[0] for sizes, _ in r.model.runs) == [1, 1, 1, 2, 4]


def test_outputs_without_rows_are_computed_for_each_request_alone(rig) -> None:
    r = rig()
    r.hold()
    asked = [r.ask(1.0, 2.0, fetches=("sum",)), r.ask(10.0, fetches=("sum",))]
    r.queued(2)
    r.go()
    assert [values(future) for future in asked] == [[3.0], [10.0]]


def test_allowed_sizes_fill_a_batch_up_and_nobody_sees_it(rig) -> None:
    r = rig(max_batch_size=8, allowed_batch_sizes=(4, 8))
    assert values(r.ask(1.0)) == [[2.0]]
    assert r.model.runs[-1][0] == [4]
    r.hold()
    asked = [r.ask(1.0, 2.0, 3.0), r.ask(4.0, 5.0)]
    r.queued(2)
    r.go()
    assert [values(future)[0] for future in asked] == [[2.0, 4.0, 6.0], [8.0, 10.0]]
    assert r.model.runs[-1][0] == [8]


def test_a_full_queue_refuses(rig) -> None:
    r = rig(max_batch_size=1, max_enqueued_batches=2)
    r.hold()
    waiting = [r.ask(1.0), r.ask(2.0)]
    r.queued(2)
    with pytest.raises(StatusError, match="is full") as failure:
        r.ask(3.0).result(30)
    assert failure.value.code is CODES.UNAVAILABLE
    r.go()
    assert sorted(values(future)[0] for future in waiting) == [[2.0], [4.0]]


def test_a_deadline_that_passes_in_the_queue(rig) -> None:
    r = rig()
    r.hold()
    late, patient = r.ask(1.0, timeout=0.05), r.ask(2.0, timeout=30.0)
    with pytest.raises(StatusError, match="expired in queue") as failure:
        late.result(30)
    assert failure.value.code is CODES.RESOURCE_EXHAUSTED
    r.go()
    assert values(patient) == [[4.0]]
    assert [sizes for sizes, _ in r.model.runs] == [[1], [1]]  # the late one was never run


def test_a_batch_has_the_longest_deadline_of_its_members(rig) -> None:
    r = rig()
    r.hold()
    asked = [r.ask(1.0, timeout=5.0), r.ask(2.0, timeout=20.0)]
    r.queued(2)
    r.go()
    for future in asked:
        future.result(30)
    assert r.model.timeouts[-1] is not None
    assert 15 < r.model.timeouts[-1] <= 20
    r.hold()
    asked = [r.ask(1.0, timeout=5.0), r.ask(2.0)]
    r.queued(2)
    r.go()
    for future in asked:
        future.result(30)
    assert r.model.timeouts[-1] is None


def test_closing_ends_what_waits(rig) -> None:
    r = rig()
    r.hold()
    waiting = r.ask(1.0)
    r.queued(1)
    r.batched.close()
    with pytest.raises(StatusError) as failure:
        waiting.result(30)
    assert failure.value.code is CODES.UNAVAILABLE
    assert r.model.is_closed
    with pytest.raises(StatusError):
        r.ask(1.0).result(30)


def test_models_share_the_threads_in_turn(rig) -> None:
    r = rig()
    other = BatchedModel(Doubler(), BatchingOptions(), r.threads)
    assert other.run({"x": np.array([1.0])}, ["double"], is_batchable=True)[0].tolist() == [2.0]
    assert values(r.ask(2.0)) == [[4.0]]
    other.close()


@pytest.mark.parametrize(
    "options",
    [
        {"max_batch_size": 0},
        {"batch_timeout_micros": -1},
        {"max_enqueued_batches": 0},
        {"num_batch_threads": 0},
        {"max_batch_size": 8, "allowed_batch_sizes": (2, 4)},
        {"max_batch_size": 4, "allowed_batch_sizes": (4, 2)},
        {"max_batch_size": 4, "allowed_batch_sizes": (0, 4)},
    ],
)
def test_options_out_of_range(options) -> None:
    with pytest.raises(ConfigError, match="batching option"):
        BatchingOptions(**options)
