"""Dynamic weight average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import tensorflow as tf

from models.balancers.abstract import Balancer, TaskTraits
from models.spec.balancer import DynamicWeightAverage


@final
class DynamicWeightAverageBalancer(Balancer):
    """Weighs a task by how slowly its loss falls.

    `lambda_k(t) = K softmax_k(r_k(t - 1) / T)` with `r_k(t - 1) = L_k(t - 1) / L_k(t - 2)`, the
    ratio of its mean losses in the last two epochs; 1 in the first two epochs. The step lowers
    `sum_k w_k lambda_k L_k`.

    Reference: Liu, Johns and Davison, End-to-end multi-task learning with attention, CVPR 2019
    (1803.10704), eq. 7. Differs from the paper: declared weights w_k multiply; a loss that is not
    positive has no meaningful ratio, and counts as unchanged (r = 1).
    """

    config_class = DynamicWeightAverage

    def __init__(self, config: Any, traits: Mapping[str, TaskTraits], **kwargs: Any) -> None:
        """Makes the state."""
        super().__init__(config, traits, **kwargs)
        self.factors = self._state("factors", np.ones(len(self.tasks)))
        # 0 stands for an epoch that has not been.
        self.previous = self._state("previous_losses", np.zeros(len(self.tasks)))
        self.epochs = self._state("epochs", 0.0)

    def objective(self, losses: tf.Tensor) -> tf.Tensor:
        """See `Balancer.objective`."""
        return tf.tensordot(self.declared * self.factors, losses, 1)

    def end_epoch(self, losses: Mapping[str, float]) -> dict[str, float]:
        """Sets the factors of the next epoch; returns those of this one."""
        used = self._by_task(self.declared * self.factors.numpy())
        latest = np.array([losses[task] for task in self.tasks])
        previous = self.previous.numpy().astype(np.float64)
        if self.epochs.numpy() >= 1:
            usable = (latest > 0) & (previous > 0)
            ratio = np.divide(latest, previous, out=np.ones_like(latest), where=usable)
            exponent = ratio / self.config.temperature
            softmax = np.exp(exponent - exponent.max())
            self.factors.assign(len(self.tasks) * softmax / softmax.sum())
        self.previous.assign(latest)
        self.epochs.assign_add(1.0)
        return used
