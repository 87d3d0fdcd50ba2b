"""Rows of the Examples artifact, as Arrow columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.coders import example_coder

from models.spec.errors import DataError
from models.spec.keys import TIMESTAMP, key_feature
from models.spec.ranking import RankingSpec

SPLITS = ("train", "validation", "test")
SPLIT = "example__split"
POSITION = "example__position"

_RECORDS_PER_BATCH = 8192
_NO_POSITION = np.iinfo(np.int64).max

Key = tuple[Any, ...]
"""Timestamp in milliseconds and the key columns' bytes, in the order of `key_columns`."""


class ExampleRows:
    """Reads chosen rows of an Examples artifact.

    Args:
        uri: Root of the artifact; a split lies in `Split-<split>/` as gzipped TFRecords.
        ranking: Says which features the examples carry.
    """

    def __init__(self, uri: str, ranking: RankingSpec) -> None:
        """Prepares the decoder."""
        self._uri = uri
        self._key_names = (TIMESTAMP, *(key_feature(c) for c in ranking.key_columns))
        schema = schema_pb2.Schema()
        for name, kind in sorted(_feature_types(ranking).items()):
            schema.feature.add(name=name, type=kind)
        self._decoder = example_coder.ExamplesToRecordBatchDecoder(schema.SerializeToString())

    def read(
        self, positions: Mapping[str, NDArray[np.int64]], keys: frozenset[Key] = frozenset()
    ) -> tuple[pa.Table, pa.Table]:
        """Reads rows by their position and rows by their key, in one pass.

        Args:
            positions: Row numbers to read in each split, ascending.
            keys: Keys of more rows to read, in whichever split they are.

        Returns:
            The rows at the positions, and those with the keys: one list column per feature (a
            missing value is null or an empty list), the split in `example__split` and the row
            number in `example__position`.

        Raises:
            DataError: A split has no file.
        """
        times = np.array(sorted({key[0] for key in keys}), np.int64)
        nothing = self._decode(np.zeros(0, object), np.zeros(0, np.int64), "")
        by_position, by_key = [nothing], [nothing]
        for split in SPLITS:
            wanted = positions.get(split, np.zeros(0, np.int64))
            for records, position, at_position, at_time in self._candidates(split, wanted, times):
                by_position.append(self._decode(records[at_position], position[at_position], split))
                rows = self._decode(records[at_time], position[at_time], split)
                is_wanted = pa.array([key in keys for key in self.keys(rows)], pa.bool_())
                by_key.append(rows.filter(is_wanted))
        return (
            pa.concat_tables(by_position).combine_chunks(),
            pa.concat_tables(by_key).combine_chunks(),
        )

    def keys(self, rows: pa.Table) -> list[Key]:
        """Returns the keys of rows."""
        columns = [first_values(rows[name]).to_pylist() for name in self._key_names]
        return list(zip(*columns, strict=True))

    def _candidates(
        self, split: str, positions: NDArray[np.int64], times: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """Yields records at wanted positions or times, their position, and which of both each is.

        Unwanted records, nearly all, are dropped inside TensorFlow's threads and never reach
        Python.
        """
        files = sorted(str(path) for path in Path(self._uri, f"Split-{split}").glob("*"))
        if not files:
            raise DataError(
                f"the examples have no {split} split",
                constraint=f"TFRecord files in Split-{split}",
                received=self._uri,
                remedy="check the windows under `splits` and that the logs cover them",
            )
        spec = {TIMESTAMP: tf.io.FixedLenFeature([], tf.int64)}

        def choose(index: tf.Tensor, records: tf.Tensor) -> tuple[tf.Tensor, ...]:
            first = index * _RECORDS_PER_BATCH
            position = first + tf.range(tf.size(records, tf.int64), dtype=tf.int64)
            at_position = _is_among(position, positions)
            at_time = _is_among(tf.io.parse_example(records, spec)[TIMESTAMP], times)
            kept = tf.where(at_position | at_time)[:, 0]
            return tuple(
                tf.gather(each, kept) for each in (records, position, at_position, at_time)
            )

        dataset = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(_RECORDS_PER_BATCH)
        chosen = dataset.enumerate().map(choose, num_parallel_calls=2, deterministic=True)
        yield from chosen.prefetch(2).as_numpy_iterator()

    def _decode(
        self, records: NDArray[np.object_], position: NDArray[np.int64], split: str
    ) -> pa.Table:
        table = pa.Table.from_batches([self._decoder.DecodeBatch(records.tolist())])
        table = table.append_column(SPLIT, pa.array([split] * len(records), pa.string()))
        return table.append_column(POSITION, pa.array(position, pa.int64()))


def first_values(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Returns the first value of each list; null where the list is empty or null."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    offsets = array.offsets.to_numpy()
    present = np.diff(offsets) > 0
    # Encoders may leave values under a null list, so null is asked for and not just length 0.
    if array.null_count:
        present &= ~array.is_null().to_numpy(zero_copy_only=False)
    return array.values.take(pa.array(offsets[:-1], mask=~present))


def _is_among(values: tf.Tensor, ascending: NDArray[np.int64]) -> tf.Tensor:
    """Tells which values occur in an ascending array."""
    padded = tf.constant(np.append(ascending, _NO_POSITION))
    return tf.gather(padded, tf.searchsorted(padded, values)) == values


def _feature_types(ranking: RankingSpec) -> dict[str, int]:
    types: dict[str, int] = {TIMESTAMP: schema_pb2.INT}
    for feature in (*ranking.training_features, *ranking.rank_inputs):
        types[feature.name] = schema_pb2.BYTES if feature.dtype == "string" else schema_pb2.FLOAT
    for column in ranking.key_columns:
        types[key_feature(column)] = schema_pb2.BYTES
    for output in ranking.all_outputs:
        for name in (output.label_key, output.mask_key):
            types[name] = schema_pb2.FLOAT
    return types
