"""Feature layout, fused lookups, interactions and the optimizer of tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.embedding import Embedding
from models.feature_layout import FeatureLayout, width_of
from models.lazy_adam import LazyAdam
from models.seeding import derived_seed
from models.spec.keys import (
    TRANSFORMED_CATEGORICAL,
    TRANSFORMED_NUMERIC,
    TRANSFORMED_SEQUENCES,
)
from tests.conformance.synthetic_model import packed_batch, table_rows
from tests.conformance.synthetic_ranking import synthetic_ranking

RANKING = synthetic_ranking()
LAYOUT = FeatureLayout.of(RANKING)
ROWS = table_rows(LAYOUT)


def embedding(**options: Any) -> Embedding:
    return Embedding(LAYOUT, ROWS, seed=5, **options)


def table(layer: Embedding, name: str) -> np.ndarray:
    """Reads one table out of the fused variable of its width."""
    width = LAYOUT.tables[name].dimension
    names = [n for n in sorted(LAYOUT.tables) if LAYOUT.tables[n].dimension == width]
    start = sum(ROWS[n] for n in names[: names.index(name)])
    variable = layer.tables[LAYOUT.dimensions.index(width)]
    return variable.numpy()[start : start + ROWS[name]]


def test_layout() -> None:
    assert [s.feature.name for s in LAYOUT.categorical] == [
        "device",
        "item_id",
        "quality",
        "user_id",
    ]
    assert [(s.feature.name, s.start, s.width) for s in LAYOUT.sequences] == [
        ("history", 0, 4),
        ("tags", 4, 3),
    ]
    assert [s.table for s in LAYOUT.sequences] == ["item_id", "tags"]
    starts = {s.feature.name: (s.start, s.width) for s in LAYOUT.numeric}
    assert starts["content"] == (0, 3) and starts["fresh"] == (3, 2)
    assert starts["price"][1] == 3
    assert width_of(LAYOUT.numeric) == 3 + 2 * 7 + 1
    assert LAYOUT.groups == ("item", "main") and LAYOUT.dimensions == (4, 8)


def test_rows_of_tables() -> None:
    assert ROWS == {
        "device": 1 + 20 + 2,
        "item_id": 1 + 20 + 1,
        "quality": 1 + 5,
        "tags": 1 + 20 + 1,
        "user_id": 1 + 64,
    }


def test_lookup_equals_one_table_per_feature() -> None:
    layer, batch = embedding(), packed_batch(RANKING)
    groups = layer(batch)
    ids = batch[TRANSFORMED_CATEGORICAL].numpy()
    columns = {s.feature.name: ids[:, s.start] for s in LAYOUT.categorical}
    look = {name: table(layer, name)[column] for name, column in columns.items()}
    pooled = {}
    for slot in LAYOUT.sequences:
        sequence = batch[TRANSFORMED_SEQUENCES].numpy()[:, slot.start : slot.start + slot.width]
        rows = table(layer, str(slot.table))
        pooled[slot.feature.name] = np.stack(
            [
                rows[row[row >= 0]].mean(axis=0) if (row >= 0).any() else np.zeros(rows.shape[1])
                for row in sequence
            ]
        )
    numeric = batch[TRANSFORMED_NUMERIC].numpy()
    numbers = {
        group: np.concatenate(
            [
                numeric[:, s.start : s.start + s.width - (s.pieces > 0)]
                for s in LAYOUT.numeric
                if s.feature.group == group
            ],
            axis=1,
        )
        for group in LAYOUT.groups
    }
    main = [look["item_id"], look["user_id"], pooled["history"], pooled["tags"], look["device"]]
    np.testing.assert_allclose(groups["main"], np.hstack([*main, numbers["main"]]), rtol=1e-6)
    np.testing.assert_allclose(
        groups["item"][:, :-6], np.hstack([look["quality"], numbers["item"]]), rtol=1e-6
    )


def test_a_piecewise_linear_code_is_taken_apart_from_its_sum() -> None:
    (price,) = (slot for slot in LAYOUT.numeric if slot.pieces)
    batch = packed_batch(RANKING, num_rows=4)
    numeric = batch[TRANSFORMED_NUMERIC].numpy()
    numeric[:, price.start + 2] = [0.0, 2.25, 6.0, 1.0]
    batch[TRANSFORMED_NUMERIC] = tf.constant(numeric)
    expected = [[0] * 6, [1, 1, 0.25, 0, 0, 0], [1] * 6, [1] + [0] * 5]
    np.testing.assert_allclose(embedding()(batch)["item"][:, -6:], expected)


def test_one_gather_for_scalars_and_one_for_sequences_per_width() -> None:
    layer = embedding()
    layer(packed_batch(RANKING))
    graph = tf.function(layer.call).get_concrete_function(packed_batch(RANKING)).graph
    gathers = [op for op in graph.get_operations() if op.type == "ResourceGather"]
    assert len(gathers) == 3  # width 4: scalars and sequences; width 8: scalars


def test_an_unknown_value_adds_no_noise() -> None:
    layer = embedding()
    assert not table(layer, "item_id")[[0, -1]].any()
    assert not table(layer, "device")[[0, -2, -1]].any()
    assert not table(layer, "user_id")[0].any() and table(layer, "user_id")[1:].all()


def test_a_table_starts_the_same_whatever_the_others_are() -> None:
    rows = ROWS | {"device": 99, "user_id": 7}
    other = Embedding(LAYOUT, rows, seed=5)
    start = 0
    np.testing.assert_array_equal(
        table(embedding(), "item_id"), other.tables[0].numpy()[start : start + ROWS["item_id"]]
    )
    assert derived_seed(1, "a") != derived_seed(1, "b") != derived_seed(2, "b")


def test_l2_is_the_mean_square_of_what_was_looked_up() -> None:
    layer, batch = embedding(l2=0.5), packed_batch(RANKING, num_rows=10)
    layer(batch)
    assert not layer.losses
    layer(batch, training=True)
    ids = batch[TRANSFORMED_CATEGORICAL].numpy()
    squares = sum(
        np.square(table(layer, str(s.table))[ids[:, s.start]]).sum() for s in LAYOUT.categorical
    )
    for s in LAYOUT.sequences:
        sequence = batch[TRANSFORMED_SEQUENCES].numpy()[:, s.start : s.start + s.width]
        squares += np.square(table(layer, str(s.table))[sequence[sequence >= 0]]).sum()
    assert float(tf.add_n(layer.losses)) == pytest.approx(0.5 * squares / 10, rel=1e-5)


def test_dot_interaction_appends_products_of_equal_widths() -> None:
    plain, dot, batch = embedding(), embedding(interaction="dot"), packed_batch(RANKING)
    before, after = plain(batch)["main"].numpy(), dot(batch)["main"].numpy()
    vectors = before[:, :16].reshape(-1, 4, 4)  # item_id, user_id, history, tags
    products = np.einsum("bik,bjk->bij", vectors, vectors)
    below = np.tril_indices(4, -1)
    np.testing.assert_allclose(
        after[:, 16:22], products[:, below[0], below[1]], rtol=1e-4, atol=1e-7
    )
    np.testing.assert_array_equal(np.delete(after, range(16, 22), axis=1), before)


def test_cross_interaction_is_one_cross_layer() -> None:
    plain, cross, batch = embedding(), embedding(interaction="cross"), packed_batch(RANKING)
    x = plain(batch)["main"].numpy()
    crossed = cross(batch)["main"].numpy()
    kernels = [v for v in cross.trainable_variables if "cross_main" in v.name]
    kernel, bias = (v.numpy() for v in kernels)
    np.testing.assert_allclose(crossed, x * (x @ kernel + bias) + x, rtol=1e-4, atol=1e-5)


# LazyAdam --------------------------------------------------------------------------------------


def test_lazy_adam_moves_looked_up_rows_as_adam_and_no_others() -> None:
    start = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    lazy, dense = tf.Variable(start), tf.Variable(start[[1, 4]])
    lazy_adam, adam = LazyAdam(0.1), tf.keras.optimizers.legacy.Adam(0.1)
    for step in range(4):
        gradient = tf.constant([[1.0, -2.0], [0.5, 3.0]]) * (step + 1)
        # Row 4 comes in two parts, as from two gathers.
        parts = tf.IndexedSlices(
            tf.concat([gradient[:1], gradient[1:] / 4, gradient[1:] * 3 / 4], axis=0),
            tf.constant([1, 4, 4]),
            tf.constant([6, 2]),
        )
        lazy_adam.apply_gradients([(parts, lazy)])
        adam.apply_gradients([(gradient, dense)])
    np.testing.assert_allclose(lazy.numpy()[[1, 4]], dense.numpy(), rtol=1e-5)
    np.testing.assert_array_equal(lazy.numpy()[[0, 2, 3, 5]], start[[0, 2, 3, 5]])


def test_lazy_adam_leaves_the_moments_of_other_rows() -> None:
    variable = tf.Variable(tf.zeros([3, 1]))
    adam = LazyAdam(0.1)
    first = tf.IndexedSlices(tf.ones([1, 1]), tf.constant([0]), tf.constant([3, 1]))
    second = tf.IndexedSlices(tf.ones([1, 1]), tf.constant([1]), tf.constant([3, 1]))
    adam.apply_gradients([(first, variable)])
    after_first = variable.numpy()[0]
    adam.apply_gradients([(second, variable)])
    assert variable.numpy()[0] == after_first
    assert variable.numpy()[1] != 0 and variable.numpy()[2] == 0
