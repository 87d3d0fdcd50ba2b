"""The TFRecord format, whole arrays of records at a time.

A record is its length (uint64), the masked CRC32C of the length, its bytes and the masked CRC32C
of these (https://www.tensorflow.org/tutorials/load_data/tfrecord). Written here rather than by
tf.io.TFRecordWriter for two reasons: a worker needs no TensorFlow, whose import alone takes longer
than a shard; and the compression of a whole block leaves Python to other threads meanwhile.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterable, Iterator

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_GZIP = zlib.MAX_WBITS | 16
_MASK_DELTA = np.uint32(0xA282EAD8)
_FOOTER = bytes(4)

Bytes = NDArray[np.uint8]


def gzipped(parts: Iterable[Bytes], level: int) -> Iterator[bytes]:
    """Yields the parts of a gzip file.

    The same contents give the same bytes: the header holds no time and no name.

    Args:
        parts: Contents.
        level: Compression level of zlib, 1 to 9.
    """
    compressor = zlib.compressobj(level, zlib.DEFLATED, _GZIP)
    for part in parts:
        yield compressor.compress(part.data)
    yield compressor.flush()


def framed_records(records: pa.LargeBinaryArray) -> Bytes:
    """Puts length and checksums around records.

    Args:
        records: At least one record, none null.

    Returns:
        The bytes of an uncompressed TFRecord file.
    """
    lengths = pc.binary_length(records).to_numpy()
    distinct, position = np.unique(lengths, return_inverse=True)
    heads = pa.array([_head(int(length)) for length in distinct], pa.large_binary())
    framed = pc.binary_join_element_wise(
        heads.take(pa.array(position)),
        records,
        pa.scalar(_FOOTER, pa.large_binary()),
        pa.scalar(b"", pa.large_binary()),
    )
    offsets = _offsets(records)
    content = records.buffers()[2].to_pybytes()
    checksums = np.array(
        [google_crc32c.value(content[a:b]) for a, b in itertools.pairwise(offsets.tolist())],
        dtype=np.uint32,
    )
    flat = np.frombuffer(framed.buffers()[2], np.uint8)[: int(_offsets(framed)[-1])].copy()
    ends = _offsets(framed)[1:]
    flat[(ends - 4)[:, None] + np.arange(4)] = _masked(checksums).view(np.uint8).reshape(-1, 4)
    return flat


def _head(length: int) -> bytes:
    encoded = struct.pack("<Q", length)
    checksum = np.array([google_crc32c.value(encoded)], dtype=np.uint32)
    return encoded + _masked(checksum).tobytes()


def _masked(checksums: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Rotates right by 15 bits and adds a constant, as the format asks."""
    with np.errstate(over="ignore"):
        rotated = (checksums >> np.uint32(15)) | (checksums << np.uint32(17))
        masked: NDArray[np.uint32] = (rotated + _MASK_DELTA).astype("<u4")
    return masked


def _offsets(array: pa.LargeBinaryArray) -> NDArray[np.int64]:
    offsets = np.frombuffer(array.buffers()[1], np.int64)
    return offsets[array.offset : array.offset + len(array) + 1]
