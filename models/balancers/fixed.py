"""The same weights throughout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import tensorflow as tf

from models.balancers.abstract import Balancer, TaskTraits
from models.spec.balancer import Fixed


@final
class FixedBalancer(Balancer):
    """`sum_k w_k L_k`, with the balancer's own weights where it has them, else the declared."""

    config_class = Fixed

    def __init__(self, config: Any, traits: Mapping[str, TaskTraits], **kwargs: Any) -> None:
        """Takes the weights."""
        super().__init__(config, traits, **kwargs)
        self._weights = np.array(
            [config.weights.get(task, traits[task].weight) for task in self.tasks], np.float32
        )

    def objective(self, losses: tf.Tensor) -> tf.Tensor:
        """See `Balancer.objective`."""
        return tf.tensordot(self._weights, losses, 1)

    def end_epoch(self, losses: Mapping[str, float]) -> dict[str, float]:
        """See `Balancer.end_epoch`."""
        del losses
        return self._by_task(self._weights)
