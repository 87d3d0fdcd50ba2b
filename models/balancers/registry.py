"""Balancers by the kind that configurations name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from models.balancers.abstract import Balancer, TaskTraits
from models.balancers.dynamic_weight_average import DynamicWeightAverageBalancer
from models.balancers.equal import EqualBalancer
from models.balancers.fixed import FixedBalancer
from models.balancers.grad_norm import GradNormBalancer
from models.balancers.pcgrad import PcGradBalancer
from models.balancers.uncertainty import UncertaintyBalancer
from models.spec.balancer import BalancerConfig

BALANCERS: MappingProxyType[str, type[Balancer]] = MappingProxyType(
    {
        "fixed": FixedBalancer,
        "equal": EqualBalancer,
        "uncertainty": UncertaintyBalancer,
        "dwa": DynamicWeightAverageBalancer,
        "grad_norm": GradNormBalancer,
        "pcgrad": PcGradBalancer,
    }
)


def build_balancer(config: BalancerConfig, traits: Mapping[str, TaskTraits], seed: int) -> Balancer:
    """Builds the declared balancer.

    Args:
        config: Its settings; not `TunedScalarization`, which `models.weight_search` turns into
            fixed weights before there is a model.
        traits: The tasks that are trained.
        seed: Seed of random choices.
    """
    return BALANCERS[config.kind](config, traits, seed=seed)
