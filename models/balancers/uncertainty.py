"""Homoscedastic uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import tensorflow as tf

from models.balancers.abstract import Balancer, TaskTraits
from models.spec.balancer import Uncertainty


@final
class UncertaintyBalancer(Balancer):
    """Weighs each loss by a noise level that is learnt with the model.

    With `s_k = log sigma_k^2`, trained by the optimizer of the dense layers from 0 on:
    `sum_k w_k (c_k exp(-s_k) L_k + s_k / 2)`. For squared errors `c_k = 1/2`: the likelihood of a
    Gaussian with variance sigma^2 (eq. 7). For cross entropies and other negative log-likelihoods
    `c_k = 1`: a likelihood flattened by the temperature sigma^2 (eq. 10).

    Reference: Kendall, Gal and Cipolla, Multi-task learning using uncertainty to weigh losses for
    scene geometry and semantics, CVPR 2018 (1705.07115). Differs from the paper: declared weights
    w_k multiply a task's whole term, so that an auxiliary task can stay one; and the level is
    bounded to `|s_k| <= 10`, since a loss that reaches 0 would send its weight to infinity.
    """

    config_class = Uncertainty
    _BOUND = 10.0

    def __init__(self, config: Any, traits: Mapping[str, TaskTraits], **kwargs: Any) -> None:
        """Makes the levels."""
        super().__init__(config, traits, **kwargs)
        self._scale = np.array(
            [0.5 if traits[task].squared_error else 1.0 for task in self.tasks], np.float32
        )
        self.log_variances = self.add_weight(
            name="log_variances",
            shape=(len(self.tasks),),
            initializer="zeros",
            constraint=lambda s: tf.clip_by_value(s, -self._BOUND, self._BOUND),
        )

    def objective(self, losses: tf.Tensor) -> tf.Tensor:
        """See `Balancer.objective`."""
        scaled = self._scale * tf.exp(-self.log_variances) * losses
        return tf.tensordot(self.declared, scaled + 0.5 * self.log_variances, 1)

    def end_epoch(self, losses: Mapping[str, float]) -> dict[str, float]:
        """See `Balancer.end_epoch`."""
        del losses
        return self._by_task(self.declared * self._scale * np.exp(-self.log_variances.numpy()))
