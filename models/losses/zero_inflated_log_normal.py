"""Likelihood of a point mass at 0 mixed with a log-normal."""

from __future__ import annotations

import math
from typing import final

import numpy as np
import tensorflow as tf

from models.losses.abstract import MAX_EXPONENT, Loss, Numbers, log_odds, present, weighted_mean

_MIN_SIGMA = 1e-2
_LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)


@final
class ZeroInflatedLogNormalLoss(Loss):
    """Zero-inflated log-normal likelihood of a heavy-tailed, often zero outcome.

    The head gives a logit, a location mu and a raw scale s, with `p = sigmoid(logit)` and
    `sigma = softplus(s) + 0.01`. Per row, up to sign: `log(1 - p)` where `y = 0`, else
    `log p + log LogNormal(y; mu, sigma)`. Served as the mean `p exp(mu + sigma^2 / 2)`, at most
    the largest train label: without this bound a few rows with a wide sigma would dwarf the rest.

    Reference: Wang, Liu and Miao, A deep probabilistic model for customer lifetime value
    prediction, 2019 (1912.07753), section 3. Differs from the paper: sigma has a floor added
    instead of a maximum taken, so that its gradient never vanishes, and the mean is bounded.
    """

    units = 3

    def per_row(self, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """See `Loss.per_row`."""
        logit, mu, sigma = self._parameters(outputs)
        is_positive = labels > 0
        classification = tf.nn.sigmoid_cross_entropy_with_logits(
            labels=tf.cast(is_positive, tf.float32), logits=logit
        )
        log_y = tf.math.log(tf.where(is_positive, labels, 1.0))
        deviation = (log_y - mu) / sigma
        regression = log_y + tf.math.log(sigma) + _LOG_SQRT_2_PI + 0.5 * tf.square(deviation)
        return classification + tf.where(is_positive, regression, 0.0)

    def prediction(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the mean of the mixture, in natural units."""
        logit, mu, sigma = self._parameters(outputs)
        mean = tf.exp(tf.minimum(mu + 0.5 * tf.square(sigma), MAX_EXPONENT))
        return self._at_most_largest(tf.sigmoid(logit) * mean)

    def initial_bias(self, labels: Numbers, weights: Numbers) -> list[float]:
        """Returns the logit of the share above 0, and the moments of log y there."""
        labels, weights = present(labels, weights)
        logit = log_odds((labels > 0).astype(np.float64), weights)
        logs, log_weights = np.log(labels[labels > 0]), weights[labels > 0]
        if not len(logs):
            return [logit, 0.0, math.log(math.e - 1)]
        mu = weighted_mean(logs, log_weights)
        sigma = math.sqrt(weighted_mean((logs - mu) ** 2, log_weights))
        # The inverse of softplus.
        return [logit, mu, math.log(math.expm1(max(sigma, 0.1)))]

    @staticmethod
    def _parameters(outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        logit, mu, raw = tf.unstack(outputs, num=3, axis=1)
        return logit, mu, tf.nn.softplus(raw) + _MIN_SIGMA
