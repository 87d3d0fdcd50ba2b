"""Projecting conflicting gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import tensorflow as tf

from models.balancers.abstract import Coefficients, GradientBalancer, TaskTraits
from models.spec.balancer import PcGrad


@final
class PcGradBalancer(GradientBalancer):
    """Takes from each task's gradient what points against another task's.

    For each task i, over the other tasks j in random order: where `g_i . g_j < 0`,
    `g_i <- g_i - (g_i . g_j) / |g_j|^2 g_j`, with g_j as it was. The sum of the results steps
    what is shared; everything else gets the sum of the plain gradients. Gradients are those of
    the losses times the declared weights.

    Every projected gradient is a linear combination of the given ones, so the projections are
    carried out on its coefficients, with inner products alone: `g_i = sum_m c_im g_m`.

    Reference: Yu, Kumar, Gupta, Levine, Hausman and Finn, Gradient surgery for multi-task
    learning, NeurIPS 2020 (2001.06782), algorithm 1. Differs from the paper: none but that the
    gradient of the embedding tables is that of the looked-up rows.
    """

    config_class = PcGrad

    def __init__(self, config: Any, traits: Mapping[str, TaskTraits], **kwargs: Any) -> None:
        """Makes the state."""
        super().__init__(config, traits, **kwargs)
        self.steps = self._state("steps", 0.0)
        self.epoch_steps = self._state("epoch_steps", 0.0)
        self.epoch_sum = self._state("epoch_sum", np.zeros(len(self.tasks)))

    def coefficients(self, losses: tf.Tensor, products: tf.Tensor) -> Coefficients:
        """See `GradientBalancer.coefficients`."""
        del losses
        num_tasks = len(self.tasks)
        products = products * self.declared[:, None] * self.declared[None, :]
        squares = tf.linalg.diag_part(products)
        seed = tf.stack([self.seed, tf.cast(self.steps, tf.int32)])
        # Row i: the order in which task i meets the others; itself is met without effect.
        order = tf.argsort(tf.random.stateless_uniform([num_tasks, num_tasks], seed), axis=1)
        combined = tf.eye(num_tasks)
        for turn in range(num_tasks):
            other = order[:, turn]
            dots = tf.reduce_sum(combined * tf.gather(products, other), axis=1)
            conflict = (dots < 0) & (other != tf.range(num_tasks))
            share = tf.where(conflict, tf.math.divide_no_nan(dots, tf.gather(squares, other)), 0.0)
            combined -= share[:, None] * tf.one_hot(other, num_tasks)
        factors = self.declared * tf.reduce_sum(combined, axis=0)
        self.steps.assign_add(1.0)
        self.epoch_steps.assign_add(1.0)
        self.epoch_sum.assign_add(factors)
        return Coefficients(shared=factors, own=tf.constant(self.declared))

    def end_epoch(self, losses: Mapping[str, float]) -> dict[str, float]:
        """Returns the mean factors on what is shared."""
        del losses
        mean = self.epoch_sum.numpy() / max(float(self.epoch_steps.numpy()), 1.0)
        self.epoch_sum.assign(tf.zeros_like(self.epoch_sum))
        self.epoch_steps.assign(0.0)
        return self._by_task(mean)
