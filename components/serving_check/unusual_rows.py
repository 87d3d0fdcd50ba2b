"""Rows that production will send and a test split may lack: missing and never-seen values."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from models.spec.feature import Feature
from models.spec.ranking import RankingSpec

UNSEEN = b"\xc2\xb7never seen\xc2\xb7"
"""Text that no vocabulary holds."""
_SHARE_MISSING, _SHARE_UNUSUAL = 0.3, 0.3
_UNUSUAL_NUMBERS = np.array([-1.0, 0.0, 1e9], dtype=np.float32)

Columns = dict[str, np.ndarray[Any, Any]]


def unusual_rows(ranking: RankingSpec, rows: Columns, num_rows: int, seed: int = 0) -> Columns:
    """Alters real rows: every feature is missing in some, never seen or extreme in others.

    Args:
        ranking: Declares the features.
        rows: Request features by name, [rows] or [rows, length].
        num_rows: How many rows to make, at most.
        seed: Which ones are altered how.

    Returns:
        Request features of altered copies of the first rows.
    """
    random = np.random.default_rng(seed)
    altered: Columns = {}
    for feature in ranking.request_features:
        values = rows[feature.name][:num_rows].copy()
        draw = random.random(len(values))
        is_missing = draw < _SHARE_MISSING
        is_unusual = ~is_missing & (draw < _SHARE_MISSING + _SHARE_UNUSUAL)
        unusual: Any = UNSEEN
        if feature.dtype == "float":
            unusual = random.choice(_UNUSUAL_NUMBERS, size=values[is_unusual].shape)
        values[is_missing] = missing_value(feature)
        values[is_unusual] = unusual
        altered[feature.name] = values
    return altered


def missing_value(feature: Feature) -> Any:
    """Returns what stands for a missing value in tensors."""
    return b"" if feature.dtype == "string" else np.float32("nan")


def num_with_missing(ranking: RankingSpec, rows: Columns) -> int:
    """Counts the rows in which a feature has no value at all."""
    found: Any = False
    for feature in ranking.request_features:
        values = rows[feature.name]
        absent = values == b"" if feature.dtype == "string" else np.isnan(values)
        found = found | (absent if feature.length is None else absent.all(axis=1))
    return int(np.sum(found))


def serialized(ranking: RankingSpec, rows: Columns) -> list[bytes]:
    """Writes rows as tf.Examples of request features; a missing value is an absent feature."""
    features = ranking.request_features
    return [
        _example({f.name: _present(f, rows[f.name][i]) for f in features})
        for i in range(len(rows[features[0].name]))
    ]


def _present(feature: Feature, value: Any) -> list[Any]:
    values = [value] if feature.length is None else list(value)
    if feature.dtype == "string":
        return [v for v in values if v != b""]
    # A hole inside a numeric sequence has a position; a scalar that is missing has none.
    return [] if feature.length is None and np.isnan(value) else [float(v) for v in values]


def _example(values: dict[str, list[Any]]) -> bytes:
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=found))
        if isinstance(found[0], bytes)
        else tf.train.Feature(float_list=tf.train.FloatList(value=found))
        for name, found in values.items()
        if found
    }
    message = tf.train.Example(features=tf.train.Features(feature=features))
    content: bytes = message.SerializeToString()
    return content
