"""Dynamic batching with TF Serving's parameters: rows of several requests in one run."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import grpc

from serving.api.tensors import Array
from serving.server import errors
from serving.server.batching_options import BatchingOptions
from serving.server.runtime import LoadedModel
from serving.server.sent_strings import Value, concatenated, repeated_first

_Key = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(eq=False)
class _Task:
    """One request that waits for its rows' turn."""

    values: tuple[Value, ...]
    deadline: float | None
    enqueued: float = field(default_factory=time.monotonic)
    done: threading.Event = field(default_factory=threading.Event)
    is_running: bool = False
    results: list[Array] | None = None
    error: Exception | None = None

    @property
    def size(self) -> int:
        return len(self.values[0])

    @property
    def row_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(value.shape[1:] for value in self.values)

    def finish(self, results: list[Array] | None, error: Exception | None = None) -> None:
        self.results = results
        self.error = error
        self.done.set()


@dataclass(eq=False)
class _Batch:
    """Tasks that run together: of one queue, of equal row shapes."""

    key: _Key
    tasks: list[_Task]
    size: int
    due: float

    def takes(self, task: _Task, max_size: int) -> bool:
        return self.size + task.size <= max_size and self.tasks[0].row_shapes == task.row_shapes


class BatchThreads:
    """The threads that run batches, shared by all models and versions.

    Args:
        num_threads: How many batches run at once.
    """

    def __init__(self, num_threads: int) -> None:
        self._changed = threading.Condition()
        self._batchers: OrderedDict[int, BatchedModel] = OrderedDict()
        self._is_stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True)
            for number in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def add(self, batcher: BatchedModel) -> threading.Condition:
        """Begins to run a model's batches; returns what guards its queues."""
        with self._changed:
            self._batchers[id(batcher)] = batcher
        return self._changed

    def remove(self, batcher: BatchedModel) -> None:
        """Stops running a model's batches."""
        with self._changed:
            self._batchers.pop(id(batcher), None)

    def stop(self) -> None:
        """Ends the threads after the batches that they run."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                taken = self._next()
                while taken is None:
                    if self._is_stopping:
                        return
                    self._changed.wait(self._seconds_to_next_due())
                    taken = self._next()
            batcher, batch = taken
            batcher.run_batch(batch)
            del batcher, batch, taken  # lest an idle thread keep an unloaded version alive

    def _next(self) -> tuple[BatchedModel, _Batch] | None:
        """Takes a batch that is full or due, from the models in turn."""
        for key, batcher in self._batchers.items():
            batch = batcher.take_due()
            if batch is not None:
                self._batchers.move_to_end(key)
                return batcher, batch
        return None

    def _seconds_to_next_due(self) -> float | None:
        dues = [due for batcher in self._batchers.values() for due in batcher.dues()]
        return max(0.0, min(dues) - time.monotonic()) if dues else None


class BatchedModel:
    """A loaded version whose runs, where that is possible, share batches.

    Runs share a batch if they feed and fetch the same tensors and their rows have the same
    shapes. If a batch fails, its members are run again alone, so that only the one that was at
    fault fails; TF Serving fails them all. Signatures whose rows see each other (`rank`) always
    run alone.

    Args:
        model: The version.
        options: Batching parameters.
        threads: What runs the batches.
        observe_queuing: Told how many seconds each request waited.
    """

    def __init__(
        self,
        model: LoadedModel,
        options: BatchingOptions,
        threads: BatchThreads,
        observe_queuing: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.signatures = model.signatures
        self.signature_defs = model.signature_defs
        self._model = model
        self._options = options
        self._threads = threads
        self._observe_queuing = observe_queuing
        self._queues: dict[_Key, deque[_Batch]] = {}
        self._is_closed = False
        self._changed = threads.add(self)

    def run(
        self,
        feeds: Mapping[str, Value],
        fetches: Sequence[str],
        timeout_seconds: float | None = None,
        *,
        is_batchable: bool = False,
    ) -> list[Array]:
        """Computes tensors of the graph; see `SavedModelRuntime.run`.

        Raises:
            StatusError: Also INVALID_ARGUMENT for more rows than a batch takes, UNAVAILABLE if
                the queue is full, RESOURCE_EXHAUSTED if the deadline passes in it.
        """
        values = tuple(feeds.values())
        sizes = {len(value) for value in values if value.ndim}
        # Rows that do not fit each other are the model's to refuse, and empty requests cost little.
        if not is_batchable or len(sizes) != 1 or 0 in sizes:
            return self._model.run(feeds, fetches, timeout_seconds)
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        task = _Task(values, deadline)
        if task.size > self._options.max_batch_size:
            raise errors.batch_too_large(task.size, self._options.max_batch_size)
        self._enqueue((tuple(feeds), tuple(fetches)), task)
        if not task.done.wait(timeout_seconds):
            raise errors.timed_out() if task.is_running else errors.expired_in_queue()
        if task.error is not None:
            raise task.error
        assert task.results is not None
        return task.results

    def close(self) -> None:
        """Frees the version; what waits for a batch ends with UNAVAILABLE."""
        with self._changed:
            self._is_closed = True
            waiting = [task for queue in self._queues.values() for b in queue for task in b.tasks]
            self._queues.clear()
        self._threads.remove(self)
        for task in waiting:
            task.finish(None, errors.stopping())
        self._model.close()

    def _enqueue(self, key: _Key, task: _Task) -> None:
        with self._changed:
            if self._is_closed:
                raise errors.stopping()
            queue = self._queues.setdefault(key, deque())
            if queue and queue[-1].takes(task, self._options.max_batch_size):
                queue[-1].tasks.append(task)
                queue[-1].size += task.size
            elif len(queue) >= self._options.max_enqueued_batches:
                raise errors.batch_queue_full(len(queue))
            else:
                due = task.enqueued + self._options.batch_timeout_micros / 1e6
                queue.append(_Batch(key, [task], task.size, due))
            self._changed.notify()

    def take_due(self) -> _Batch | None:
        """Takes the batch that is due for longest; call it with the condition held.

        A batch is due when it is full, when another waits behind it, or after its time.
        """
        now = time.monotonic()
        due = [
            queue
            for queue in self._queues.values()
            if queue
            and (
                len(queue) > 1
                or queue[0].due <= now
                or queue[0].size >= self._options.max_batch_size
            )
        ]
        if not due:
            return None
        queue = min(due, key=lambda queue: queue[0].due)
        batch = queue.popleft()
        if not queue:
            # Callers choose the outputs, so there could be any number of queues.
            del self._queues[batch.key]
        return batch

    def dues(self) -> list[float]:
        """When the batches that wait are due; call it with the condition held."""
        return [queue[0].due for queue in self._queues.values() if queue]

    def run_batch(self, batch: _Batch) -> None:
        """Runs a batch and gives each member its rows or its error."""
        now = time.monotonic()
        members = []
        for task in batch.tasks:
            self._observe_queuing(now - task.enqueued)
            if task.deadline is not None and task.deadline <= now:
                task.finish(None, errors.expired_in_queue())
            else:
                task.is_running = True
                members.append(task)
        if not members:
            return
        try:
            if len(members) == 1:
                self._run_alone(batch.key, members[0])
            else:
                self._run_together(batch.key, members)
        except Exception as error:
            for task in members:
                if not task.done.is_set():
                    task.finish(None, error)

    def _run_together(self, key: _Key, members: Sequence[_Task]) -> None:
        size = sum(task.size for task in members)
        try:
            results = self._run(
                key,
                [
                    self._filled_up(concatenated(columns), size)
                    for columns in zip(*(task.values for task in members), strict=True)
                ],
                _latest(members),
            )
        except errors.StatusError as error:
            if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            results = None
        padded = self._options.padded(size)
        if results is None or any(r.ndim == 0 or len(r) != padded for r in results):
            for task in members:
                self._run_alone(key, task)
            return
        start = 0
        for task in members:
            task.finish([result[start : start + task.size] for result in results])
            start += task.size

    def _run_alone(self, key: _Key, task: _Task) -> None:
        try:
            values = [self._filled_up(value, task.size) for value in task.values]
            results = self._run(key, values, task.deadline)
        except Exception as error:
            task.finish(None, error)
            return
        padded = self._options.padded(task.size)
        task.finish([r[: task.size] if r.ndim and len(r) == padded else r for r in results])

    def _run(self, key: _Key, values: Sequence[Value], deadline: float | None) -> list[Array]:
        feeds, fetches = key
        seconds = None if deadline is None else deadline - time.monotonic()
        return self._model.run(dict(zip(feeds, values, strict=True)), fetches, seconds)

    def _filled_up(self, value: Value, size: int) -> Value:
        """Fills a batch up to an allowed size, with its first row, which is a valid one."""
        missing = self._options.padded(size) - size
        return value if missing == 0 else concatenated([value, repeated_first(value, missing)])


def _latest(members: Sequence[_Task]) -> float | None:
    deadlines = [task.deadline for task in members if task.deadline is not None]
    return max(deadlines) if len(deadlines) == len(members) else None
