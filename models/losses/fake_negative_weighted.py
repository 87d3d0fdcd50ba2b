"""Cross entropy for labels that are taken as they arrive."""

from __future__ import annotations

from typing import final

import numpy as np
import tensorflow as tf

from models.losses.abstract import Loss, Numbers, present, weighted_mean

_MIN_RATE = 1e-4


@final
class FakeNegativeWeightedLoss(Loss):
    """`-(1 + f) y log f - (1 - f)(1 + f) (1 - y) log(1 - f)`, weights without gradient.

    Every impression is a negative when it is shown, and once more a positive when the outcome
    arrives, so the data hold positives at the rate `b = p / (1 + p)`. Importance weights `1 + f`
    for positives and `(1 - f)(1 + f)` for negatives turn expectations over the data into those
    over the truth (Ktena et al., RecSys 2019, sec. 3.2, eq. 6); the gradient vanishes at `f = p`.

    A row whose label is 0.5 with weight 2 is both rows of one impression.
    """

    def per_row(self, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """See `Loss.per_row`."""
        logits = outputs[:, 0]
        estimate = tf.stop_gradient(tf.sigmoid(logits))
        positive = (1.0 + estimate) * labels * tf.nn.softplus(-logits)
        negative = (1.0 - estimate**2) * (1.0 - labels) * tf.nn.softplus(logits)
        return positive + negative

    def prediction(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the probability, of the truth and not of the data."""
        return tf.sigmoid(outputs[:, 0])

    def initial_bias(self, labels: Numbers, weights: Numbers) -> list[float]:
        """Returns the logit of `p = b / (1 - b)`."""
        seen = float(np.clip(weighted_mean(*present(labels, weights)), _MIN_RATE, 0.5 - _MIN_RATE))
        rate = seen / (1.0 - seen)
        return [float(np.log(rate / (1.0 - rate)))] if len(labels) else [0.0]
