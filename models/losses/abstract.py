"""The contract of losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.float64]

MAX_EXPONENT = 20.0
"""Exponents are held below this: e^20 seconds are 15 years, and float32 stays finite."""

_MIN_RATE = 1e-4


@dataclass(frozen=True)
class TargetStatistics:
    """What a loss knows of its task's labels on the train split, where the weight is positive.

    Attributes:
        scale: Standard deviation; 1 where it is 0 or unknown. Losses on the target itself divide
            by it, so that task weights compare across units.
        largest: Largest label; predictions of losses with a logarithmic link stay below it.
    """

    scale: float = 1.0
    largest: float = float("inf")

    @classmethod
    def of(cls, labels: Numbers, weights: Numbers) -> TargetStatistics:
        """Measures labels [n] with weights [n]."""
        labels, weights = present(labels, weights)
        if not len(labels):
            return cls()
        mean = np.average(labels, weights=weights)
        scale = float(np.sqrt(np.average((labels - mean) ** 2, weights=weights)))
        usable = np.isfinite(scale) and scale > 1e-12
        return cls(scale=scale if usable else 1.0, largest=float(labels.max()))


class Loss(ABC):
    """From the outputs of a task's head to a loss per row and to a prediction in natural units.

    Args:
        config: The declared loss.
        statistics: Measured on the train split.
    """

    units: ClassVar[int] = 1
    """Width of the head's output."""
    squared_error: ClassVar[bool] = False
    """Whether it is a squared error, a Gaussian's likelihood without its variance."""

    def __init__(self, config: Any, statistics: TargetStatistics | None = None) -> None:
        """Keeps the settings."""
        self.config: Any = config
        self.statistics = statistics or TargetStatistics()

    @abstractmethod
    def per_row(self, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Computes the loss of each row.

        Args:
            outputs: Head outputs, float32 [batch, units].
            labels: Natural units, float32 [batch], finite.

        Returns:
            Float32 [batch], finite.
        """

    @abstractmethod
    def prediction(self, outputs: tf.Tensor) -> tf.Tensor:
        """Maps head outputs [batch, units] to natural units [batch], e.g. seconds."""

    @abstractmethod
    def initial_bias(self, labels: Numbers, weights: Numbers) -> list[float]:
        """Returns head biases [units] that predict a typical label before any training.

        Args:
            labels: Train labels, [n].
            weights: Their weights, [n]; rows with weight 0 are absent.
        """

    def _at_most_largest(self, values: tf.Tensor) -> tf.Tensor:
        return tf.minimum(values, self.statistics.largest)


def present(labels: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """Drops rows without weight; float64."""
    kept = weights > 0
    return labels[kept].astype(np.float64), weights[kept].astype(np.float64)


def weighted_mean(values: Numbers, weights: Numbers) -> float:
    """Returns the mean; 0 without rows."""
    return float(np.average(values, weights=weights)) if len(values) else 0.0


def weighted_quantile(values: Numbers, weights: Numbers, quantile: float) -> float:
    """Returns the least value that reaches a share `quantile` of the weight; 0 without rows."""
    if not len(values):
        return 0.0
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) >= quantile * weights.sum()
    return float(values[order][np.argmax(reached)])


def log_odds(outcomes: Numbers, weights: Numbers) -> float:
    """Returns the logit of a weighted rate, held away from 0 and 1; 0 without rows."""
    if not len(outcomes):
        return 0.0
    rate = float(np.clip(weighted_mean(outcomes, weights), _MIN_RATE, 1 - _MIN_RATE))
    return float(np.log(rate / (1 - rate)))


def log1p_of(labels: tf.Tensor) -> tf.Tensor:
    """Returns log(1 + y), with negative labels read as 0."""
    return tf.math.log1p(tf.maximum(labels, 0.0))


def expm1_of(values: tf.Tensor) -> tf.Tensor:
    """Returns max(e^x - 1, 0) without overflow: the inverse of `log1p_of`."""
    return tf.math.expm1(tf.clip_by_value(values, 0.0, MAX_EXPONENT))
