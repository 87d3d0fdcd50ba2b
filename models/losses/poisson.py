"""Poisson likelihood."""

from __future__ import annotations

import math
from typing import final

import tensorflow as tf

from models.losses.abstract import MAX_EXPONENT, Loss, Numbers, present, weighted_mean

_MIN_MEAN = 1e-4


@final
class PoissonLoss(Loss):
    """`e^z - y z`, the negative log-likelihood without its constant; served as the rate `e^z`.

    Beyond `z = 20` the exponential goes on as its tangent: loss and gradient stay finite.
    """

    def per_row(self, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """See `Loss.per_row`."""
        log_rate = outputs[:, 0]
        excess = tf.maximum(log_rate - MAX_EXPONENT, 0.0)
        rate = tf.exp(log_rate - excess) + math.exp(MAX_EXPONENT) * excess
        return rate - tf.maximum(labels, 0.0) * log_rate

    def prediction(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the expected count, at most the largest train label."""
        return self._at_most_largest(tf.exp(tf.minimum(outputs[:, 0], MAX_EXPONENT)))

    def initial_bias(self, labels: Numbers, weights: Numbers) -> list[float]:
        """Returns the logarithm of the mean count."""
        return [math.log(max(weighted_mean(*present(labels, weights)), _MIN_MEAN))]
