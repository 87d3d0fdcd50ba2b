"""Codecs between NumPy arrays and TensorProto, without TensorFlow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.api.messages import DATA_TYPE_NAMES, DATA_TYPES, TensorProto

Array = npt.NDArray[Any]

_NUMBERS: dict[int, tuple[np.dtype[Any], str]] = {
    DATA_TYPES[name]: (np.dtype(dtype), field)
    for name, dtype, field in (
        ("DT_FLOAT", "<f4", "float_val"),
        ("DT_DOUBLE", "<f8", "double_val"),
        ("DT_HALF", "<f2", "half_val"),
        ("DT_INT8", "<i1", "int_val"),
        ("DT_INT16", "<i2", "int_val"),
        ("DT_INT32", "<i4", "int_val"),
        ("DT_INT64", "<i8", "int64_val"),
        ("DT_UINT8", "<u1", "int_val"),
        ("DT_UINT16", "<u2", "int_val"),
        ("DT_UINT32", "<u4", "uint32_val"),
        ("DT_UINT64", "<u8", "uint64_val"),
        ("DT_BOOL", "?", "bool_val"),
    )
}
"""Per numeric data type: its NumPy type, and the field that lists its values one by one."""

_DATA_TYPE_OF: dict[np.dtype[Any], int] = {
    dtype: data_type for data_type, (dtype, _) in _NUMBERS.items()
}

DT_STRING = DATA_TYPES["DT_STRING"]

DEFAULT_MAX_BYTES = 1 << 30


class TensorError(ValueError):
    """A TensorProto or an array that the codec cannot convert."""


def numpy_dtype(data_type: int) -> np.dtype[Any]:
    """Returns the NumPy type of a TensorFlow data type; ``object`` (of bytes) for strings.

    Raises:
        TensorError: The data type has no codec (complex, quantized, bfloat16, ...).
    """
    if data_type == DT_STRING:
        return np.dtype(object)
    try:
        return _NUMBERS[data_type][0]
    except KeyError:
        name = DATA_TYPE_NAMES.get(data_type, str(data_type))
        raise TensorError(f"tensors of type {name} are not supported") from None


def encode(array: npt.ArrayLike) -> Any:
    """Encodes an array as a TensorProto: numbers as raw content, strings as ``string_val``.

    Args:
        array: Numbers, booleans, ``bytes`` or ``str`` (encoded as UTF-8), of any shape.

    Raises:
        TensorError: The array's type has no TensorFlow counterpart.
    """
    values = np.asarray(array)
    proto = TensorProto()
    for size in values.shape:
        proto.tensor_shape.dim.add().size = size
    if values.dtype.kind in "OSU":
        proto.dtype = DT_STRING
        proto.string_val.extend(_as_bytes(value) for value in values.ravel().tolist())
        return proto
    little_endian = values.dtype.newbyteorder("<")
    try:
        proto.dtype = _DATA_TYPE_OF[little_endian]
    except KeyError:
        raise TensorError(f"arrays of type {values.dtype} are not supported") from None
    proto.tensor_content = values.astype(little_endian, copy=False).tobytes()
    return proto


def _as_bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise TensorError(f"a string tensor holds str or bytes; received {type(value).__name__}")


def decode(proto: Any, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Array:
    """Decodes a TensorProto as TensorFlow would.

    Values come from ``tensor_content`` where it is set, else from the typed ``*_val`` field; a
    short ``*_val`` list is continued with its last value, an empty one stands for zeros.

    Args:
        proto: A TensorProto.
        max_bytes: Largest array to build. A proto of a few bytes can declare any shape.

    Returns:
        An own, writable array; of ``object`` (bytes) for strings.

    Raises:
        TensorError: The shape is unknown or negative, the content does not fit it, the array
            would exceed `max_bytes`, or the type is not supported.
    """
    dtype = numpy_dtype(proto.dtype)
    shape = declared_shape(proto, dtype.itemsize, max_bytes)
    num_values = math.prod(shape)
    try:
        if dtype.kind == "O":
            return _decode_strings(proto, num_values).reshape(shape)
        return _decode_numbers(proto, dtype, num_values).reshape(shape)
    except ValueError as error:
        # NumPy refuses ranks and dimensions beyond its own limits, even for no values at all.
        raise error if isinstance(error, TensorError) else TensorError(str(error)) from None


def declared_shape(proto: Any, item_bytes: int, max_bytes: int) -> tuple[int, ...]:
    """Reads the shape that a TensorProto declares.

    Args:
        proto: A TensorProto.
        item_bytes: What one value takes in memory.
        max_bytes: What all of them may take.

    Raises:
        TensorError: The shape is unknown, negative or too large.
    """
    if proto.tensor_shape.unknown_rank:
        raise TensorError("the tensor's rank is unknown")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if any(size < 0 for size in shape):
        raise TensorError(f"the tensor's shape {list(shape)} has a negative size")
    if math.prod(shape) * item_bytes > max_bytes:
        raise TensorError(f"a tensor of shape {list(shape)} exceeds {max_bytes} bytes")
    return shape


def _decode_numbers(proto: Any, dtype: np.dtype[Any], num_values: int) -> Array:
    content = proto.tensor_content
    if content:
        if len(content) != num_values * dtype.itemsize:
            raise TensorError(
                f"the tensor's content has {len(content)} bytes; its shape and type need "
                f"{num_values * dtype.itemsize}"
            )
        if dtype.kind == "b":
            return np.frombuffer(content, np.uint8).astype(bool)
        return np.frombuffer(content, dtype).copy()
    values = getattr(proto, _NUMBERS[proto.dtype][1])
    if proto.dtype == DATA_TYPES["DT_HALF"]:  # half_val carries bit patterns as integers
        found = np.array(values, np.uint32).astype(np.uint16).view(np.float16)
    elif dtype.kind in "iu" and dtype.itemsize < 4:  # int_val is wider than the type: wrap as C++
        found = np.array(values, np.int32).astype(dtype)
    else:
        found = np.array(values, dtype)
    return _fit(found, num_values)


def _decode_strings(proto: Any, num_values: int) -> Array:
    values = (
        _split_string_content(proto.tensor_content, num_values)
        if proto.tensor_content
        else list(proto.string_val)
    )
    found = np.empty(len(values), object)
    found[:] = values
    return _fit(found, num_values)


def _fit(found: Array, num_values: int) -> Array:
    if len(found) >= num_values:
        return found[:num_values]
    if len(found) == 0:
        filler: Any = b"" if found.dtype.kind == "O" else 0
        return np.full(num_values, filler, found.dtype)
    return np.concatenate([found, np.full(num_values - len(found), found[-1], found.dtype)])


def _split_string_content(content: bytes, num_values: int) -> list[bytes]:
    """Splits raw string content: all lengths as varints, then all bytes."""
    lengths = []
    position = 0
    for _ in range(num_values):
        length = shift = 0
        while True:
            if position >= len(content) or shift > 28:
                raise TensorError("the tensor's string content is malformed")
            byte = content[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise TensorError("the tensor's string content is malformed")
    values = []
    for length in lengths:
        values.append(content[position : position + length])
        position += length
    return values
