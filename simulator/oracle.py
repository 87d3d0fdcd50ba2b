"""How good the best possible model would be: the metrics of the true probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from simulator.population import Floats, Ints

TaskMetrics = dict[str, dict[str, float | None]]
"""Value by task and metric; None where a metric is not defined (one class only, no clicks)."""


@dataclass(frozen=True)
class Judged:
    """Truth and outcome side by side, one entry per shown item.

    Attributes:
        request: Number of the request, ascending.
        click_probability: True probability of a click.
        conversion_probability: True probability of a click and a conversion inside the window.
        median_watch_seconds: True median given a click.
        clicked: Whether there was a click.
        converted: Whether there was a conversion inside the window.
        watch_seconds: Length of the visit; NaN without a click.
    """

    request: Ints
    click_probability: Floats
    conversion_probability: Floats
    median_watch_seconds: Floats
    clicked: NDArray[np.bool_]
    converted: NDArray[np.bool_]
    watch_seconds: Floats

    @classmethod
    def concatenated(cls, parts: list[Judged]) -> Judged:
        """Stacks the rows of several days, in order."""
        names = vars(parts[0])
        return cls(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in names})


def oracle_metrics(judged: Judged) -> TaskMetrics:
    """Computes the metrics of a model that predicts the truth.

    Args:
        judged: Rows to judge.

    Returns:
        For `click` and `conversion` (entire space): auc, log_loss, normalized_entropy, gauc (by
        request). For `watch_seconds` (clicked rows, predicting the median): mae, spearman, xauc.
    """
    watched = judged.clicked
    return {
        "click": _binary(judged.clicked, judged.click_probability, judged.request),
        "conversion": _binary(judged.converted, judged.conversion_probability, judged.request),
        "watch_seconds": _duration(
            judged.watch_seconds[watched], judged.median_watch_seconds[watched]
        ),
    }


def _binary(
    label: NDArray[np.bool_], probability: Floats, request: Ints
) -> dict[str, float | None]:
    loss = log_loss(label, probability)
    rate = float(label.mean())
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)) if 0 < rate < 1 else None
    return {
        "auc": auc(label, probability),
        "log_loss": loss,
        "normalized_entropy": None if entropy is None else float(loss / entropy),
        "gauc": grouped_auc(label, probability, request),
    }


def _duration(actual: Floats, predicted: Floats) -> dict[str, float | None]:
    if len(actual) < 2:
        return {"mae": None, "spearman": None, "xauc": None}
    return {
        "mae": float(np.abs(actual - predicted).mean()),
        "spearman": float(stats.spearmanr(actual, predicted).statistic),
        "xauc": xauc(actual, predicted),
    }


def auc(label: NDArray[np.bool_], score: Floats) -> float | None:
    """Area under the ROC curve: the share of (positive, negative) pairs in the right order."""
    return grouped_auc(label, score, np.zeros(len(label), dtype=np.int64))


def grouped_auc(label: NDArray[np.bool_], score: Floats, group: Ints) -> float | None:
    """Mean of the AUCs inside groups, weighted by their rows (Zhu, KDD 2017).

    Args:
        label: True for positives, [rows].
        score: Predictions, [rows].
        group: Group of each row, ascending, [rows].

    Returns:
        The mean over groups that have both classes; None without any. Ties count one half.
    """
    order = np.lexsort((score, group))
    label, score, group = label[order], score[order], group[order]
    _, first, size = np.unique(group, return_index=True, return_counts=True)
    starts_tie = np.r_[True, (np.diff(score) != 0) | (np.diff(group) != 0)]
    tie = np.cumsum(starts_tie) - 1
    tie_first = np.flatnonzero(starts_tie)
    tie_size = np.diff(np.r_[tie_first, len(label)])
    number = np.repeat(np.arange(len(first)), size)
    rank = tie_first[tie] - first[number] + (tie_size[tie] + 1) / 2
    positives = np.bincount(number, weights=label)
    negatives = size - positives
    rank_sum = np.bincount(number, weights=rank * label)
    pairs = positives * negatives
    usable = pairs > 0
    if not usable.any():
        return None
    right = rank_sum - positives * (positives + 1) / 2
    return float(np.average(right[usable] / pairs[usable], weights=size[usable]))


def log_loss(label: NDArray[np.bool_], probability: Floats) -> float:
    """Mean negative log likelihood, in nats."""
    return float(-np.where(label, np.log(probability), np.log1p(-probability)).mean())


def xauc(actual: Floats, predicted: Floats) -> float | None:
    """Share of pairs with different outcomes that are in the right order; ties count one half."""
    num_pairs = len(actual) * (len(actual) - 1) / 2
    differing = num_pairs - _tied_pairs(actual)
    ordered = num_pairs - _tied_pairs(predicted)
    if differing == 0:
        return None
    if ordered == 0:
        return 0.5
    # tau_b = (concordant - discordant) / sqrt(differing * ordered)
    tau = float(stats.kendalltau(actual, predicted).statistic)
    return float(0.5 * (1.0 + tau * np.sqrt(ordered / differing)))


def _tied_pairs(values: Floats) -> float:
    _, counts = np.unique(values, return_counts=True)
    return float((counts * (counts - 1) / 2).sum())
