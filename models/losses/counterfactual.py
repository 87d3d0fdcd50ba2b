"""The contract of losses that correct a conditional for where its outcome is seen."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import tensorflow as tf

from models.losses.abstract import Loss, Numbers, log_odds, present


class CounterfactualLoss(Loss):
    """Risk of a conditional probability over the entire space, estimated where it is seen.

    A conversion is seen after a click only, and clicks are no fair sample of impressions: the
    cross entropy of clicked rows is biased for the entire space. With `o` whether the parent
    happened, `o^` its predicted probability, `r^` the predicted conditional and `e` its cross
    entropy, subclasses estimate the mean of `e` over all rows. `Links` adds `weight` times this to
    the cross entropy of the entire-space product, the global risk of ESMM.

    Reference: Wang et al., ESCM2: entire space counterfactual multi-task model for post-click
    conversion rate estimation, SIGIR 2022: its counterfactual risk regularizer. Differs from the
    paper: no gradient flows through the propensity, which otherwise would grow to make the risk
    small; propensities are held above `min_propensity`.
    """

    def __init__(self, config: Any, statistics: Any = None) -> None:
        """Keeps the settings."""
        super().__init__(config, statistics)
        self.weight: float = config.weight

    @abstractmethod
    def corrected(
        self, outputs: tf.Tensor, labels: tf.Tensor, observed: tf.Tensor, propensity: tf.Tensor
    ) -> tf.Tensor:
        """Computes each row's part of the corrected risk.

        Args:
            outputs: Head outputs, float32 [batch, units]; the first is the conditional's logit.
            labels: Whether task and parent happened, float32 [batch].
            observed: 1 where the parent happened, float32 [batch].
            propensity: Predicted probability of the parent, float32 [batch].

        Returns:
            Float32 [batch], finite.
        """

    def per_row(self, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns the conditional's cross entropy, uncorrected."""
        return tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=outputs[:, 0])

    def prediction(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the conditional probability."""
        return tf.sigmoid(outputs[:, 0])

    def initial_bias(self, labels: Numbers, weights: Numbers) -> list[float]:
        """Returns the logit of the base rate, and 0 for what else the head tells."""
        return [log_odds(*present(labels, weights))] + [0.0] * (self.units - 1)

    def _inverse(self, observed: tf.Tensor, propensity: tf.Tensor) -> tf.Tensor:
        """Returns `o / o^`."""
        return observed / tf.maximum(tf.stop_gradient(propensity), self.config.min_propensity)
