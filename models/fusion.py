"""One score from the outputs of the served tasks."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from models.spec.fusion import LEAST_DIVISOR
from models.spec.keys import WEIGHT_INPUT_PREFIX
from models.spec.ranking import RankingSpec


def fused_score(
    ranking: RankingSpec,
    outputs: Mapping[str, tf.Tensor],
    weights: Mapping[str, tf.Tensor] | None = None,
) -> tf.Tensor:
    """Computes the declared score.

    `weighted_sum`: `sum_k w_k f_k(y_k)`; `product`: `prod_k f_k(y_k)^{w_k}`; `f_k` is the identity
    or `log(1 + y)`. Negative values count as 0 under a logarithm or a power, where they have no
    meaning; under a negative power values are held above 1e-6.

    Args:
        ranking: Declares the score.
        outputs: Output name to float32 [batch], in natural units.
        weights: Weights of the request by output, float32 [1]; the declared ones for the others.

    Returns:
        Float32 [batch].
    """
    terms = []
    for name, declared in sorted(ranking.score_weights.items()):
        weight = (weights or {}).get(name, declared)
        value = outputs[name]
        if name in ranking.score.log:
            value = tf.math.log1p(tf.maximum(value, 0.0))
        if ranking.score.kind == "weighted_sum":
            terms.append(weight * value)
        else:
            floor = tf.where(tf.less(weight, 0.0), LEAST_DIVISOR, 0.0)
            terms.append(tf.pow(tf.maximum(value, floor), weight))
    if ranking.score.kind == "weighted_sum":
        return tf.add_n(terms)
    return tf.reduce_prod(tf.stack(terms), axis=0)


def weight_inputs(ranking: RankingSpec) -> dict[str, tf.Tensor]:
    """Returns the inputs of `rank` that override weights, with their defaults, float32 [1]."""
    return {
        f"{WEIGHT_INPUT_PREFIX}{name}": tf.constant([ranking.score_weights[name]], tf.float32)
        for name in sorted(ranking.score.bounds)
    }


def bounded_weights(ranking: RankingSpec, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Takes the weights out of the inputs of `rank` and holds them to their bounds.

    A weight out of bounds fails the request: to clip it would answer another question.

    Args:
        ranking: Declares the bounds.
        inputs: The inputs of `weight_inputs`, among others.

    Returns:
        Weight by output, float32 [1].
    """
    weights = {}
    for name, bounds in sorted(ranking.score.bounds.items()):
        key = f"{WEIGHT_INPUT_PREFIX}{name}"
        value = inputs[key]
        # Written so that NaN is out of bounds too.
        within = tf.logical_and(value >= bounds.min, value <= bounds.max)
        message = f"{key} is out of bounds; expected {bounds.min:g} to {bounds.max:g}"
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(within), [message])]):
            weights[name] = tf.identity(value)
    return weights
