"""The one metric that stands for an output where there is room for one, and judging differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.report.blocks import Tone
from models.spec.metric import METRICS
from models.spec.ranking import RankingSpec
from models.spec.task import Output


def headline_metric(output: Output, ranking: RankingSpec) -> str:
    """Returns the first gated metric that has a better direction, else the first such metric.

    An output without gates of its own (a conditional one) follows its task.
    """
    gated = [metric for metric in ranking.tasks[output.task].gates if metric in output.metrics]
    for metric in [*gated, *output.metrics]:
        if METRICS[metric].higher_is_better is not None:
            return metric
    return output.metrics[0]


def space_of(output: Output, ranking: RankingSpec) -> str:
    """Says on which impressions an output is measured."""
    task = ranking.tasks[output.task]
    masked = f" where {task.mask}" if task.mask else ""
    if output.space == "entire":
        return (
            f"over all impressions{masked}: the probability of {task.conditioned_on} "
            f"and {output.task} together"
            if output.kind == "binary"
            else f"over all impressions{masked}: weighted by the probability of "
            f"{task.conditioned_on}"
        )
    if output.space == "conditional":
        return f"over impressions with {task.conditioned_on}{masked and f' and{masked}'}"
    return f"over impressions{masked}" if masked else "over all impressions"


def judge(metric: str, difference: Mapping[str, Any]) -> Tone:
    """Judges a difference to a reference: good or bad if its interval excludes 0, else muted."""
    definition = METRICS.get(metric)
    low, high = difference.get("low"), difference.get("high")
    if definition is None or definition.higher_is_better is None or low is None or high is None:
        return "muted"
    if low > 0:
        return "good" if definition.higher_is_better else "bad"
    if high < 0:
        return "bad" if definition.higher_is_better else "good"
    return "muted"
