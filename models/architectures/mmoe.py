"""Multi-gate mixture of experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import tensorflow as tf

from models.architectures.abstract import Features, by_member
from models.architectures.mixture_of_experts import MixtureOfExperts
from models.spec.architecture import Mmoe


@final
class MmoeArchitecture(MixtureOfExperts):
    """Experts shared by all tasks, mixed for each task by a gate of its own.

    With experts `f_i` and the gate `g^k` of task k: `f^k(x) = sum_i g^k(x)_i f_i(x)` and
    `y_k = h^k(f^k(x))`, with `h^k` the task's tower.

    Reference: Ma et al., Modeling task relationships in multi-task learning with multi-gate
    mixture-of-experts, KDD 2018, section 4.2. Differs from the paper: gates have a bias; they may
    keep few experts and be balanced (see `Gates`), or be dropped out (weights set to 0 and the
    rest renormalised; Zhao et al., RecSys 2019, on the stability of gating networks).

    Args:
        config: Number of experts, layer widths, gates and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation, noise and dropout.
    """

    config_class = Mmoe

    def __init__(self, config: Mmoe, tasks: Sequence[str], seed: int = 0, **kwargs: Any) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, gates=sorted(tasks), **kwargs)

    def call(
        self, features: Features, tasks: Sequence[str] | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """See `Architecture.call`."""
        chosen = self._selected(tasks)
        mixed = self._mixed(features, chosen, training)
        return by_member(chosen, self.towers(mixed, members=chosen, training=training))

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of the task's gate and tower."""
        return self.gates.variables_of(task) + self.towers.variables_of(task)
