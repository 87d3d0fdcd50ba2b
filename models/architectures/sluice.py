"""Sluice networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import tensorflow as tf

from models.architectures.abstract import Architecture, Features, by_member, concatenated
from models.architectures.batched_dense import BatchedDense
from models.architectures.insight import Matrix
from models.architectures.network_labels import network_labels
from models.architectures.penalty import Penalty
from models.architectures.seeded_dropout import SeededDropout
from models.architectures.subspace_stitch import SubspaceStitch
from models.seeding import derived_seed
from models.spec.architecture import Sluice


@final
class SluiceArchitecture(Architecture):
    """One network per task; alpha shares subspaces between them, beta mixes layers within one.

    After layer l, `h~_{As,l} = sum_{B,r} alpha_{As,Br} h_{Br,l}` for every subspace s of every
    task A. What task A reads is `sum_l beta_{A,l} h~_{A,l}`. The penalty
    `sum_A sum_l sum_{r<s} |G_{A,l,r}^T G_{A,l,s}|_F^2` keeps subspaces apart, with `G_{A,l,s}` the
    columns of the layer's kernel that make subspace s.

    Reference: Ruder et al., Latent multi-task architecture learning, AAAI 2019 (sluice networks,
    arXiv 1705.08142): the alpha matrix, the beta parameters and the orthogonality constraint of
    its section on the architecture. Differs from the paper: layers are dense, not recurrent; beta
    starts equal for all layers.

    A served task reads the layers of every network: see `network_labels` for what an export keeps.

    Args:
        config: Number and width of layers, subspaces, initial own share, penalty and dropout.
        tasks: Names of the tasks.
        seed: Seed of initialisation and dropout.
    """

    config_class = Sluice

    def __init__(self, config: Sluice, tasks: Sequence[str], seed: int = 0, **kwargs: Any) -> None:
        """Makes the layers."""
        super().__init__(config, tasks, seed, **kwargs)
        indices = range(config.num_layers)
        self.layers = [
            BatchedDense(
                self.tasks,
                config.units,
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
        self.stitches = [
            SubspaceStitch(self.tasks, config.num_subspaces, config.own_share, name=f"stitch_{i}")
            for i in indices
        ]
        self.orthogonality = Penalty(config.orthogonality_weight, name="orthogonality")
        self._betas: dict[str, tf.Variable] = {}

    def build(self, input_shape: Any) -> None:
        """Makes beta for every task, [layers]."""
        for task in self.tasks:
            self._betas[task] = self.add_weight(
                name=f"{task}/beta",
                shape=(self.config.num_layers,),
                initializer=tf.keras.initializers.Constant(1 / self.config.num_layers),
            )
        super().build(input_shape)

    def call(
        self, features: Features, tasks: Sequence[str] | None = None, training: bool = False
    ) -> dict[str, tf.Tensor]:
        """See `Architecture.call`."""
        chosen = self._selected(tasks)
        wanted = [self.tasks.index(task) for task in chosen]
        hidden = concatenated(features)
        last = len(self.layers) - 1
        read = []
        for i, (layer, stitch, dropout) in enumerate(
            zip(self.layers, self.stitches, self.dropouts, strict=True)
        ):
            hidden = stitch(layer(hidden), tasks=chosen if i == last else None)
            hidden = dropout(hidden, training=training)
            read.append(hidden if i == last else tf.gather(hidden, wanted))
        betas = tf.stack([self._betas[task] for task in chosen])
        mixed = tf.einsum("tl,ltbu->tbu", betas, tf.stack(read))
        if training and self.orthogonality.weight > 0:
            self.orthogonality(self._overlap())
        return by_member(chosen, mixed)

    def task_variables(self, task: str) -> list[tf.Variable]:
        """Returns the variables of the task's network, and the alphas and beta that mix for it."""
        weights = [v for layer in self.layers for v in layer.variables_of(task)]
        alphas = [v for stitch in self.stitches for v in stitch.variables_of(task)]
        return [*weights, *alphas, self._betas[task]]

    def matrices(self) -> list[Matrix]:
        """Returns alpha of every layer, and beta."""
        parts = [
            f"{task} {s + 1}" if self.config.num_subspaces > 1 else task
            for task in self.tasks
            for s in range(self.config.num_subspaces)
        ]
        found = [
            Matrix(f"alpha after layer {i + 1}", parts, parts, stitch.matrix())
            for i, stitch in enumerate(self.stitches)
        ]
        layers = [f"layer {i + 1}" for i in range(len(self.layers))]
        betas = [self._betas[task].numpy().tolist() for task in self.tasks]
        return [*found, Matrix("beta over layers", self.tasks, layers, betas)]

    def _overlap(self) -> tf.Tensor:
        """Sums the squared products between subspaces of one layer of one task."""
        parts = self.config.num_subspaces
        width = self.config.units // parts
        total = []
        for layer in self.layers:
            kernels = tf.cast(layer.kernels(), tf.float32)
            products = tf.square(tf.matmul(kernels, kernels, transpose_a=True))
            blocks = tf.reshape(products, [len(self.tasks), parts, width, parts, width])
            pairs = tf.reduce_sum(blocks, axis=[0, 2, 4])
            total.append(tf.reduce_sum(pairs) - tf.linalg.trace(pairs))
        return 0.5 * tf.add_n(total)
