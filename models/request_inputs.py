"""What the serving signatures take, and how it becomes dense features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from models.feature_layout import length_input
from models.slate_relative import slate_relative
from models.spec.feature import Feature
from models.spec.ranking import RankingSpec


def tensor_specs(features: Sequence[Feature]) -> dict[str, tf.TensorSpec]:
    """Returns the inputs of a tensor signature, by name.

    Scalars are [N]; sequences [N, L] with any L: more than the declared length is cut, less is
    padded.
    """
    specs: dict[str, tf.TensorSpec] = {}
    for feature in features:
        shape = [None] if feature.length is None else [None, None]
        specs[feature.name] = tf.TensorSpec(shape, _dtype(feature), name=feature.name)
        lengths = length_input(feature)
        if lengths is not None:
            specs[lengths] = tf.TensorSpec([None], tf.int64, name=lengths)
    return specs


def parse_examples(examples: tf.Tensor, features: Sequence[Feature]) -> dict[str, tf.Tensor]:
    """Parses serialized tf.Examples.

    Args:
        examples: String [N].
        features: The features read; an absent one is missing.

    Returns:
        Name to dense [N] or [N, length].
    """
    spec = {
        f.name: tf.io.FixedLenFeature([], _dtype(f), default_value=_padding(f))
        if f.length is None
        else tf.io.RaggedFeature(_dtype(f))
        for f in features
    }
    parsed = tf.io.parse_example(examples, spec)
    return {
        f.name: parsed[f.name]
        if f.length is None
        else parsed[f.name].to_tensor(_padding(f), shape=[None, f.length])
        for f in features
    }


def dense_features(
    inputs: Mapping[str, tf.Tensor], features: Sequence[Feature]
) -> dict[str, tf.Tensor]:
    """Brings the inputs of a tensor signature to their declared lengths.

    Args:
        inputs: As `tensor_specs` describes.
        features: The features read.

    Returns:
        Name to dense [N] or [N, length]; numbers beyond a sequence's length are NaN.
    """
    dense: dict[str, tf.Tensor] = {}
    for feature in features:
        value = inputs[feature.name]
        if feature.length is not None:
            lengths = length_input(feature)
            if lengths is not None:
                counts = tf.sequence_mask(inputs[lengths], tf.shape(value)[1])
                value = tf.where(counts, value, float("nan"))
            value = value[:, : feature.length]
            short = feature.length - tf.shape(value)[1]
            value = tf.pad(value, [[0, 0], [0, short]], constant_values=_padding(feature))
            value = tf.ensure_shape(value, [None, feature.length])
        dense[feature.name] = value
    return dense


def slate_features(ranking: RankingSpec, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Turns the inputs of `rank` into request features of every candidate.

    Args:
        ranking: Declares the features.
        inputs: Dense inputs of `ranking.rank_inputs`: context [1], candidates [N].

    Returns:
        Every request feature, [N] or [N, length]: context repeated, slate-relative ones computed.
    """
    candidates = [f.name for f in ranking.rank_inputs if f.scope == "candidate"]
    num_rows = tf.shape(inputs[candidates[0]])[0] if candidates else 1
    full = dict(inputs)
    for feature in ranking.rank_inputs:
        if feature.scope == "context":
            value = inputs[feature.name]
            shape = [num_rows] if feature.length is None else [num_rows, feature.length]
            full[feature.name] = tf.broadcast_to(value, shape)
    relative = {
        f.name: slate_relative(_as_number(full[f.slate.of]), f.slate.relation)
        for f in ranking.request_features
        if f.slate is not None
    }
    full |= relative
    return {f.name: full[f.name] for f in ranking.request_features}


def _as_number(values: tf.Tensor) -> tf.Tensor:
    """Reads a column of numbers that enters the model by a vocabulary."""
    if values.dtype != tf.string:
        return values
    return tf.strings.to_number(tf.where(tf.equal(values, ""), "nan", values))


def _dtype(feature: Feature) -> tf.DType:
    return tf.string if feature.dtype == "string" else tf.float32


def _padding(feature: Feature) -> str | float:
    return "" if feature.dtype == "string" else float("nan")
