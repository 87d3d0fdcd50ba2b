"""The API without TensorFlow agrees with TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2
from tensorflow.core.framework import tensor_pb2

from serving.api import DESCRIPTOR_FILE, generate, messages
from serving.api.tensors import TensorError, decode, encode

ARRAYS = {
    "float32": np.array([[1.5, -2.0], [np.inf, 0.25]], np.float32),
    "float64": np.array([1e300, -0.5]),
    "float16": np.array([0.5, 65504.0, -2.0], np.float16),
    "int8": np.array([-128, 127], np.int8),
    "int16": np.array([-5, 5], np.int16),
    "int32": np.array([[-(2**31)], [2**31 - 1]], np.int32),
    "int64": np.array([-(2**63), 2**63 - 1], np.int64),
    "uint8": np.array([0, 255], np.uint8),
    "uint16": np.array([0, 65535], np.uint16),
    "uint32": np.array([0, 2**32 - 1], np.uint32),
    "uint64": np.array([0, 2**64 - 1], np.uint64),
    "bool": np.array([[True, False, True]]),
    "strings": np.array([[b"a", b""], ["ü".encode(), b"\x00\xff"]], object),
    "scalar": np.array(3.0, np.float32),
    "empty": np.zeros((0, 4), np.int64),
    "big endian": np.array([1, 2], ">i4"),
    "not contiguous": np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2],
}


def same(left: np.ndarray, right: np.ndarray) -> None:
    assert left.shape == right.shape
    assert left.tolist() == right.tolist()


@pytest.mark.parametrize("name", ARRAYS)
def test_what_we_encode_tensorflow_reads(name: str) -> None:
    proto = tensor_pb2.TensorProto.FromString(encode(ARRAYS[name]).SerializeToString())
    same(tf.make_ndarray(proto), ARRAYS[name])


@pytest.mark.parametrize("name", [name for name in ARRAYS if name != "big endian"])
def test_what_tensorflow_encodes_we_read(name: str) -> None:
    content = tf.make_tensor_proto(ARRAYS[name]).SerializeToString()
    same(decode(messages.TensorProto.FromString(content)), ARRAYS[name])


@pytest.mark.parametrize("name", [name for name in ARRAYS if name != "big endian"])
def test_decoded_arrays_keep_type_and_are_writable(name: str) -> None:
    array = decode(encode(ARRAYS[name]))
    assert array.dtype == ARRAYS[name].dtype
    assert array.flags.writeable


@pytest.mark.parametrize(
    ("dtype", "field", "values", "expected"),
    [
        ("DT_FLOAT", "float_val", [1.5, 2.5], [1.5, 2.5, 2.5, 2.5]),
        ("DT_FLOAT", "float_val", [], [0, 0, 0, 0]),
        ("DT_INT64", "int64_val", [1, 2, 3, 4, 5, 6], [1, 2, 3, 4]),
        ("DT_INT8", "int_val", [300, -1, 0, 1], [44, -1, 0, 1]),
        ("DT_BOOL", "bool_val", [True], [True] * 4),
        ("DT_UINT32", "uint32_val", [7], [7] * 4),
        ("DT_UINT64", "uint64_val", [2**64 - 1], [2**64 - 1] * 4),
        ("DT_DOUBLE", "double_val", [0.1], [0.1] * 4),
        ("DT_HALF", "half_val", [0x3C00], [1.0] * 4),
        ("DT_STRING", "string_val", [b"x", b"y"], [b"x", b"y", b"y", b"y"]),
        ("DT_STRING", "string_val", [], [b""] * 4),
    ],
)
def test_value_fields_are_fitted_to_the_shape(dtype, field, values, expected) -> None:
    proto = messages.TensorProto(dtype=messages.DATA_TYPES[dtype])
    proto.tensor_shape.dim.add().size = 2
    proto.tensor_shape.dim.add().size = 2
    getattr(proto, field).extend(values)
    assert decode(proto).ravel().tolist() == expected
    # TensorFlow's runtime reads it the same way (its Python make_ndarray pads differently).
    theirs = tensor_pb2.TensorProto.FromString(proto.SerializeToString())
    constant = tf.raw_ops.ParseTensor(
        serialized=theirs.SerializeToString(), out_type=tf.as_dtype(theirs.dtype)
    )
    assert constant.numpy().ravel().tolist() == expected


def test_raw_string_content_is_read() -> None:
    long = b"z" * 200
    proto = messages.TensorProto(dtype=messages.DATA_TYPES["DT_STRING"])
    proto.tensor_shape.dim.add().size = 3
    proto.tensor_content = b"\x01\x00\xc8\x01" + b"a" + long
    assert decode(proto).tolist() == [b"a", b"", long]


def tensor(dtype: str, sizes: list[int], **fields: object) -> object:
    proto = messages.TensorProto(dtype=messages.DATA_TYPES[dtype], **fields)
    for size in sizes:
        proto.tensor_shape.dim.add().size = size
    return proto


@pytest.mark.parametrize(
    ("proto", "text"),
    [
        (tensor("DT_FLOAT", [2], tensor_content=b"abc"), "3 bytes"),
        (tensor("DT_FLOAT", [-1]), "negative"),
        (tensor("DT_FLOAT", [1 << 40]), "exceeds"),
        (tensor("DT_STRING", [1 << 40], string_val=[b"x"]), "exceeds"),
        (tensor("DT_FLOAT", [1 << 62, 1 << 62, 0]), ""),
        (tensor("DT_FLOAT", [1] * 100), ""),
        (tensor("DT_COMPLEX64", [1]), "DT_COMPLEX64"),
        (tensor("DT_INVALID", [1]), "DT_INVALID"),
        (messages.TensorProto(dtype=9999), "9999"),
        (tensor("DT_STRING", [2], tensor_content=b"\x05\x01ab"), "malformed"),
        (tensor("DT_STRING", [1], tensor_content=b"\xff\xff\xff\xff\xff\xff"), "malformed"),
        (tensor("DT_STRING", [3], tensor_content=b"\x00"), "malformed"),
    ],
)
def test_malformed_tensors_are_errors(proto, text) -> None:
    with pytest.raises(TensorError, match=text):
        decode(proto)


def test_unknown_rank_is_an_error() -> None:
    proto = messages.TensorProto(dtype=1)
    proto.tensor_shape.unknown_rank = True
    with pytest.raises(TensorError, match="rank"):
        decode(proto)


@pytest.mark.parametrize("array", [np.array([1j]), np.array([object()]), np.array([None])])
def test_arrays_without_a_counterpart_are_errors(array) -> None:
    with pytest.raises(TensorError):
        encode(array)


def test_stored_descriptors_are_those_of_the_installed_api() -> None:
    stored = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR_FILE.read_bytes())
    assert stored == generate.collect()


def test_private_classes_coexist_with_tensorflow_serving() -> None:
    from tensorflow_serving.apis import predict_pb2

    request = messages.PredictRequest()
    request.model_spec.name = "m"
    request.inputs["x"].CopyFrom(encode(np.array([1.0], np.float32)))
    theirs = predict_pb2.PredictRequest.FromString(request.SerializeToString())
    assert tf.make_ndarray(theirs.inputs["x"]).tolist() == [1.0]
    assert type(theirs) is not type(request)
