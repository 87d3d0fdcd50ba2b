"""Finds the example that each prediction row was made from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.metrics.columns import IntArray
from models.spec.errors import DataError
from models.spec.keys import TIMESTAMP, key_feature
from models.spec.ranking import RankingSpec


def first_text(column: Any) -> pa.Array:
    """Returns the first value of each list as text, empty where there is none: [rows]."""
    return pc.fill_null(_first(column).cast(pa.string()), "")


def example_of_prediction(
    ranking: RankingSpec, examples: pa.Table, predictions: pa.Table
) -> IntArray:
    """Returns, for each prediction row, the position of its example: [prediction rows].

    Rows are matched on time, keys, labels and weights. Rows that agree in all of these are
    interchangeable for every metric.

    Args:
        ranking: What is ranked.
        examples: A split, one list column per feature (`columns_needed`).
        predictions: The rows of the same split in `predictions.parquet`.

    Raises:
        DataError: The two do not hold the same rows.
    """
    left, right = _example_rows(ranking, examples), _prediction_rows(ranking, predictions)
    order = [(name, "ascending") for name in left.column_names]
    left_order = pc.sort_indices(left, sort_keys=order).to_numpy()
    right_order = pc.sort_indices(right, sort_keys=order).to_numpy()
    if not left.take(left_order).equals(right.take(right_order)):
        raise DataError(
            "the predictions are not those of these examples",
            constraint="the same times, keys, labels and weights",
            received=f"{left.num_rows:,} examples and {right.num_rows:,} prediction rows",
            remedy="run the scoring step again on the current examples",
        )
    positions = np.empty(right.num_rows, np.int64)
    positions[right_order] = left_order
    return positions


def _example_rows(ranking: RankingSpec, examples: pa.Table) -> pa.Table:
    columns = {"timestamp": _first_number(examples.column(TIMESTAMP), pa.int64())}
    columns |= {n: first_text(examples.column(key_feature(n))) for n in ranking.key_columns}
    columns |= {
        key: _first_number(examples.column(key), pa.float32()) for key in _number_keys(ranking)
    }
    return pa.table(columns)


def _prediction_rows(ranking: RankingSpec, predictions: pa.Table) -> pa.Table:
    columns = {"timestamp": predictions["timestamp"].cast(pa.int64())}
    columns |= {n: pc.fill_null(predictions[n].cast(pa.string()), "") for n in ranking.key_columns}
    columns |= {key: predictions[key].cast(pa.float32()) for key in _number_keys(ranking)}
    return pa.table(columns).combine_chunks()


def _number_keys(ranking: RankingSpec) -> list[str]:
    return [key for o in ranking.outputs for key in (o.label_key, o.weight_key)]


def _first_number(column: Any, kind: Any) -> pa.Array:
    return pc.fill_null(_first(column).cast(kind), 0)


def _first(column: Any) -> pa.Array:
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    return lists.flatten().take(pa.array(starts, mask=lengths == 0))
