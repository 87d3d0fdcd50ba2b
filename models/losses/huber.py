"""Huber's loss."""

from __future__ import annotations

from typing import final

import tensorflow as tf

from models.losses.abstract import Loss, Numbers, present, weighted_quantile


@final
class HuberLoss(Loss):
    """`e^2 / 2` for `|e| <= delta`, else `delta (|e| - delta / 2)`, with `e = y - s z`, over `s^2`.

    `delta` is in natural units; `s` is the standard deviation of the train labels, as in
    `MeanSquaredErrorLoss`. Served as `s z`. Reference: Huber 1964, eq. 2.
    """

    squared_error = True

    def per_row(self, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """See `Loss.per_row`."""
        delta = self.config.delta / self.statistics.scale
        error = tf.abs(outputs[:, 0] - labels / self.statistics.scale)
        inside = tf.minimum(error, delta)
        return 0.5 * tf.square(inside) + delta * (error - inside)

    def prediction(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns natural units."""
        return outputs[:, 0] * self.statistics.scale

    def initial_bias(self, labels: Numbers, weights: Numbers) -> list[float]:
        """Returns the median label, in standard deviations: means do not resist outliers."""
        return [weighted_quantile(*present(labels, weights), 0.5) / self.statistics.scale]
