"""Conditional cross entropy weighed by inverse propensity."""

from __future__ import annotations

from typing import final

import tensorflow as tf

from models.losses.counterfactual import CounterfactualLoss


@final
class InversePropensityLoss(CounterfactualLoss):
    """`o e / o^`: seen rows stand for the unseen ones that are like them (ESCM2-IPS)."""

    def corrected(
        self, outputs: tf.Tensor, labels: tf.Tensor, observed: tf.Tensor, propensity: tf.Tensor
    ) -> tf.Tensor:
        """See `CounterfactualLoss.corrected`."""
        return self._inverse(observed, propensity) * self.per_row(outputs, labels)
