"""Requests made from the specification alone: nothing of any user's row is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.spec.feature import Feature
from models.spec.ranking import RankingSpec
from serving.contract import LENGTH_SUFFIX

_NUM_ROWS = 4


def synthetic_requests(ranking: RankingSpec) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    """Builds one request for each tensor signature.

    Args:
        ranking: What the model ranks.

    Returns:
        Inputs by name, by signature (`predict`, `rank`): missing, small and large values.
    """
    rank = [(f, 1 if f.scope == "context" else _NUM_ROWS) for f in ranking.rank_inputs]
    predict = [(f, _NUM_ROWS) for f in ranking.request_features]
    return {"predict": _inputs(predict), "rank": _inputs(rank)}


def sequence_lengths(feature: Feature, num_rows: int) -> dict[str, np.ndarray[Any, Any]]:
    """Returns the `<name>_length` input of a numeric sequence; nothing for other features.

    Args:
        feature: The feature.
        num_rows: Rows of the request; every sequence has its full length, NaN where missing.
    """
    if feature.length is None or feature.dtype == "string":
        return {}
    return {f"{feature.name}{LENGTH_SUFFIX}": np.full(num_rows, feature.length, dtype=np.int64)}


def _inputs(features: Sequence[tuple[Feature, int]]) -> dict[str, np.ndarray[Any, Any]]:
    inputs = {}
    for feature, num_rows in features:
        inputs[feature.name] = _values(feature, num_rows)
        inputs |= sequence_lengths(feature, num_rows)
    return inputs


def _values(feature: Feature, num_rows: int) -> np.ndarray[Any, Any]:
    """Row i of a feature: missing first, then values no vocabulary holds or of growing size."""
    shape = (num_rows,) if feature.length is None else (num_rows, feature.length)
    if feature.dtype == "string":
        rows = [b"" if i == 0 else b"warm-up %d" % i for i in range(num_rows)]
        values = np.array(rows, dtype=object)
    else:
        values = np.array([np.nan, 0.0, 1.0, 1e6][:num_rows], dtype=np.float32)
    if feature.length is None:
        return values
    return np.broadcast_to(values[:, None], shape).copy()
