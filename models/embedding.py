"""From packed features to one tensor per feature group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from tensorflow_recommenders.layers.feature_interaction import Cross, DotInteraction

from models.feature_layout import FeatureLayout, Slot, Table
from models.seeding import derived_seed
from models.spec.keys import (
    DECISION_GROUP,
    TRANSFORMED_CATEGORICAL,
    TRANSFORMED_NUMERIC,
    TRANSFORMED_SEQUENCES,
)

_INITIAL_RANGE = 0.05

Packed = Mapping[str, tf.Tensor]
"""Packed feature tensors by the names in `models.spec.keys`."""


class Embedding(tf.keras.layers.Layer):
    """Looks up all ids of all features in one table per embedding width.

    The tables of features with the same width lie one after the other in one variable, so a step
    costs one gather for the scalars and one for the sequences, however many features there are.
    A sequence becomes the mean of its values' embeddings; zeros when it has none. Rows that
    training may never reach (missing, out of vocabulary) start at 0, the centre of the others,
    so that an unknown value adds no noise.

    Args:
        layout: Where features lie.
        table_rows: Number of rows by table name.
        interaction: ``none``; ``dot``: appends, per group, the dot products of its embeddings of
            equal width (Naumov 2019, DLRM; numbers do not take part); ``cross``: one cross layer
            `x (W x + b) + x` per group (Wang 2021, DCN v2, eq. 1).
        l2: Penalty on the embeddings looked up in a batch: `l2` times their summed squares,
            divided by the batch size.
        seed: Seed of initialisation.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        table_rows: Mapping[str, int],
        interaction: Literal["none", "dot", "cross"] = "none",
        l2: float = 0.0,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        """Makes the tables."""
        super().__init__(**{"autocast": False} | kwargs)
        self._layout = layout
        self._l2 = l2
        self._offsets = _offsets(layout, table_rows)
        self.tables = [self._table(width, table_rows, seed) for width in layout.dimensions]
        self._dot = DotInteraction(name="dot") if interaction == "dot" else None
        self._crosses = {
            group: Cross(
                kernel_initializer=tf.keras.initializers.GlorotUniform(
                    seed=derived_seed(seed, "cross", group)
                ),
                name=f"cross_{group}",
            )
            for group in (layout.groups if interaction == "cross" else ())
        }

    def _table(self, width: int, table_rows: Mapping[str, int], seed: int) -> tf.Variable:
        """Makes the variable that holds all tables of one width."""
        parts = []
        for table in _tables_of(self._layout, width):
            rng = np.random.default_rng(derived_seed(seed, "table", table.name))
            num_rows = table_rows[table.name]
            rows = rng.uniform(-_INITIAL_RANGE, _INITIAL_RANGE, (num_rows, width))
            rows[list(table.untrained_rows(num_rows))] = 0.0
            parts.append(rows)
        values = np.concatenate(parts).astype(np.float32)
        return self.add_weight(
            name=f"table_{width}",
            shape=values.shape,
            initializer=tf.keras.initializers.Constant(values),
            # Half-precision rows would lose small updates.
            experimental_autocast=False,
        )

    def call(
        self, packed: Packed, training: bool = False, decisions: bool = False
    ) -> dict[str, tf.Tensor]:
        """Embeds.

        Args:
            packed: `TRANSFORMED_CATEGORICAL` int [batch, n], `TRANSFORMED_NUMERIC` float32
                [batch, m] and `TRANSFORMED_SEQUENCES` int [batch, p], those that the layout has.
            training: Whether the penalty is added to the losses.
            decisions: Whether to embed the features of decision columns, as the one group
                `DECISION_GROUP`, in place of all others.

        Returns:
            Feature group to [batch, d]: embeddings by width, then pooled sequences, numbers, their
            piecewise-linear codes, and interactions.
        """
        wanted = (DECISION_GROUP,) if decisions else self._layout.groups
        parts: dict[str, list[tf.Tensor]] = {group: [] for group in wanted}
        penalties: list[tf.Tensor] = []
        for width, table in zip(self._layout.dimensions, self.tables, strict=True):
            by_group: dict[str, list[tf.Tensor]] = {group: [] for group in parts}
            for embed in (self._scalars, self._sequences):
                for group, vectors in embed(packed, width, table, penalties, wanted).items():
                    by_group[group].append(vectors)
            for group, stacks in by_group.items():
                if stacks:
                    parts[group] += self._flattened(stacks, width)
        numeric = [slot for slot in self._layout.numeric if slot.feature.group in wanted]
        for group, slots in _by_group(numeric).items():
            for numbers in _numbers(packed[TRANSFORMED_NUMERIC], slots):
                parts[group].append(tf.cast(numbers, self.compute_dtype))
        if training and self._l2 > 0 and penalties:
            self.add_loss(self._l2 * tf.add_n(penalties))
        groups = {
            group: tensors[0] if len(tensors) == 1 else tf.concat(tensors, axis=1)
            for group, tensors in parts.items()
        }
        return {
            group: self._crosses[group](tensor) if group in self._crosses else tensor
            for group, tensor in groups.items()
        }

    def _scalars(
        self,
        packed: Packed,
        width: int,
        table: tf.Variable,
        penalties: list[tf.Tensor],
        groups: Sequence[str],
    ) -> dict[str, tf.Tensor]:
        """Looks up every scalar id of one width: group to [batch, features, width]."""
        slots = self._slots(self._layout.categorical, width, groups)
        if not slots:
            return {}
        ids = _columns(packed[TRANSFORMED_CATEGORICAL], [slot.start for slot in slots])
        offsets = tf.constant([self._offsets[str(slot.table)] for slot in slots], ids.dtype)
        vectors = tf.gather(table, ids + offsets)
        penalties.append(_mean_square(vectors))
        vectors = tf.cast(vectors, self.compute_dtype)
        position = {slot: i for i, slot in enumerate(slots)}
        return {
            group: _columns(vectors, [position[slot] for slot in members])
            for group, members in _by_group(slots).items()
        }

    def _sequences(
        self,
        packed: Packed,
        width: int,
        table: tf.Variable,
        penalties: list[tf.Tensor],
        groups: Sequence[str],
    ) -> dict[str, tf.Tensor]:
        """Looks up and averages every sequence of one width: group to [batch, features, width]."""
        slots = self._slots(self._layout.sequences, width, groups)
        if not slots:
            return {}
        columns = [c for slot in slots for c in range(slot.start, slot.start + slot.width)]
        ids = _columns(packed[TRANSFORMED_SEQUENCES], columns)
        offsets = tf.constant(
            [self._offsets[str(slot.table)] for slot in slots for _ in range(slot.width)], ids.dtype
        )
        present = ids >= 0
        mask = tf.cast(present, table.dtype)[:, :, tf.newaxis]
        vectors = tf.gather(table, tf.where(present, ids + offsets, 0)) * mask
        penalties.append(_mean_square(vectors))
        sizes = [slot.width for slot in slots]
        pooled = {
            slot: tf.math.divide_no_nan(
                tf.reduce_sum(values, axis=1), tf.reduce_sum(counts, axis=1)
            )
            for slot, values, counts in zip(
                slots, tf.split(vectors, sizes, axis=1), tf.split(mask, sizes, axis=1), strict=True
            )
        }
        return {
            group: tf.cast(tf.stack([pooled[slot] for slot in members], axis=1), self.compute_dtype)
            for group, members in _by_group(slots).items()
        }

    def _flattened(self, stacks: list[tf.Tensor], width: int) -> list[tf.Tensor]:
        """Lays [batch, features, width] side by side, and appends their dot products."""
        flat = [tf.reshape(stack, [tf.shape(stack)[0], stack.shape[1] * width]) for stack in stacks]
        if self._dot is not None and sum(stack.shape[1] for stack in stacks) > 1:
            flat.append(self._dot([v for stack in stacks for v in tf.unstack(stack, axis=1)]))
        return flat

    def _slots(
        self, slots: tuple[Slot, ...], width: int, groups: Sequence[str]
    ) -> tuple[Slot, ...]:
        tables = self._layout.tables
        return tuple(
            slot
            for slot in slots
            if tables[str(slot.table)].dimension == width and slot.feature.group in groups
        )


def _tables_of(layout: FeatureLayout, width: int) -> list[Table]:
    return [table for _, table in sorted(layout.tables.items()) if table.dimension == width]


def _offsets(layout: FeatureLayout, table_rows: Mapping[str, int]) -> dict[str, int]:
    """Returns the first row of each table in the variable of its width."""
    offsets: dict[str, int] = {}
    for width in layout.dimensions:
        next_row = 0
        for table in _tables_of(layout, width):
            offsets[table.name] = next_row
            next_row += table_rows[table.name]
    return offsets


def _by_group(slots: Sequence[Slot]) -> dict[str, list[Slot]]:
    groups: dict[str, list[Slot]] = {}
    for slot in slots:
        groups.setdefault(slot.feature.group, []).append(slot)
    return groups


def _numbers(packed: tf.Tensor, slots: Sequence[Slot]) -> list[tf.Tensor]:
    """Returns the numbers of slots, and the piecewise-linear codes of those that have one.

    A code of k pieces with sum s has the values `clip(s - j, 0, 1)` for j in 0..k-1.
    """
    plain = [
        c for slot in slots for c in range(slot.start, slot.start + slot.width - (slot.pieces > 0))
    ]
    parts = [_columns(packed, plain)]
    by_pieces: dict[int, list[int]] = {}
    for slot in slots:
        if slot.pieces:
            by_pieces.setdefault(slot.pieces, []).append(slot.start + slot.width - 1)
    for pieces, columns in sorted(by_pieces.items()):
        sums = _columns(packed, columns)[:, :, tf.newaxis]
        codes = tf.clip_by_value(sums - tf.range(pieces, dtype=sums.dtype), 0.0, 1.0)
        parts.append(tf.reshape(codes, [tf.shape(codes)[0], len(columns) * pieces]))
    return parts


def _columns(tensor: tf.Tensor, columns: Sequence[int]) -> tf.Tensor:
    """Selects along axis 1; free where everything is selected."""
    if list(columns) == list(range(tensor.shape[1])):
        return tensor
    return tf.gather(tensor, columns, axis=1)


def _mean_square(vectors: tf.Tensor) -> tf.Tensor:
    """Sums squares over everything but the batch, and averages over the batch."""
    batch = tf.cast(tf.maximum(tf.shape(vectors)[0], 1), vectors.dtype)
    return tf.reduce_sum(tf.square(vectors)) / batch
