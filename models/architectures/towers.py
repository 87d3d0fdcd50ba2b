"""Stacks of dense layers, one stack for each member."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from models.architectures.batched_dense import BatchedDense
from models.architectures.seeded_dropout import SeededDropout
from models.seeding import derived_seed


class Towers(tf.keras.layers.Layer):
    """Multi-layer perceptrons of the same shape, computed together.

    Args:
        members: Names of the members.
        units: Layer widths; if there are none, every member passes its input on.
        dropout: Share of units dropped after each layer while training.
        seed: Seed of initialisation and dropout.
        labels: What the variables' names call the members; their own names if None.
    """

    def __init__(
        self,
        members: Sequence[str],
        units: Sequence[int],
        dropout: float = 0.0,
        seed: int = 0,
        labels: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes the layers."""
        super().__init__(**kwargs)
        self.members = tuple(members)
        self.units = tuple(units)
        self.layers = [
            BatchedDense(
                members,
                width,
                seed=derived_seed(seed, "layer", i),
                labels=labels,
                name=f"layer_{i}",
            )
            for i, width in enumerate(self.units)
        ]
        self.dropouts = [
            SeededDropout(dropout, seed=derived_seed(seed, "dropout", i), name=f"dropout_{i}")
            for i in range(len(self.units))
        ]

    def call(
        self, inputs: tf.Tensor, members: Sequence[str] | None = None, training: bool = False
    ) -> tf.Tensor:
        """Applies the towers.

        Args:
            inputs: [batch, d], the same for every member, or [members, batch, d].
            members: The members wanted; all if None.
            training: Whether dropout is on.

        Returns:
            [members, batch, width of the last layer].
        """
        for layer, dropout in zip(self.layers, self.dropouts, strict=True):
            inputs = dropout(layer(inputs, members=members), training=training)
        if inputs.shape.rank == 2:
            return tf.stack([inputs] * len(self.members if members is None else members))
        return inputs

    def variables_of(self, member: str) -> list[tf.Variable]:
        """Returns the variables of one member, first layer first."""
        return [v for layer in self.layers for v in layer.variables_of(member)]
