"""String tensors stay as they were sent: TensorFlow decodes them, and Python makes no objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.api.messages import TensorProto
from serving.api.tensors import Array, declared_shape, decode, encode


class SentStrings:
    """A string tensor of a request.

    Args:
        proto: The TensorProto; it must not change any more.
        max_bytes: Most memory that it may take.

    Attributes:
        shape: Sizes.
        nbytes: Memory that TensorFlow needs for it, without what long strings need.

    Raises:
        TensorError: See `serving.api.tensors.decode`.
    """

    BYTES_PER_STRING = 24
    """What a string takes in a tensor of TensorFlow's, with up to 22 bytes of its own."""

    __slots__ = ("_proto", "nbytes", "shape")

    def __init__(self, proto: Any, max_bytes: int) -> None:
        self.shape = declared_shape(proto, self.BYTES_PER_STRING, max_bytes)
        num_strings = math.prod(self.shape)
        self.nbytes = num_strings * self.BYTES_PER_STRING
        if proto.tensor_content or len(proto.string_val) != num_strings:
            # Rare: raw content, which counts more than a list, or a list to be continued or cut.
            # What is checked here has to be what TensorFlow decodes.
            proto = encode(decode(proto, max_bytes=max_bytes))
        self._proto = proto

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def serialized(self) -> bytes:
        """Returns the bytes of a TensorProto."""
        content: bytes = self._proto.SerializeToString()
        return content

    def strings(self) -> list[bytes]:
        """Returns the strings, row by row."""
        return list(self._proto.string_val)

    def array(self) -> Array:
        """Returns them as an ``object`` array of bytes."""
        return decode(self._proto)

    def repeated_first(self, count: int) -> SentStrings:
        """Returns the first row so many times; the tensor must have one."""
        row = self.strings()[: math.prod(self.shape[1:])]
        proto = TensorProto(dtype=self._proto.dtype, string_val=row * count)
        return _whole(proto, (count, *self.shape[1:]))

    @staticmethod
    def joined(parts: Sequence[SentStrings]) -> SentStrings:
        """Returns the rows of all, one after the other; their row shapes must be the same."""
        proto = TensorProto()
        for part in parts:
            proto.MergeFrom(part._proto)  # lists of values are appended
        return _whole(proto, (sum(map(len, parts)), *parts[0].shape[1:]))


Value = Array | SentStrings
"""What an input of a model is fed with."""


def _whole(proto: Any, shape: tuple[int, ...]) -> SentStrings:
    proto.ClearField("tensor_shape")
    for size in shape:
        proto.tensor_shape.dim.add().size = size
    return SentStrings(proto, max(1, math.prod(shape)) * SentStrings.BYTES_PER_STRING)


def strings(value: Value) -> list[bytes]:
    """Returns the strings of a value, row by row; none if it holds numbers."""
    if isinstance(value, SentStrings):
        return value.strings()
    return value.ravel().tolist() if value.dtype == np.object_ else []


def concatenated(values: Sequence[Value]) -> Value:
    """Returns the rows of all values, one after the other.

    Args:
        values: Of one input, with the same row shapes.
    """
    sent = [value for value in values if isinstance(value, SentStrings)]
    if len(sent) == len(values):
        return SentStrings.joined(sent)
    return np.concatenate(
        [value.array() if isinstance(value, SentStrings) else value for value in values]
    )


def repeated_first(value: Value, count: int) -> Value:
    """Returns the first row of a value so many times."""
    if isinstance(value, SentStrings):
        return value.repeated_first(count)
    return np.repeat(value[:1], count, 0)
