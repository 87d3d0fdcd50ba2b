"""The preprocessing function of TensorFlow Transform, from the feature declarations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from models.feature_layout import MISSING_ID, PADDING_ID, FeatureLayout, Slot
from models.spec.feature import NumericEncoding, QuantileEncoding, VocabularyEncoding
from models.spec.keys import (
    TRANSFORMED_CATEGORICAL,
    TRANSFORMED_GROUP,
    TRANSFORMED_NUMERIC,
    TRANSFORMED_SEQUENCES,
    key_feature,
)
from models.spec.ranking import RankingSpec
from models.vocabularies import VocabularySettings, vocabularies

MAX_STANDARD_DEVIATIONS = 10.0
"""Standardised values are clipped here: beyond, a value says "extreme" and no more."""

_QUANTILE_ERROR = 0.001
_MAX_HASH = 2**63 - 1


def preprocessing_fn(
    inputs: Mapping[str, tf.Tensor], custom_config: Mapping[str, Any]
) -> dict[str, tf.Tensor]:
    """Turns raw examples into packed tensors, so that training parses a handful of features.

    Vocabularies, means, variances and quantiles are those of the analysed split.

    Args:
        inputs: Dense tensors as the schema of `models.schema.training_schema` gives them:
            strings (``b''`` missing) and float32 (NaN missing), [batch] or [batch, length].
        custom_config: ``ranking``, a `RankingSpec` as JSON; ``code_hash`` only makes the cache key
            of the pipeline depend on the code.

    Returns:
        For n scalar ids, m numeric columns and p sequence positions (see `FeatureLayout`):
        `TRANSFORMED_CATEGORICAL` int64 [batch, n], ids from 0 in their own table;
        `TRANSFORMED_NUMERIC` float32 [batch, m], finite; `TRANSFORMED_SEQUENCES` int64 [batch, p],
        -1 where there is no value; `TRANSFORMED_GROUP` int64 [batch], a hash of the group that
        GAUC and NDCG rank in; label and weight of every output, float32 [batch]. A packed tensor
        without columns is left out.
    """
    ranking = RankingSpec.model_validate_json(custom_config["ranking"])
    layout = FeatureLayout.of(ranking)
    lookup = _Lookup(layout, inputs)
    outputs: dict[str, tf.Tensor] = {}
    if layout.categorical:
        outputs[TRANSFORMED_CATEGORICAL] = _categorical(layout, inputs, lookup)
    if layout.numeric:
        outputs[TRANSFORMED_NUMERIC] = _numeric(layout, inputs)
    if layout.sequences:
        outputs[TRANSFORMED_SEQUENCES] = tf.concat(
            [
                lookup(slot, inputs[slot.feature.name], missing=PADDING_ID)
                for slot in layout.sequences
            ],
            axis=1,
        )
    outputs[TRANSFORMED_GROUP] = tf.strings.to_hash_bucket_fast(
        inputs[key_feature(ranking.group_column)], _MAX_HASH
    )
    for output in ranking.all_outputs:
        for key in (output.label_key, output.weight_key):
            outputs[key] = tf.identity(inputs[key])
    return outputs


class _Lookup:
    """From strings to ids of a table; vocabularies are computed once and shared."""

    def __init__(self, layout: FeatureLayout, inputs: Mapping[str, tf.Tensor]) -> None:
        self._tables = layout.tables
        settings = {
            name: VocabularySettings(
                table.vocabulary, table.encoding.max_size, table.encoding.min_count
            )
            for name, table in layout.tables.items()
            if isinstance(table.encoding, VocabularyEncoding)
        }
        self._vocabularies = vocabularies({name: inputs[name] for name in settings}, settings)

    def __call__(self, slot: Slot, values: tf.Tensor, missing: int) -> tf.Tensor:
        """Returns int64 ids in the shape of `values`."""
        table = self._tables[str(slot.table)]
        if isinstance(table.encoding, VocabularyEncoding):
            ids = tft.apply_vocabulary(
                values,
                self._vocabularies[table.name],
                num_oov_buckets=table.encoding.oov_buckets,
            )
        else:
            ids = tf.strings.to_hash_bucket_fast(values, table.encoding.buckets)
        return tf.where(tf.equal(values, ""), tf.constant(missing, tf.int64), ids + 1)


def _categorical(
    layout: FeatureLayout, inputs: Mapping[str, tf.Tensor], lookup: _Lookup
) -> tf.Tensor:
    quantile_ids = _quantile_ids(layout, inputs)
    columns = [
        quantile_ids[slot.feature.name]
        if slot.feature.name in quantile_ids
        else lookup(slot, inputs[slot.feature.name], missing=MISSING_ID)
        for slot in layout.categorical
    ]
    return tf.stack(columns, axis=1)


def _quantile_ids(layout: FeatureLayout, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Buckets from 1, 0 where missing; features with as many buckets share one analyzer."""
    by_buckets: dict[int, list[str]] = {}
    for slot in layout.categorical:
        if isinstance(slot.feature.encoding, QuantileEncoding):
            by_buckets.setdefault(slot.feature.encoding.buckets, []).append(slot.feature.name)
    ids: dict[str, tf.Tensor] = {}
    for buckets, names in sorted(by_buckets.items()):
        values = _missing_as_nan(tf.stack([inputs[name] for name in names], axis=1))
        boundaries = tft.quantiles(
            values, num_buckets=buckets, epsilon=_QUANTILE_ERROR, reduce_instance_dims=False
        )
        columns = tf.transpose(values)
        found = tf.searchsorted(
            tf.reshape(boundaries, [len(names), buckets - 1]),
            tf.where(tf.math.is_nan(columns), 0.0, columns),
            side="right",
            out_type=tf.int64,
        )
        present = tf.where(tf.math.is_nan(columns), tf.constant(MISSING_ID, tf.int64), found + 1)
        ids |= dict(zip(names, tf.unstack(present, num=len(names)), strict=True))
    return ids


def _numeric(layout: FeatureLayout, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    values = {
        slot.feature.name: _scaled(slot, inputs[slot.feature.name]) for slot in layout.numeric
    }
    positions = _positions(layout, values)
    to_standardize = [
        slot.feature.name
        for slot in layout.numeric
        if slot.feature.length is None and _encoding(slot).standardize
    ]
    if to_standardize:
        # One analyzer for all of them: analyzers cost far more than columns.
        packed = tf.stack([values[name] for name in to_standardize], axis=1)
        standardized = _standardized(packed, elementwise=True)
        values |= dict(zip(to_standardize, tf.unstack(standardized, axis=1), strict=True))
    columns: list[tf.Tensor] = []
    for slot in layout.numeric:
        raw = inputs[slot.feature.name]
        if slot.feature.length is None:
            missing = tf.logical_not(tf.math.is_finite(raw))[:, tf.newaxis]
            scaled = values[slot.feature.name][:, tf.newaxis]
        else:
            missing = tf.logical_not(tf.math.is_finite(raw))
            scaled = values[slot.feature.name]
            if _encoding(slot).standardize:
                scaled = _standardized(scaled, elementwise=False)
        columns.append(tf.where(tf.math.is_finite(scaled), scaled, 0.0))
        columns.append(tf.reduce_mean(tf.cast(missing, tf.float32), axis=1, keepdims=True))
        if slot.pieces:
            columns.append(positions[slot.feature.name][:, tf.newaxis])
    return tf.concat(columns, axis=1)


def _positions(layout: FeatureLayout, scaled: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Sums of the piecewise-linear codes [batch], 0 where missing.

    Later pieces of a code start only where earlier ones are 1, so the sum says all of it: the model
    takes it apart again (`models.embedding`), and examples carry one number instead of `pieces`.
    Features with as many pieces share one analyzer.
    """
    by_pieces: dict[int, list[str]] = {}
    for slot in layout.numeric:
        if slot.pieces:
            by_pieces.setdefault(slot.pieces, []).append(slot.feature.name)
    positions: dict[str, tf.Tensor] = {}
    for pieces, names in sorted(by_pieces.items()):
        values = tf.stack([scaled[name] for name in names], axis=1)
        # One bucket more on either side: the outermost edges are quantiles too, not the extremes.
        boundaries = tft.quantiles(
            values, num_buckets=pieces + 2, epsilon=_QUANTILE_ERROR, reduce_instance_dims=False
        )
        edges = tf.reshape(boundaries, [len(names), pieces + 1])
        low, high = edges[:, :-1], edges[:, 1:]
        numbers = values[:, :, tf.newaxis]
        code = tf.where(
            high > low,
            tf.math.divide_no_nan(numbers - low, high - low),
            tf.cast(numbers > low, tf.float32),
        )
        code = tf.where(tf.math.is_nan(code), 0.0, tf.clip_by_value(code, 0.0, 1.0))
        sums = tf.unstack(tf.reduce_sum(code, axis=2), num=len(names), axis=1)
        positions |= dict(zip(names, sums, strict=True))
    return positions


def _encoding(slot: Slot) -> NumericEncoding:
    assert isinstance(slot.feature.encoding, NumericEncoding)
    return slot.feature.encoding


def _scaled(slot: Slot, values: tf.Tensor) -> tf.Tensor:
    """Applies the logarithm where declared; NaN where missing or not finite."""
    values = _missing_as_nan(values)
    if _encoding(slot).log:
        values = tf.sign(values) * tf.math.log1p(tf.abs(values))
    return values


def _missing_as_nan(values: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.math.is_finite(values), values, float("nan"))


def _standardized(values: tf.Tensor, *, elementwise: bool) -> tf.Tensor:
    # NaN is missing to TFT. Until a column has its first value (an age in the first batches of a
    # log, say) TFT divides 0 by 0 for it, warns, and puts the count right with the next batch.
    scores = tft.scale_to_z_score(values, elementwise=elementwise)
    return tf.clip_by_value(scores, -MAX_STANDARD_DEVIATIONS, MAX_STANDARD_DEVIATIONS)
