"""Cross-stitch networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import tensorflow as tf

from models.architectures.abstract import Architecture, Features, by_member, concatenated
from models.architectures.batched_dense import BatchedDense
from models.architectures.insight import Matrix
from models.architectures.network_labels import network_labels
from models.architectures.seeded_dropout import SeededDropout
from models.architectures.stitch import Stitch
from models.seeding import derived_seed
from models.spec.architecture import CrossStitch


@final
class CrossStitchArchitecture(Architecture):
    """One network per task; after each layer a learnt stitch mixes the tasks' activations.

    `x~_A = sum_B alpha_AB x_B` (eq. 1), with an alpha for every unit, or for every subspace: an
    equal part of the layer's units.

    Reference: Misra et al., Cross-stitch networks for multi-task learning, CVPR 2016, eq. 1, for
    any number of tasks. Differs from the paper: networks start at random instead of being trained
    one by one first, so alphas learn at the same rate as the weights; `unit` stitches stand for
    the paper's per-channel ones.

    A served task reads the layers of every network: see `network_labels` for what an export keeps.

    Args:
        config: Layer widths, kind of stitch, initial own share and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation and dropout.
    """

    config_class = CrossStitch

    def __init__(
        self, config: CrossStitch, tasks: Sequence[str], seed: int = 0, **kwargs: Any
    ) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, **kwargs)
        indices = range(len(config.hidden_units))
        self.layers = [
            BatchedDense(
                self.tasks,
                config.hidden_units[i],
                seed=derived_seed(seed, "layer", i),
                labels=network_labels(self.tasks),
                name=f"layer_{i}",
            )
            for i in indices
        ]
        self.dropouts = [
            SeededDropout(config.dropout, derived_seed(seed, "dropout", i), name=f"dropout_{i}")
            for i in indices
        ]
        num_parts = None if config.stitch == "unit" else config.num_subspaces or 1
        self.stitches = [
            Stitch(self.tasks, config.own_share, num_parts, name=f"stitch_{i}") for i in indices
        ]

    def call(
        self, features: Features, tasks: Sequence[str] | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """See `Architecture.call`."""
        chosen = self._selected(tasks)
        hidden = concatenated(features)
        if not self.layers:
            return dict.fromkeys(chosen, hidden)
        last = len(self.layers) - 1
        for i, (layer, stitch, dropout) in enumerate(
            zip(self.layers, self.stitches, self.dropouts, strict=True)
        ):
            hidden = stitch(layer(hidden), tasks=chosen if i == last else None)
            hidden = dropout(hidden, training=training)
        return by_member(chosen, hidden)

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of the task's network and the alphas that mix for it."""
        weights = [v for layer in self.layers for v in layer.variables_of(task)]
        return weights + [v for stitch in self.stitches for v in stitch.variables_of(task)]

    def matrices(self) -> list[Matrix]:
        """Returns the stitches: row A says how task A mixes; `unit` ones averaged over units."""
        found = []
        for i, stitch in enumerate(self.stitches):
            parts = stitch.matrices()
            for p, values in enumerate(parts):
                part = f", subspace {p + 1}" if len(parts) > 1 else ""
                name = f"stitch after layer {i + 1}{part}"
                found.append(Matrix(name, self.tasks, self.tasks, values))
        return found
