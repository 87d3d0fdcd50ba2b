"""The columns of a training example: what is written, in which form, and nothing else."""

from __future__ import annotations

import numpy as np
import polars as pl

from components.log_example_gen.plan import Plan
from components.log_example_gen.time_index import as_key_text
from models.spec.feature import Feature
from models.spec.keys import TIMESTAMP, key_feature, slice_feature


def example_columns(rows: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    """Selects and formats what an example carries.

    Args:
        rows: Impressions with every feature, label, mask and weight.
        plan: Features, keys and slices.

    Returns:
        The model's features and the ingredients of the `rank` signature by name (String, Float32,
        or fixed-length Arrays of these; a missing scalar is null), keys, slices, time, and three
        columns per output. No future column is among them but labels, masks and weights.
    """
    features = {f.name: f for f in [*plan.ranking.rank_inputs, *plan.ranking.training_features]}
    columns = [feature_values(rows[name], features[name]) for name in sorted(features)]
    columns += [
        as_key_text(rows[name]).fill_null("").alias(key_feature(name))
        for name in plan.ranking.key_columns
    ]
    columns += [
        as_key_text(rows[name]).alias(slice_feature(name)) for name in plan.spec.slice_columns
    ]
    columns.append(rows[TIMESTAMP])
    for output in plan.ranking.all_outputs:
        columns += [rows[key] for key in (output.label_key, output.mask_key, output.weight_key)]
    return pl.DataFrame(columns)


def feature_values(values: pl.Series, feature: Feature) -> pl.Series:
    """Formats a feature as the model reads it.

    Args:
        values: Canonical values, [rows].
        feature: Its type and length.

    Returns:
        Text (integers in decimal, `true` and `false`) or float32; sequences cut to their first
        `length` values and padded at the end with the empty string or NaN.
    """
    if feature.length is None:
        formatted = _formatted(values, feature)
        return formatted.alias(feature.name)
    arrow = values.rechunk().to_arrow()
    flat = _formatted(pl.Series(arrow.values, dtype=values.dtype.inner), feature)
    lengths = values.list.len().fill_null(0).cast(pl.Int64).to_numpy()
    starts = arrow.offsets.to_numpy()[:-1]
    place = np.arange(feature.length)
    position = np.where(place < lengths[:, None], starts[:, None] + place, len(flat))
    padding = "" if feature.dtype == "string" else float("nan")
    padded = pl.concat([flat.fill_null(padding), pl.Series([padding], dtype=flat.dtype)])
    taken = padded.gather(position.reshape(-1))
    return taken.reshape((len(values), feature.length)).alias(feature.name)


def _formatted(values: pl.Series, feature: Feature) -> pl.Series:
    if feature.dtype == "string":
        return as_key_text(values)
    if values.dtype == pl.Datetime:
        values = values.dt.epoch("ms")
    return values.cast(pl.Float32)
