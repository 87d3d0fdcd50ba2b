"""Slate-relative features, computed in the graph of the `rank` signature."""

from __future__ import annotations

import tensorflow as tf

from models.spec.feature import SMALLEST_NUMBER, SlateRelation


def slate_relative(values: tf.Tensor, relation: SlateRelation) -> tf.Tensor:
    """Computes a candidate's value relative to the candidates of its slate.

    The definitions are those of `models.spec.feature.SlateRelative`; NaN is a missing value.

    Args:
        values: One value per candidate of one slate, float32 [n].
        relation: ``rank``: the share of the n candidates whose value is strictly greater;
            ``share``: `v / sum(v)`; ``ratio_to_max``: `v / max(v)`; ``count``: the number of
            candidates that have a value.

    Returns:
        Float32 [n], without NaN.
    """
    wide = tf.cast(values, tf.float64)
    wide = tf.where(tf.abs(wide) < SMALLEST_NUMBER, tf.zeros_like(wide), wide)
    is_missing = tf.math.is_nan(wide)
    if relation == "count":
        present = tf.reduce_sum(tf.cast(tf.logical_not(is_missing), tf.float32))
        return tf.fill(tf.shape(wide), present)
    if relation == "rank":
        # Missing values sort below every other one, and tie with each other.
        keys = tf.where(is_missing, tf.constant(float("-inf"), tf.float64), wide)
        num_candidates = tf.shape(keys)[0]
        not_greater = tf.searchsorted(tf.sort(keys), keys, side="right")
        share = (num_candidates - not_greater) / num_candidates
        return tf.cast(share, tf.float32)
    if relation == "share":
        divisor = tf.reduce_sum(tf.where(is_missing, tf.zeros_like(wide), wide))
    else:
        divisor = tf.reduce_max(tf.where(is_missing, tf.constant(float("-inf"), tf.float64), wide))
    # A slate without any value has the divisor 0 or -inf; its values are all missing.
    usable = tf.logical_not(is_missing) & (divisor != 0)
    return tf.cast(
        tf.where(usable, wide / tf.where(divisor == 0, tf.ones_like(divisor), divisor), 0.0),
        tf.float32,
    )
