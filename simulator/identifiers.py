"""Ids as a site would log them: no order of time or popularity to read off."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from simulator.population import Ints

REQUEST_ID_LENGTH = 13
_MASK = np.uint64((1 << 48) - 1)
_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)


def request_ids(number: Ints, seed: int) -> pa.StringArray:
    """Turns request numbers into ``r`` and 12 hexadecimal digits, one to one below 2 ** 48.

    Args:
        number: Numbers of requests; negative ones are missing.
        seed: Different seeds give different ids.

    Returns:
        The ids, null where the number is negative, [len(number)].
    """
    # Multiplying by an odd number and xor with the own upper half are both invertible mod 2^48.
    salt = np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & int(_MASK))
    mixed = ((number.astype(np.uint64) ^ salt) * np.uint64(0xBF58476D1CE4E5B9)) & _MASK
    mixed = ((mixed ^ (mixed >> np.uint64(24))) * np.uint64(0x94D049BB133111EB)) & _MASK
    mixed ^= mixed >> np.uint64(24)
    octets = mixed.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:]
    digits = np.empty((len(number), REQUEST_ID_LENGTH), dtype=np.uint8)
    digits[:, 0] = ord("r")
    digits[:, 1::2] = _HEX[octets >> 4]
    digits[:, 2::2] = _HEX[octets & 15]
    offsets = np.arange(0, REQUEST_ID_LENGTH * (len(number) + 1), REQUEST_ID_LENGTH)
    ids = pa.LargeStringArray.from_buffers(
        len(number), pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(digits)
    )
    missing = pa.array(number < 0)
    result: pa.StringArray = pa.compute.if_else(missing, None, ids).cast(pa.string())
    return result


def numbered_names(prefix: str, count: int) -> pa.StringArray:
    """Returns ``prefix`` and a number with leading zeros, for each of `count` entities."""
    width = len(str(max(count - 1, 0)))
    return pa.array([f"{prefix}{number:0{width}d}" for number in range(count)], pa.string())
