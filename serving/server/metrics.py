"""Prometheus metrics of the server, under TF Serving's names and with its microseconds."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

_LABELS = ("model", "version", "method", "code")
_PREFIX = ":tensorflow:serving:"
_LATENCY_BUCKETS_US = [
    scale * 10**power for power in range(2, 7) for scale in (1, 2, 5)
]  # 100 us to 5 s


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
            metric.add_sample(name, dict(zip(_LABELS, labels, strict=True)), count)
        yield metric


class ServerMetrics:
    """Counts and times requests, by model, version, method and status code.

    Requests for models that are not served carry empty `model` and `version` labels, so that
    callers cannot make up label values.

    Attributes:
        registry: What an exporter serves.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._count = _RequestCount()
        self.registry.register(self._count)
        self._latency = Histogram(
            f"{_PREFIX}request_latency",
            "Time from a request's start in the server to its answer, in microseconds.",
            _LABELS,
            buckets=_LATENCY_BUCKETS_US,
            registry=self.registry,
        )

    def observe(
        self, *, model: str, version: str, method: str, code: str, latency_us: float
    ) -> None:
        """Records one answered request.

        Args:
            model: The served model, or empty.
            version: The version that answered, or empty.
            method: The method's name.
            code: Name of the status code, ``OK`` for an answer.
            latency_us: Microseconds from start to answer.
        """
        labels = (model, version, method, code)
        self._count.increment(labels)
        self._latency.labels(*labels).observe(latency_us)
