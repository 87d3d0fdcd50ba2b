"""Rows of the Examples artifact, as Arrow columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

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

_RECORDS_PER_BATCH = 8192

Key = tuple[object, ...]
"""Timestamp in milliseconds and the key columns' bytes, in the order of `key_columns`."""


class ExampleRows:
    """Reads chosen rows of an Examples artifact.

    Args:
        uri: Root of the artifact; a split lies in `Split-<split>/` as gzipped TFRecords.
        ranking: Says which features the examples carry.
    """

    def __init__(self, uri: str, ranking: RankingSpec) -> None:
        """Prepares the decoders."""
        self._uri = uri
        self._key_names = (TIMESTAMP, *(key_feature(c) for c in ranking.key_columns))
        types = _feature_types(ranking)
        self._key_decoder = _decoder({name: types[name] for name in self._key_names})
        self._decoder = _decoder(types)

    def read(
        self, positions: Mapping[str, NDArray[np.int64]], keys: frozenset[Key] = frozenset()
    ) -> tuple[pa.Table, pa.Table]:
        """Reads rows by their position and rows by their key, in one pass.

        Args:
            positions: Row numbers to read in each split, ascending.
            keys: Keys of more rows to read, in whichever split they are.

        Returns:
            The rows at the positions, and those with the keys: one list column per feature (a
            missing value is null or an empty list) and the string column `example__split`.
        """
        times = np.array(sorted({key[0] for key in keys}), np.int64)  # type: ignore[type-var]
        by_position: list[pa.Table] = []
        by_key: list[pa.Table] = []
        for split in SPLITS:
            wanted = positions.get(split, np.zeros(0, np.int64))
            start = 0
            for records in self._batches(split):
                inside = wanted[(wanted >= start) & (wanted < start + len(records))] - start
                by_position.append(self._decode(records, inside, split))
                if len(times):
                    by_key.append(self._decode(records, self._having(records, times, keys), split))
                start += len(records)
        empty = self._decode(np.zeros(0, object), np.zeros(0, np.int64), "")
        return (
            pa.concat_tables([*by_position, empty]).combine_chunks(),
            pa.concat_tables([*by_key, empty]).combine_chunks(),
        )

    def _batches(self, split: str) -> Iterator[NDArray[np.object_]]:
        files = sorted(str(path) for path in Path(self._uri, f"Split-{split}").glob("*"))
        if not files:
            raise DataError(
                f"the examples have no {split} split",
                constraint=f"TFRecord files in Split-{split}",
                received=self._uri,
                remedy="check the windows under `splits` and that the logs cover them",
            )
        dataset = tf.data.TFRecordDataset(files, compression_type="GZIP")
        yield from dataset.batch(_RECORDS_PER_BATCH).prefetch(2).as_numpy_iterator()

    def _having(
        self, records: NDArray[np.object_], times: NDArray[np.int64], keys: frozenset[Key]
    ) -> NDArray[np.int64]:
        """Finds the records whose key is wanted; most fall at the time already."""
        batch = self._key_decoder.DecodeBatch(records.tolist())
        columns = [first_values(batch.column(name)) for name in self._key_names]
        at_time = np.flatnonzero(np.isin(columns[0].to_numpy(zero_copy_only=False), times))
        rows = zip(*(c.take(pa.array(at_time)).to_pylist() for c in columns), strict=True)
        found = [row for row, key in zip(at_time, rows, strict=True) if key in keys]
        return np.array(found, np.int64)

    def _decode(
        self, records: NDArray[np.object_], rows: NDArray[np.int64], split: str
    ) -> pa.Table:
        table = pa.Table.from_batches([self._decoder.DecodeBatch(records[rows].tolist())])
        return table.append_column(SPLIT, pa.array([split] * len(rows), pa.string()))


def first_values(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Returns the first value of each list; null where the list is empty or null."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    offsets = array.offsets.to_numpy()
    present = np.diff(offsets) > 0
    # Encoders may leave values under a null list, so null is asked for and not just length 0.
    if array.null_count:
        present &= ~array.is_null().to_numpy(zero_copy_only=False)
    return array.values.take(pa.array(offsets[:-1], mask=~present))


def _feature_types(ranking: RankingSpec) -> dict[str, int]:
    types: dict[str, int] = {TIMESTAMP: schema_pb2.INT}
    for feature in (*ranking.training_features, *ranking.rank_inputs):
        types[feature.name] = (
            schema_pb2.BYTES if feature.dtype == "string" else schema_pb2.FLOAT
        )
    for column in ranking.key_columns:
        types[key_feature(column)] = schema_pb2.BYTES
    for output in ranking.all_outputs:
        for name in (output.label_key, output.mask_key):
            types[name] = schema_pb2.FLOAT
    return types


def _decoder(types: Mapping[str, int]) -> example_coder.ExamplesToRecordBatchDecoder:
    schema = schema_pb2.Schema()
    for name in sorted(types):
        schema.feature.add(name=name, type=types[name])
    return example_coder.ExamplesToRecordBatchDecoder(schema.SerializeToString())
