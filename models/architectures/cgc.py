"""Customized gate control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from models.architectures.layered_extraction import LayeredExtraction
from models.spec.architecture import Cgc


@final
class CgcArchitecture(LayeredExtraction):
    """Experts of each task beside shared ones, mixed by a gate per task, then a tower each.

    `y^k(x) = t^k(g^k(x))` (eq. 4) with `g^k` of `Extraction` (eq. 1 to 3): no task reads another
    task's experts.

    Reference: Tang et al., Progressive layered extraction (PLE): a novel multi-task learning model
    for personalized recommendations, RecSys 2020, section 4.1. Differs from the paper: gates have
    a bias.

    Args:
        config: Numbers of experts, layer widths and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation and dropout.
    """

    config_class = Cgc

    def __init__(self, config: Cgc, tasks: Sequence[str], seed: int = 0, **kwargs: Any) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, num_levels=1, **kwargs)
