"""One split of the Examples artifact, as Arrow columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pyarrow as pa
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.coders import example_coder

from models.spec.errors import DataError

FeatureType = Literal["bytes", "float", "int"]

_SCHEMA_TYPE: dict[FeatureType, Any] = {
    "bytes": schema_pb2.BYTES,
    "float": schema_pb2.FLOAT,
    "int": schema_pb2.INT,
}
_RECORDS_PER_BATCH = 16_384


def read_split(uri: str, split: str, features: Mapping[str, FeatureType]) -> pa.Table:
    """Decodes some features of one split.

    Args:
        uri: Root of an Examples artifact; the split lies in `Split-<split>/` as gzipped TFRecords.
        split: Name of the split.
        features: Feature name to type; only these are decoded.

    Returns:
        A table with one list column per feature and one row per example; a missing value is null
        or an empty list.

    Raises:
        DataError: The split has no file.
    """
    files = sorted(tf.io.gfile.glob(f"{uri}/Split-{split}/*"))
    if not files:
        raise DataError(
            f"the examples have no {split} split",
            constraint=f"TFRecord files in Split-{split}",
            received=uri,
            remedy="check the windows under `splits` and that the logs cover them",
        )
    schema = schema_pb2.Schema()
    for name in sorted(features):
        schema.feature.add(name=name, type=_SCHEMA_TYPE[features[name]])
    decoder = example_coder.ExamplesToRecordBatchDecoder(schema.SerializeToString())
    batches = [decoder.DecodeBatch(records) for records in _record_batches(files)]
    if not batches:
        batches = [decoder.DecodeBatch([])]
    return pa.Table.from_batches(batches).combine_chunks()


def _record_batches(files: list[str]) -> Iterator[list[bytes]]:
    dataset = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(_RECORDS_PER_BATCH)
    for records in dataset.as_numpy_iterator():
        yield records.tolist()
