"""The metrics a task can report and be gated on."""

from __future__ import annotations

import math
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
        least: No value is below; -inf if none is the least.
        most: No value is above; inf if none is the most.
    """

    name: str
    higher_is_better: bool | None
    kinds: frozenset[str]
    grouped: bool = False
    least: float = -math.inf
    most: float = math.inf


_BINARY = frozenset({"binary"})
_REAL = frozenset({"duration", "count", "regression"})

METRICS = MappingProxyType(
    {
        m.name: m
        for m in (
            MetricDefinition("auc", True, _BINARY, least=0, most=1),
            MetricDefinition("gauc", True, _BINARY, grouped=True, least=0, most=1),
            MetricDefinition("pr_auc", True, _BINARY, least=0, most=1),
            MetricDefinition("log_loss", False, _BINARY, least=0),
            MetricDefinition("normalized_entropy", False, _BINARY, least=0),
            MetricDefinition("calibration", None, _BINARY | _REAL),
            MetricDefinition("ece", False, _BINARY, least=0, most=1),
            MetricDefinition("mae", False, _REAL, least=0),
            MetricDefinition("rmse", False, _REAL, least=0),
            MetricDefinition("spearman", True, _REAL, least=-1, most=1),
            MetricDefinition("xauc", True, _REAL, least=0, most=1),
            MetricDefinition("ndcg", True, _BINARY | _REAL, grouped=True, least=0, most=1),
        )
    }
)


def default_metrics(kind: str) -> tuple[str, ...]:
    """Returns every metric that applies to a task kind, in the order of `METRICS`."""
    return tuple(name for name, metric in METRICS.items() if kind in metric.kinds)
