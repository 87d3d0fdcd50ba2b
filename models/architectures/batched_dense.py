"""Dense layers of several members (tasks or experts) computed as one batched product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from models.seeding import derived_seed


class BatchedDense(tf.keras.layers.Layer):
    """`relu(x_m W_m + b_m)` for every member m at once.

    Each member has variables of its own, so that it can be counted, regularised or left out of an
    export alone; they are stacked when the layer is called. Kernels are Glorot-uniform, each from
    a seed of the member's name.

    Args:
        members: Names of the members, in the order of the leading axis.
        units: Output width of each member.
        activation: Activation, or None for a linear layer.
        seed: Seed of initialisation.
        labels: What the variables' names call the members; their own names if None.
    """

    def __init__(
        self,
        members: Sequence[str],
        units: int,
        activation: str | None = "relu",
        seed: int = 0,
        labels: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keeps the settings."""
        super().__init__(**kwargs)
        self.members = tuple(members)
        self.units = units
        self.activation = tf.keras.activations.get(activation)
        self.seed = seed
        self._labels = self.members if labels is None else tuple(labels)
        self._kernels: dict[str, tf.Variable] = {}
        self._biases: dict[str, tf.Variable] = {}

    def build(self, input_shape: Any) -> None:
        """Makes a kernel and a bias for every member."""
        width = int(input_shape[-1])
        for member, label in zip(self.members, self._labels, strict=True):
            self._kernels[member] = self.add_weight(
                name=f"{label}/kernel",
                shape=(width, self.units),
                initializer=tf.keras.initializers.GlorotUniform(
                    seed=derived_seed(self.seed, member)
                ),
            )
            self._biases[member] = self.add_weight(
                name=f"{label}/bias", shape=(self.units,), initializer="zeros"
            )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, members: Sequence[str] | None = None) -> tf.Tensor:
        """Applies the layer.

        Args:
            inputs: [batch, d], the same for every member, or [members, batch, d].
            members: The members wanted, in the order of the leading axis; all if None.

        Returns:
            [members, batch, units].
        """
        chosen = self.members if members is None else tuple(members)
        kernels = [self._kernels[m] for m in chosen]
        biases = [self._biases[m] for m in chosen]
        if inputs.shape.rank == 2:
            # One product of two matrices: the gradient of a batched one would hold the inputs'
            # gradient once for every member.
            product = tf.matmul(inputs, tf.concat(kernels, axis=1))
            outputs = self.activation(tf.nn.bias_add(product, tf.concat(biases, axis=0)))
            return tf.stack(tf.split(outputs, len(chosen), axis=1))
        return self.activation(tf.matmul(inputs, tf.stack(kernels)) + tf.stack(biases)[:, None])

    def flattened(self) -> tf.Tensor:
        """Returns every member's kernel and bias in one row: [members, d * units + units]."""
        return tf.stack(
            [
                tf.concat([tf.reshape(self._kernels[m], [-1]), self._biases[m]], axis=0)
                for m in self.members
            ]
        )

    def kernels(self) -> tf.Tensor:
        """Returns the kernels of all members, [members, d, units]."""
        return tf.stack([self._kernels[m] for m in self.members])

    def variables_of(self, member: str) -> list[tf.Variable]:
        """Returns kernel and bias of one member."""
        return [self._kernels[member], self._biases[member]]
