"""Requests made from the specification alone: nothing of any user's row is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.spec.feature import Feature
from models.spec.ranking import RankingSpec

_NUM_ROWS = 4


def synthetic_requests(ranking: RankingSpec) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    """Builds one request for each tensor signature.

    Args:
        ranking: What the model ranks.

    Returns:
        Inputs by name, by signature (`predict`, `rank`): missing, small and large values.
    """
    rank = {
        f.name: _values(f, 1 if f.scope == "context" else _NUM_ROWS) for f in ranking.rank_inputs
    }
    return {"predict": _inputs(ranking.request_features), "rank": rank}


def _inputs(features: Sequence[Feature]) -> dict[str, np.ndarray[Any, Any]]:
    return {f.name: _values(f, _NUM_ROWS) for f in features}


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
