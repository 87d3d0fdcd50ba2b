"""Gates that mix experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

from models.architectures.batched_dense import BatchedDense
from models.architectures.penalty import Penalty
from models.architectures.seeded_dropout import SeededDropout
from models.seeding import derived_seed

GateKind = Literal["softmax", "top_k", "noisy_top_k"]


class Gates(tf.keras.layers.Layer):
    """One gate per member: how much it takes from each expert, row by row.

    With the gate's logits `h(x) = W_g x + b`:
    - softmax: `softmax(h(x))`;
    - top_k: `softmax(KeepTopK(h(x), k))` (Shazeer eq. 3, 5);
    - noisy_top_k: the same with `H(x) = h(x) + N(0, 1) softplus(W_n x + b_n)` for `h(x)` while
      training (eq. 4); without noise when serving.

    Balance losses, averaged over members, with CV the coefficient of variation over experts:
    - importance: `CV(sum_x G(x))^2` (eq. 6, 7);
    - load: `CV(sum_x P(x))^2`, with `P(x)_i` the probability that expert i is kept if its noise is
      drawn again (eq. 8 to 11).

    They count every row of a batch: gates need no labels, so there is nothing to mask.

    Reference: Shazeer et al., Outrageously large neural networks, ICLR 2017. Differs from the
    paper: gates have biases and start at random, not at 0; every expert is computed for every row,
    which at a handful of experts is faster than sending rows about.

    Args:
        members: Names of the gates, in order of the leading axis.
        num_experts: Number of experts.
        kind: Which of the above.
        top_k: Experts kept; for the last two kinds.
        dropout: Share of weights set to 0 while training; the rest is renormalised.
        importance_weight: Weight of the importance loss.
        load_weight: Weight of the load loss; for noisy_top_k with `top_k` below `num_experts`.
        seed: Seed of initialisation, noise and dropout.
        labels: What the variables' names call the members; their own names if None.
    """

    def __init__(
        self,
        members: Sequence[str],
        num_experts: int,
        *,
        kind: GateKind = "softmax",
        top_k: int | None = None,
        dropout: float = 0.0,
        importance_weight: float = 0.0,
        load_weight: float = 0.0,
        seed: int = 0,
        labels: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes the layers."""
        super().__init__(**kwargs)
        self.num_experts = num_experts
        self.kind = kind
        self.top_k = top_k
        self.logits = BatchedDense(
            members,
            num_experts,
            activation=None,
            seed=derived_seed(seed, "logits"),
            labels=labels,
            name="logits",
        )
        if kind == "noisy_top_k":
            self.noise = BatchedDense(
                members,
                num_experts,
                activation="softplus",
                seed=derived_seed(seed, "noise"),
                labels=labels,
                name="noise",
            )
            self.generator = tf.random.Generator.from_seed(derived_seed(seed, "draws"))
        self.dropout = SeededDropout(dropout, derived_seed(seed, "dropout"), name="dropout")
        self.importance = Penalty(importance_weight, name="importance")
        self.load = Penalty(load_weight, name="load")

    def build(self, input_shape: Any) -> None:
        """Makes the variables of the noise as well, which a call for serving does not reach."""
        if self.kind == "noisy_top_k":
            with tf.name_scope(self.noise.name):
                self.noise.build(input_shape)
        super().build(input_shape)

    def call(
        self, inputs: tf.Tensor, members: Sequence[str] | None = None, training: bool = False
    ) -> tf.Tensor:
        """Computes the weights.

        Args:
            inputs: [batch, d], the same for every gate, or [members, batch, d].
            members: The gates wanted; all if None.
            training: Whether noise, dropout and balance losses are on.

        Returns:
            [members, batch, experts], which sums to 1 over the experts.
        """
        logits = self.logits(inputs, members=members)
        scores = logits
        if self.kind == "noisy_top_k" and training:
            spread = self.noise(inputs, members=members)
            draws = self.generator.normal(tf.shape(logits))
            scores = logits + tf.cast(draws, logits.dtype) * spread
            if self.load.weight > 0:
                self.load(squared_variation(self._keep_probability(logits, scores, spread)))
        if self.top_k is not None:
            scores = tf.where(_kept(scores, self.top_k), scores, scores.dtype.min)
        weights = tf.nn.softmax(scores, axis=-1)
        if training and self.importance.weight > 0:
            self.importance(squared_variation(weights))
        return self.dropped(weights) if training and self.dropout.rate > 0 else weights

    def dropped(self, weights: tf.Tensor) -> tf.Tensor:
        """Sets some weights to 0 and renormalises the rest."""
        kept = self.dropout(weights, training=True)
        total = tf.reduce_sum(kept, axis=-1, keepdims=True)
        # A row that lost all its experts keeps them all.
        return tf.where(total > 0, kept / tf.where(total > 0, total, 1.0), weights)

    def variables_of(self, member: str) -> list[tf.Variable]:
        """Returns the variables of one gate."""
        noise = self.noise.variables_of(member) if self.kind == "noisy_top_k" else []
        return self.logits.variables_of(member) + noise

    def _keep_probability(
        self, logits: tf.Tensor, scores: tf.Tensor, spread: tf.Tensor
    ) -> tf.Tensor:
        """Returns P(x)_i (eq. 9), [members, batch, experts]."""
        assert self.top_k is not None
        logits, scores, spread = (tf.cast(t, tf.float32) for t in (logits, scores, spread))
        largest = tf.math.top_k(scores, self.top_k + 1).values
        # An expert that is in must stay above the best one that is out, and the other way round.
        first_out, last_in = largest[..., -1:], largest[..., -2:-1]
        rival = tf.where(scores > first_out, first_out, last_in)
        return _normal_cdf((logits - rival) / tf.maximum(spread, 1e-6))


def squared_variation(weights: tf.Tensor) -> tf.Tensor:
    """Returns the squared coefficient of variation of what experts receive from a batch.

    Args:
        weights: [members, batch, experts].

    Returns:
        Scalar float32, the mean over members; 0 if every expert receives the same.
    """
    received = tf.reduce_sum(tf.cast(weights, tf.float32), axis=1)
    mean, variance = tf.nn.moments(received, axes=[-1])
    return tf.reduce_mean(variance / tf.maximum(tf.square(mean), 1e-12))


def _kept(scores: tf.Tensor, top_k: int) -> tf.Tensor:
    """Marks the k largest scores of each row, exactly k also where some are equal."""
    indices = tf.math.top_k(tf.cast(scores, tf.float32), top_k).indices
    return tf.reduce_any(tf.one_hot(indices, scores.shape[-1], True, False, dtype=tf.bool), axis=-2)


def _normal_cdf(x: tf.Tensor) -> tf.Tensor:
    return 0.5 * tf.math.erfc(-x / tf.sqrt(2.0))
