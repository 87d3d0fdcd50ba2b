"""Squared error of log(1 + y)."""

from __future__ import annotations

from typing import final

import numpy as np
import tensorflow as tf

from models.losses.abstract import Loss, Numbers, expm1_of, log1p_of, present, weighted_mean


@final
class LogMeanSquaredErrorLoss(Loss):
    """`(z - log(1 + y))^2`; served as `e^z - 1`, the centre of a log-normal: its median."""

    squared_error = True

    def per_row(self, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """See `Loss.per_row`."""
        return tf.square(outputs[:, 0] - log1p_of(labels))

    def prediction(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns natural units, between 0 and the largest train label."""
        return self._at_most_largest(expm1_of(outputs[:, 0]))

    def initial_bias(self, labels: Numbers, weights: Numbers) -> list[float]:
        """Returns the mean of log(1 + y)."""
        labels, weights = present(labels, weights)
        return [weighted_mean(np.log1p(np.maximum(labels, 0)), weights)]
