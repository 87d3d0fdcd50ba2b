"""Cross-stitch networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

import numpy as np
import tensorflow as tf

from models.architectures.abstract import Architecture, Features, concatenated
from models.architectures.batched_dense import BatchedDense
from models.architectures.seeded_dropout import SeededDropout
from models.seeding import derived_seed
from models.spec.architecture import CrossStitch


class Stitch(tf.keras.layers.Layer):
    """Mixes the activations of all tasks: `x~_A = sum_B alpha_AB x_B` (eq. 1).

    Args:
        tasks: Names of the tasks, sorted.
        own_share: Initial `alpha_AA`; the other tasks share the rest equally.
        per_unit: Whether every unit has an alpha of its own.
    """

    def __init__(
        self, tasks: Sequence[str], own_share: float, per_unit: bool, **kwargs: Any
    ) -> None:
        """Keeps the settings."""
        super().__init__(**kwargs)
        self.tasks = tuple(tasks)
        self.own_share = own_share
        self.per_unit = per_unit
        self._alphas: dict[str, tf.Variable] = {}

    def build(self, input_shape: Any) -> None:
        """Makes a row of alphas for every task."""
        num_tasks = len(self.tasks)
        units = int(input_shape[-1]) if self.per_unit else 1
        for i, (task, label) in enumerate(zip(self.tasks, _labels(self.tasks), strict=True)):
            row = np.full((num_tasks, units), (1 - self.own_share) / max(num_tasks - 1, 1))
            row[i] = self.own_share if num_tasks > 1 else 1.0
            self._alphas[task] = self.add_weight(
                name=f"{label}/alpha",
                shape=(num_tasks, units),
                initializer=tf.keras.initializers.Constant(row),
            )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, tasks: Sequence[str] | None = None) -> tf.Tensor:
        """Mixes.

        Args:
            inputs: Activations of all tasks, [tasks, batch, units].
            tasks: The tasks wanted; all if None.

        Returns:
            [tasks wanted, batch, units].
        """
        chosen = self.tasks if tasks is None else tuple(tasks)
        alphas = tf.stack([self._alphas[task] for task in chosen])
        if self.per_unit:
            return tf.einsum("iju,jbu->ibu", alphas, inputs)
        return tf.einsum("ij,jbu->ibu", alphas[:, :, 0], inputs)

    def variables_of(self, task: str) -> list[tf.Variable]:
        """Returns the alphas that mix for one task, [tasks, units or 1]."""
        return [self._alphas[task]]

    def matrix(self) -> list[list[float]]:
        """Returns the alphas averaged over units: row A says how task A mixes."""
        return [
            [float(x) for x in np.mean(self._alphas[task].numpy(), axis=1)] for task in self.tasks
        ]


def _labels(tasks: Sequence[str]) -> list[str]:
    """Names of the networks inside variable names."""
    return [f"network_{i}" for i in range(len(tasks))]


@final
class CrossStitchArchitecture(Architecture):
    """One network per task; after each layer a learnt stitch mixes the tasks' activations.

    Reference: Misra et al., Cross-stitch networks for multi-task learning, CVPR 2016, eq. 1, for
    any number of tasks. Differs from the paper: networks start at random instead of being trained
    one by one first, so alphas learn at the same rate as the weights; `unit` stitches stand for
    the paper's per-channel ones.

    A served task reads the layers of every network, those of auxiliary tasks included: an export
    keeps these layers, which are part of the served tasks, and drops the auxiliary tasks' last
    stitch and head. So the variables of network i, in order of task names, are called
    ``network_i``: a task's name in an export always means a head, a gate or a tower of its own.

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
                labels=_labels(self.tasks),
                name=f"layer_{i}",
            )
            for i in indices
        ]
        self.dropouts = [
            SeededDropout(config.dropout, derived_seed(seed, "dropout", i), name=f"dropout_{i}")
            for i in indices
        ]
        self.stitches = [
            Stitch(
                self.tasks,
                config.own_share,
                per_unit=config.stitch == "unit",
                name=f"stitch_{i}",
            )
            for i in indices
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
        return dict(zip(chosen, tf.unstack(hidden, num=len(chosen)), strict=True))

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of the task's network and the alphas that mix for it."""
        weights = [v for layer in self.layers for v in layer.variables_of(task)]
        return weights + [v for stitch in self.stitches for v in stitch.variables_of(task)]

    def insights(self, batches: Callable[[], Iterable[Features]]) -> dict[str, Any]:
        """Reads the stitches.

        Returns:
            ``stitches``: a list of ``layer`` (from 0), ``tasks`` (order of rows and columns) and
            ``matrix`` (row A: how task A mixes, averaged over units).
        """
        del batches
        stitches = [
            {"layer": i, "tasks": list(self.tasks), "matrix": stitch.matrix()}
            for i, stitch in enumerate(self.stitches)
        ]
        return {"stitches": stitches} if stitches else {}
