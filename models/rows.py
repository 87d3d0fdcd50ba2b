"""Transformed rows, in memory or streamed from their files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.seeding import derived_seed
from models.spec.errors import DataError
from models.spec.keys import (
    TRANSFORMED_CATEGORICAL,
    TRANSFORMED_GROUP,
    TRANSFORMED_NUMERIC,
    TRANSFORMED_SEQUENCES,
)

Column: TypeAlias = NDArray[Any]

Batch: TypeAlias = dict[str, tf.Tensor]
"""Column name to [rows of the batch, ...]."""

_READ_ROWS = 8192
_PACKED_IDS = (TRANSFORMED_CATEGORICAL, TRANSFORMED_SEQUENCES)
_PACKED = (*_PACKED_IDS, TRANSFORMED_NUMERIC)


class Rows(ABC):
    """The rows of one split.

    Args:
        names: Names of the columns.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Keeps the names."""
        self.names = tuple(names)

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """Number of rows."""

    @abstractmethod
    def column(self, name: str) -> Column:
        """Returns one column that is not packed, in order of rows: [rows]."""

    @property
    @abstractmethod
    def batch_spec(self) -> dict[str, tf.TensorSpec]:
        """Type and shape of a batch of any size, by column."""

    @abstractmethod
    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Yields the rows in order; the last batch may be shorter."""

    @abstractmethod
    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """Yields all rows in an order that depends on seed and epoch alone."""


@final
class CachedRows(Rows):
    """Rows in memory; an epoch is a permutation of all of them.

    Args:
        columns: Column name to values, [rows, ...].
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        """Keeps the columns."""
        super().__init__(tuple(columns))
        self._columns = dict(columns)
        self._tensors = {name: tf.constant(values) for name, values in columns.items()}

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self._columns.values())))

    @property
    def batch_spec(self) -> dict[str, tf.TensorSpec]:
        """See `Rows.batch_spec`."""
        return {
            name: tf.TensorSpec([None, *values.shape[1:]], values.dtype)
            for name, values in self._tensors.items()
        }

    def column(self, name: str) -> Column:
        """See `Rows.column`."""
        return self._columns[name]

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """See `Rows.in_order`."""
        return self._batches(np.arange(self.num_rows), batch_size)

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """See `Rows.shuffled`."""
        rng = np.random.default_rng(derived_seed(seed, "shuffle", epoch))
        return self._batches(rng.permutation(self.num_rows), batch_size)

    def _batches(self, order: Column, batch_size: int) -> Iterator[Batch]:
        # A batch is picked at once: single rows through tf.data cost more than a training step.
        for start in range(0, len(order), batch_size):
            picked = order[start : start + batch_size]
            yield {name: tf.gather(values, picked) for name, values in self._tensors.items()}


@final
class StreamedRows(Rows):
    """Rows read from their files in every epoch.

    Args:
        files: Gzipped TFRecord files.
        spec: Parsing specification of the columns.
        shuffle_buffer: Rows shuffled together; the files are shuffled as well.
        useful_keys: Weight columns; rows where all of them are 0 are left out.
    """

    def __init__(
        self,
        files: Sequence[str],
        spec: Mapping[str, Any],
        shuffle_buffer: int,
        useful_keys: Sequence[str] = (),
    ) -> None:
        """Reads the columns that are not packed."""
        super().__init__(tuple(spec))
        self._files = list(files)
        self._spec = dict(spec)
        self._shuffle_buffer = shuffle_buffer
        self._useful_keys = list(useful_keys)
        scalars = {name: feature for name, feature in spec.items() if name not in _PACKED}
        self._scalars = _gathered(_decoded(files, scalars, useful_keys), scalars)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self._scalars.values())))

    @property
    def batch_spec(self) -> dict[str, tf.TensorSpec]:
        """See `Rows.batch_spec`."""
        spec: dict[str, tf.TensorSpec] = self._batches(_records(self._files), 1).element_spec
        return spec

    def column(self, name: str) -> Column:
        """See `Rows.column`."""
        return self._scalars[name]

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """See `Rows.in_order`."""
        return iter(self._batches(_records(self._files), batch_size))

    def shuffled(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """See `Rows.shuffled`."""
        rng = np.random.default_rng(derived_seed(seed, "files", epoch))
        records = _records([self._files[i] for i in rng.permutation(len(self._files))]).shuffle(
            self._shuffle_buffer,
            seed=derived_seed(seed, "shuffle", epoch),
            reshuffle_each_iteration=False,
        )
        return iter(self._batches(records, batch_size))

    def _batches(self, records: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        parser = _parser(self._spec, self._useful_keys)
        batches = records.batch(batch_size).map(parser)
        return (batches.rebatch(batch_size) if self._useful_keys else batches).prefetch(2)


def read_rows(
    patterns: Sequence[str],
    feature_spec: Mapping[str, Any],
    label_keys: Sequence[str],
    *,
    split: str,
    cache_bytes: int,
    shuffle_buffer: int,
    useful_keys: Sequence[str] = (),
) -> Rows:
    """Opens the transformed rows of a split.

    Args:
        patterns: File patterns of gzipped TFRecords.
        feature_spec: Parsing specification of all transformed features.
        label_keys: Names of the label and weight columns wanted.
        split: Name of the split, for messages.
        cache_bytes: Rows are kept in memory if they fit in this.
        shuffle_buffer: Rows shuffled together where they do not.
        useful_keys: Weight columns; rows where all of them are 0 are left out.

    Raises:
        DataError: There is no row.
    """
    files = sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
    packed = [name for name in _PACKED if name in feature_spec]
    spec = {name: feature_spec[name] for name in (*packed, TRANSFORMED_GROUP, *label_keys)}
    decoded = _decoded(files, spec, useful_keys)
    columns = _within(decoded, spec, cache_bytes) if files else None
    rows: Rows
    if columns is not None:
        rows = CachedRows(columns)
    elif files:
        rows = StreamedRows(files, spec, shuffle_buffer, useful_keys)
    if not files or not rows.num_rows:
        raise DataError(
            f"the {split} split has no rows",
            constraint="at least one transformed example",
            received=", ".join(patterns),
            remedy="check the windows under `splits` and that the logs cover them",
        )
    return rows


def _records(files: Sequence[str]) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(list(files), compression_type="GZIP")


def _parser(spec: Mapping[str, Any], useful_keys: Sequence[str]) -> Any:
    def parse(records: tf.Tensor) -> dict[str, tf.Tensor]:
        columns = tf.io.parse_example(records, dict(spec))
        if useful_keys:
            weights = tf.stack([columns[key] for key in useful_keys], axis=1)
            useful = tf.where(tf.reduce_any(weights > 0, axis=1))[:, 0]
            columns = {name: tf.gather(values, useful) for name, values in columns.items()}
        return {
            name: tf.cast(values, tf.int32) if name in _PACKED_IDS else values
            for name, values in columns.items()
        }

    return parse


def _decoded(
    files: Sequence[str], spec: Mapping[str, Any], useful_keys: Sequence[str]
) -> Iterator[dict[str, Column]]:
    parser = _parser(spec, useful_keys)
    dataset = _records(files).batch(_READ_ROWS).map(parser, num_parallel_calls=2)
    return iter(dataset.prefetch(2).as_numpy_iterator())


def _gathered(batches: Iterator[dict[str, Column]], spec: Mapping[str, Any]) -> dict[str, Column]:
    parts = list(batches)
    return {
        name: np.concatenate([part[name] for part in parts]) if parts else np.empty(0)
        for name in spec
    }


def _within(
    batches: Iterator[dict[str, Column]], spec: Mapping[str, Any], cache_bytes: int
) -> dict[str, Column] | None:
    """Reads all rows; None as soon as they exceed the limit."""
    parts: list[dict[str, Column]] = []
    num_bytes = 0
    for part in batches:
        num_bytes += sum(values.nbytes for values in part.values())
        if num_bytes > cache_bytes:
            return None
        parts.append(part)
    return _gathered(iter(parts), spec)
