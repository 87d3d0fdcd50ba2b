"""One score from the outputs of the served tasks."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from models.spec.ranking import RankingSpec

_LEAST_DIVISOR = 1e-6


def fused_score(ranking: RankingSpec, outputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Computes the declared score.

    `weighted_sum`: `sum_k w_k f_k(y_k)`; `product`: `prod_k f_k(y_k)^{w_k}`; `f_k` is the identity
    or `log(1 + y)`. Negative values count as 0 under a logarithm or a power, where they have no
    meaning; under a negative power values are held above 1e-6.

    Args:
        ranking: Declares the score.
        outputs: Output name to float32 [batch], in natural units.

    Returns:
        Float32 [batch].
    """
    terms = []
    for name, weight in sorted(ranking.score_weights.items()):
        value = outputs[name]
        if name in ranking.score.log:
            value = tf.math.log1p(tf.maximum(value, 0.0))
        if ranking.score.kind == "weighted_sum":
            terms.append(weight * value)
        else:
            floor = _LEAST_DIVISOR if weight < 0 else 0.0
            terms.append(tf.pow(tf.maximum(value, floor), weight))
    if ranking.score.kind == "weighted_sum":
        return tf.add_n(terms)
    return tf.reduce_prod(tf.stack(terms), axis=0)
