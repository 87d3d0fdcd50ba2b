"""Cross entropy of a Bernoulli outcome."""

from __future__ import annotations

from typing import final

import tensorflow as tf

from models.losses.abstract import Loss, Numbers, log_odds, present


@final
class BinaryCrossEntropyLoss(Loss):
    """`-y log p - (1 - y) log(1 - p)` with `p = sigmoid(z)`, computed from the logit `z`."""

    def per_row(self, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """See `Loss.per_row`."""
        return tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=outputs[:, 0])

    def prediction(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the probability."""
        return tf.sigmoid(outputs[:, 0])

    def initial_bias(self, labels: Numbers, weights: Numbers) -> list[float]:
        """Returns the logit of the base rate."""
        return [log_odds(*present(labels, weights))]
