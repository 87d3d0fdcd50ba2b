"""Pinball loss at one quantile."""

from __future__ import annotations

import math
from typing import final

import tensorflow as tf

from models.losses.abstract import Loss, Numbers, expm1_of, log1p_of, present, weighted_quantile


@final
class QuantileLoss(Loss):
    """`max(q u, (q - 1) u)` with `u = log(1 + y) - z`; served as `e^z - 1`, the q-quantile.

    Quantiles pass through monotone functions, so that of log(1 + y) gives that of y (Koenker and
    Bassett 1978).
    """

    def per_row(self, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """See `Loss.per_row`."""
        quantile = self.config.quantile
        error = log1p_of(labels) - outputs[:, 0]
        return tf.maximum(quantile * error, (quantile - 1.0) * error)

    def prediction(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns natural units, between 0 and the largest train label."""
        return self._at_most_largest(expm1_of(outputs[:, 0]))

    def initial_bias(self, labels: Numbers, weights: Numbers) -> list[float]:
        """Returns the weighted quantile of log(1 + y)."""
        quantile = weighted_quantile(*present(labels, weights), self.config.quantile)
        return [math.log1p(max(quantile, 0.0))]
