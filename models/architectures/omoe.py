"""One-gate mixture of experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import tensorflow as tf

from models.architectures.abstract import Features, by_member
from models.architectures.mixture_of_experts import MixtureOfExperts
from models.spec.architecture import Omoe

_GATES = ("all_tasks",)


@final
class OmoeArchitecture(MixtureOfExperts):
    """Experts mixed by one gate for all tasks: `y_k = h^k(sum_i g(x)_i f_i(x))`.

    Reference: Ma et al., Modeling task relationships in multi-task learning with multi-gate
    mixture-of-experts, KDD 2018, section 4.1, where it is the baseline without task gates. Differs
    from the paper as `MmoeArchitecture` does.

    Args:
        config: Number of experts, layer widths, gate and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation, noise and dropout.
    """

    config_class = Omoe

    def __init__(self, config: Omoe, tasks: Sequence[str], seed: int = 0, **kwargs: Any) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, gates=_GATES, **kwargs)

    def call(
        self, features: Features, tasks: Sequence[str] | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """See `Architecture.call`."""
        chosen = self._selected(tasks)
        mixed = tf.squeeze(self._mixed(features, _GATES, training), axis=0)
        return by_member(chosen, self.towers(mixed, members=chosen, training=training))

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of the task's tower."""
        return self.towers.variables_of(task)
