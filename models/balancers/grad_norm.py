"""Gradient normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import tensorflow as tf

from models.balancers.abstract import Coefficients, GradientBalancer, TaskTraits
from models.spec.balancer import GradNorm

_LEAST_WEIGHT = 1e-3


@final
class GradNormBalancer(GradientBalancer):
    """Moves the weights until the tasks' gradients have comparable sizes.

    With `n_k` the norm of the gradient of L_k with respect to what is shared, `G_k = w_k n_k`,
    `G` their mean and `r_k` a task's loss relative to its first one, divided by the mean of these
    ratios, each step moves the weights down the gradient of `sum_k |G_k - G r_k^alpha|` with the
    targets held fixed, `sign(G_k - G r_k^alpha) n_k`, and rescales them to the sum of the declared
    weights, where they start. A task without a row in the batch takes no part in the step.

    Reference: Chen, Badrinarayanan, Lee and Rabinovich, GradNorm: gradient normalization for
    adaptive loss balancing in deep multitask networks, ICML 2018 (1711.02257), eq. 1-2 and
    algorithm 1. Differs from the paper: gradients are those of the shared variables together with
    the shared representation, not of the last shared layer, which not every architecture has; the
    gradient of the weights is divided by the mean norm, so that the learning rate does not depend
    on the scale of the losses; weights stay above .001; a loss that is not positive counts as one
    that does not learn (ratio 1).
    """

    config_class = GradNorm

    def __init__(self, config: Any, traits: Mapping[str, TaskTraits], **kwargs: Any) -> None:
        """Makes the state."""
        super().__init__(config, traits, **kwargs)
        self.factors = self._state("factors", self.declared)
        # 0 until a batch has told.
        self.first_losses = self._state("first_losses", np.zeros(len(self.tasks)))

    def coefficients(self, losses: tf.Tensor, products: tf.Tensor) -> Coefficients:
        """See `GradientBalancer.coefficients`."""
        used = tf.identity(self.factors)
        first = self.first_losses.assign(tf.where(self.first_losses > 0, self.first_losses, losses))
        usable = (losses > 0) & (first > 0)
        ratio = tf.where(usable, losses / tf.where(usable, first, 1.0), 1.0)
        norms = tf.sqrt(tf.maximum(tf.linalg.diag_part(products), 0.0))
        # A task without a single row in the batch has no gradient, and says nothing about weights.
        present = norms > 0
        rate = ratio / _mean(ratio, present)
        sizes = used * norms
        target = _mean(sizes, present) * tf.pow(rate, self.config.alpha)
        slope = tf.sign(sizes - target) * norms / _mean(norms, present)
        moved = tf.maximum(used - self.config.learning_rate * slope, _LEAST_WEIGHT)
        moved = tf.where(present, moved, 0.0)
        # What the absent ones leave of the sum of the declared weights.
        rest = tf.reduce_sum(self.declared) - tf.reduce_sum(tf.where(present, 0.0, used))
        rescaled = moved * tf.math.divide_no_nan(rest, tf.reduce_sum(moved))
        self.factors.assign(tf.where(present, rescaled, used))
        return Coefficients(shared=used, own=used)

    def end_epoch(self, losses: Mapping[str, float]) -> dict[str, float]:
        """See `Balancer.end_epoch`."""
        del losses
        return self._by_task(self.factors.numpy())


def _mean(values: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
    """Averages the values of the tasks that are present; 1 without any."""
    count = tf.reduce_sum(tf.cast(present, tf.float32))
    total = tf.reduce_sum(tf.where(present, values, 0.0))
    return tf.where(count > 0, total / tf.maximum(count, 1.0), 1.0)
