"""Losses by the kind that configurations name."""

from __future__ import annotations

from types import MappingProxyType

from models.losses.abstract import Loss, Numbers, TargetStatistics
from models.losses.binary_cross_entropy import BinaryCrossEntropyLoss
from models.losses.doubly_robust import DoublyRobustLoss
from models.losses.fake_negative_weighted import FakeNegativeWeightedLoss
from models.losses.huber import HuberLoss
from models.losses.inverse_propensity import InversePropensityLoss
from models.losses.log_mean_squared_error import LogMeanSquaredErrorLoss
from models.losses.mean_squared_error import MeanSquaredErrorLoss
from models.losses.poisson import PoissonLoss
from models.losses.quantile import QuantileLoss
from models.losses.zero_inflated_log_normal import ZeroInflatedLogNormalLoss
from models.spec.task import Task

LOSSES: MappingProxyType[str, type[Loss]] = MappingProxyType(
    {
        "binary_cross_entropy": BinaryCrossEntropyLoss,
        "fake_negative_weighted": FakeNegativeWeightedLoss,
        "inverse_propensity": InversePropensityLoss,
        "doubly_robust": DoublyRobustLoss,
        "log_mse": LogMeanSquaredErrorLoss,
        "quantile": QuantileLoss,
        "zero_inflated_log_normal": ZeroInflatedLogNormalLoss,
        "mse": MeanSquaredErrorLoss,
        "huber": HuberLoss,
        "poisson": PoissonLoss,
    }
)


def build_loss(task: Task, labels: Numbers, weights: Numbers) -> Loss:
    """Builds a task's loss for the train labels.

    Args:
        task: The task.
        labels: Its train labels, [n].
        weights: Their weights, [n].
    """
    config = task.resolved_loss
    kind = config.model_dump()["kind"]
    return LOSSES[kind](config, TargetStatistics.of(labels, weights))
