"""Conditional cross entropy, corrected twice."""

from __future__ import annotations

from typing import ClassVar, final

import tensorflow as tf

from models.losses.counterfactual import CounterfactualLoss


@final
class DoublyRobustLoss(CounterfactualLoss):
    """`e^ + o d / o^ + o d^2 / o^` with `d = e - e^`: an imputed error, corrected (ESCM2-DR).

    The first two terms are right on average if either the imputed error `e^` or the propensity
    `o^` is; the last one teaches `e^`, the softplus of the head's second output, and leaves the
    conditional alone. Differs from the paper: the imputation shares the task's tower.
    """

    units: ClassVar[int] = 2

    def corrected(
        self, outputs: tf.Tensor, labels: tf.Tensor, observed: tf.Tensor, propensity: tf.Tensor
    ) -> tf.Tensor:
        """See `CounterfactualLoss.corrected`."""
        imputed = tf.nn.softplus(outputs[:, 1])
        error = self.per_row(outputs, labels)
        missed = tf.square(tf.stop_gradient(error) - imputed)
        return imputed + self._inverse(observed, propensity) * (error - imputed + missed)
