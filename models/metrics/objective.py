"""The declared objective: which epoch, which weights and which candidate are best."""

from __future__ import annotations

import math
from collections.abc import Mapping

from models.spec.metric import METRICS

Measured = Mapping[str, Mapping[str, float]]
"""Output name to metric name to value; NaN where a metric is undefined."""


def objective_value(weights: Mapping[str, float], measured: Measured) -> float | None:
    """Adds up the declared objective: higher is better.

    Args:
        weights: Weight by ``<output>.<metric>``.
        measured: The metrics.

    Returns:
        The sum of weight times metric, lower-is-better metrics with a minus; None where a metric is
        undefined. Without its term, a model that diverged would be better than one that did not.
    """
    if undefined_terms(weights, measured):
        return None
    terms = []
    for key, weight in sorted(weights.items()):
        output, _, metric = key.partition(".")
        sign = 1 if METRICS[metric].higher_is_better else -1
        terms.append(sign * weight * measured[output][metric])
    return math.fsum(terms)


def undefined_terms(weights: Mapping[str, float], measured: Measured) -> list[str]:
    """Returns the keys of an objective whose metric is undefined, sorted."""
    found = []
    for key in sorted(weights):
        output, _, metric = key.partition(".")
        if not math.isfinite(measured[output][metric]):
            found.append(key)
    return found
