"""The type in which dense layers compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from models.spec.training import Precision


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Sets the type in which layers that are made inside compute; they keep it afterwards."""
    policy = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(
        precision if precision == "float32" else f"mixed_{precision}"
    )
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(policy)
