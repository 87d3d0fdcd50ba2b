"""Request features as one sparse matrix, for models that a ranker must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp

from models.metrics.columns import FloatArray, IntArray
from models.spec.feature import Feature, NumericEncoding

NUM_BUCKETS = 1 << 18
_MAX_DEVIATIONS = 5.0


class FloorFeatures:
    """Turns request features into a sparse matrix, with statistics of the train split.

    Strings: one column per hash bucket of (feature, value), 2^18 buckets shared by all features; a
    sequence counts each value 1 / length. Numbers: log-scaled where the feature's encoding says so,
    standardised with the train mean and standard deviation, cut at 5 deviations, a missing value 0
    with an indicator column beside it; a sequence counts as its mean.

    Args:
        features: The features; the caller passes request features only.
        train: The train split, one list column per feature (see `read_split`).
    """

    def __init__(self, features: Sequence[Feature], train: pa.Table) -> None:
        """Measures the numeric features on the train split."""
        self._strings = [f.name for f in features if f.dtype == "string"]
        self._numbers = [f for f in features if f.dtype == "float"]
        self._moments = {f.name: _moments(_number(f, train)) for f in self._numbers}

    def matrix(self, table: pa.Table) -> sp.csr_matrix:
        """Builds the matrix of a split, [rows, 2 * numeric features + 2^18], float64."""
        parts = [sp.csr_matrix(self._dense(table))]
        buckets = sp.csr_matrix((table.num_rows, NUM_BUCKETS))
        for name in self._strings:
            buckets = buckets + _one_hot(name, table.column(name).combine_chunks())
        return sp.hstack([*parts, buckets], format="csr")

    def _dense(self, table: pa.Table) -> FloatArray:
        columns: list[FloatArray] = []
        for feature in self._numbers:
            mean, deviation = self._moments[feature.name]
            values = _number(feature, table)
            scaled = np.clip((values - mean) / deviation, -_MAX_DEVIATIONS, _MAX_DEVIATIONS)
            columns += [np.nan_to_num(scaled, nan=0.0), np.isnan(values).astype(np.float64)]
        return np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 0))


def scalar_numbers(column: pa.ChunkedArray) -> FloatArray:
    """Returns the mean of each list, NaN where it is empty or null: [rows]."""
    lists = _combined(column)
    rows, values = _row_of_value(lists), lists.flatten().to_numpy(zero_copy_only=False)
    finite = np.isfinite(values)
    total = np.bincount(rows[finite], values[finite].astype(np.float64), len(lists))
    count = np.bincount(rows[finite], minlength=len(lists))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _number(feature: Feature, table: pa.Table) -> FloatArray:
    values = scalar_numbers(table.column(feature.name))
    if isinstance(feature.encoding, NumericEncoding) and feature.encoding.log:
        return np.sign(values) * np.log1p(np.abs(values))
    return values


def _moments(values: FloatArray) -> tuple[float, float]:
    present = values[~np.isnan(values)]
    if not len(present):
        return 0.0, 1.0
    return float(present.mean()), float(present.std()) or 1.0


def _one_hot(name: str, lists: pa.Array) -> sp.csr_matrix:
    lists = _combined(lists)
    values = lists.flatten().dictionary_encode()
    # The feature's name is part of what is hashed, so equal values of two features differ.
    salted = [f"{name}=".encode() + value for value in values.dictionary.to_pylist()]
    hashed = pd.util.hash_array(np.array(salted, dtype=object), categorize=False)
    bucket = (hashed % NUM_BUCKETS).astype(np.int64)[values.indices.to_numpy()]
    lengths = np.bincount(_row_of_value(lists), minlength=len(lists))
    share = np.repeat(1.0 / np.maximum(lengths, 1), lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return sp.csr_matrix((share, bucket, starts), shape=(len(lists), NUM_BUCKETS))


def _combined(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _row_of_value(lists: pa.Array) -> IntArray:
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return np.repeat(np.arange(len(lists)), lengths)
