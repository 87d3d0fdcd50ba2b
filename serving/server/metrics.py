"""Prometheus metrics of the server, under TF Serving's names and with its microseconds."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from serving.server.call import Call

_PREFIX = ":tensorflow:serving:"
_COUNT_LABELS = ("model_name", "version", "API", "status")
_LATENCY_BUCKETS_US = [
    scale * 10**power for power in range(2, 7) for scale in (1, 2, 5)
]  # 100 us to 5 s
_EXAMPLE_BUCKETS = [2**power for power in range(15)]  # TF Serving's


class _RequestCount(Collector):
    """Counts requests; prometheus_client's own Counter would append ``_total`` to the name."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._lock = threading.Lock()

    def increment(self, labels: tuple[str, ...]) -> None:
        with self._lock:
            self._counts[labels] += 1

    def collect(self) -> Iterator[Metric]:
        name = f"{_PREFIX}request_count"
        metric = Metric(name, "Requests answered, by status code.", "untyped")
        with self._lock:
            counts = list(self._counts.items())
        for labels, count in counts:
            metric.add_sample(name, dict(zip(_COUNT_LABELS, labels, strict=True)), count)
        yield metric


class ServerMetrics:
    """Counts and times requests, by model, version, method and status code.

    Names, units and labels are TF Serving's; `version` is added everywhere, and `API` to the
    count. Requests for models that are not served carry empty `model_name` and `version` labels,
    so that callers cannot make up label values.

    Attributes:
        registry: What an exporter serves.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._count = _RequestCount()
        self.registry.register(self._count)
        self._latency = self._histogram(
            "request_latency",
            "Time from a request's start in the server to its answer, in microseconds.",
            ("model_name", "version", "API", "entrypoint"),
        )
        self._runtime_latency = self._histogram(
            "runtime_latency",
            "Time that TensorFlow took for a request, queue for a batch included, in microseconds.",
            ("model_name", "version", "API", "runtime"),
        )
        self._example_counts = self._histogram(
            "request_example_counts",
            "Rows of a request.",
            ("model", "version"),
            _EXAMPLE_BUCKETS,
        )
        self._warmup_latency = self._histogram(
            "model_warmup_latency",
            "Time that a version's warm-up requests took, in microseconds.",
            ("model_name", "version", "status"),
        )
        self._queuing_latency = self._histogram(
            "batching_session:queuing_latency",
            "Time that a request waited for its batch, in microseconds.",
            ("model_name", "version", "thread_pool_name"),
        )

    def _histogram(
        self,
        name: str,
        description: str,
        labels: tuple[str, ...],
        buckets: list[int] = _LATENCY_BUCKETS_US,
    ) -> Histogram:
        return Histogram(
            _PREFIX + name, description, labels, buckets=buckets, registry=self.registry
        )

    def observe(self, call: Call, *, method: str, code: str, seconds: float) -> None:
        """Records one answered request.

        Args:
            call: The call, with what the method told about it.
            method: The method's name.
            code: Name of the status code, ``OK`` for an answer.
            seconds: From the start in the server to the answer.
        """
        self._count.increment((call.model, call.version, method, code))
        self._latency.labels(call.model, call.version, method, call.entrypoint).observe(
            seconds * 1e6
        )
        if call.runtime_seconds is not None:
            self._runtime_latency.labels(call.model, call.version, method, "TF1").observe(
                call.runtime_seconds * 1e6
            )
        if call.num_examples is not None:
            self._example_counts.labels(call.model, call.version).observe(call.num_examples)

    def count_refused(self, method: str, code: str) -> None:
        """Counts a request that was not taken, for want of room.

        Its message was not read, so the model's name and version are empty; it is not among the
        latencies, which are of requests that were worked on.
        """
        self._count.increment(("", "", method, code))

    def observe_warmup(self, model: str, version: str, *, code: str, seconds: float) -> None:
        """Records one warm-up."""
        self._warmup_latency.labels(model, version, code).observe(seconds * 1e6)

    def observe_queuing(self, model: str, version: str, seconds: float) -> None:
        """Records how long a request waited for its batch."""
        self._queuing_latency.labels(model, version, "batch_threads").observe(seconds * 1e6)
