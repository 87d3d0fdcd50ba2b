"""Progressive layered extraction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from models.architectures.layered_extraction import LayeredExtraction
from models.spec.architecture import Ple


@final
class PleArchitecture(LayeredExtraction):
    """Levels of task and shared experts; each level's experts read what the last one mixed.

    At level j, `g^{k,j}(x) = w^{k,j}(g^{k,j-1}(x)) S^{k,j}(x)` (eq. 5) for task k, and for the
    shared experts the same over the experts of all tasks; `y^k(x) = t^k(g^{k,N}(x))` (eq. 6).

    Reference: Tang et al., Progressive layered extraction (PLE): a novel multi-task learning model
    for personalized recommendations, RecSys 2020, section 4.2. Differs from the paper: gates have
    a bias; without shared experts there is no shared gate, and the tasks are apart.

    A served task reads the experts of every task below the last level: see `network_labels` for
    what an export keeps.

    Args:
        config: Levels, numbers of experts, layer widths and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation and dropout.
    """

    config_class = Ple

    def __init__(self, config: Ple, tasks: Sequence[str], seed: int = 0, **kwargs: Any) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, num_levels=config.num_levels, **kwargs)
