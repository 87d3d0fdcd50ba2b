"""The metrics a task can report and be gated on."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class MetricDefinition:
    """What a metric means, apart from how it is computed.

    Attributes:
        name: The name used in configs, summaries and dashboards.
        higher_is_better: True, False, or None where the best value lies inside (calibration: 1).
        kinds: The task kinds it applies to.
        grouped: Whether it is computed inside groups (slates or users).
    """

    name: str
    higher_is_better: bool | None
    kinds: frozenset[str]
    grouped: bool = False


_BINARY = frozenset({"binary"})
_REAL = frozenset({"duration", "count", "regression"})

METRICS = MappingProxyType(
    {
        m.name: m
        for m in (
            MetricDefinition("auc", True, _BINARY),
            MetricDefinition("gauc", True, _BINARY, grouped=True),
            MetricDefinition("pr_auc", True, _BINARY),
            MetricDefinition("log_loss", False, _BINARY),
            MetricDefinition("normalized_entropy", False, _BINARY),
            MetricDefinition("calibration", None, _BINARY | _REAL),
            MetricDefinition("ece", False, _BINARY),
            MetricDefinition("mae", False, _REAL),
            MetricDefinition("rmse", False, _REAL),
            MetricDefinition("spearman", True, _REAL),
            MetricDefinition("xauc", True, _REAL),
            MetricDefinition("ndcg", True, _BINARY | _REAL, grouped=True),
        )
    }
)


def default_metrics(kind: str) -> tuple[str, ...]:
    """Returns every metric that applies to a task kind, in the order of `METRICS`."""
    return tuple(name for name, metric in METRICS.items() if kind in metric.kinds)
