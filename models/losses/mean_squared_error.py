"""Squared error."""

from __future__ import annotations

from typing import final

import tensorflow as tf

from models.losses.abstract import Loss, Numbers, present, weighted_mean


@final
class MeanSquaredErrorLoss(Loss):
    """`(z - y / s)^2` with `s` the standard deviation of the train labels; served as `s z`.

    It is the squared error divided by the variance: 1 is what predicting the mean costs.
    """

    squared_error = True

    def per_row(self, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """See `Loss.per_row`."""
        return tf.square(outputs[:, 0] - labels / self.statistics.scale)

    def prediction(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns natural units."""
        return outputs[:, 0] * self.statistics.scale

    def initial_bias(self, labels: Numbers, weights: Numbers) -> list[float]:
        """Returns the mean label, in standard deviations."""
        return [weighted_mean(*present(labels, weights)) / self.statistics.scale]
