"""What Transform makes of raw rows, against NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from models.feature_layout import MISSING_ID, FeatureLayout, Slot
from models.preprocessing import MAX_STANDARD_DEVIATIONS
from models.spec.keys import (
    TRANSFORMED_CATEGORICAL,
    TRANSFORMED_GROUP,
    TRANSFORMED_NUMERIC,
    TRANSFORMED_SEQUENCES,
    key_feature,
)
from models.vocabularies import NO_VALUE
from tests.conformance.synthetic_ranking import (
    Transformed,
    run_transform,
    synthetic_ranking,
    synthetic_rows,
)

pytestmark = pytest.mark.slow
LAYOUT = FeatureLayout.of(synthetic_ranking())


class Split:
    """The transformed rows of one split beside the raw ones."""

    def __init__(self, transformed: Transformed, split: str) -> None:
        self.raw = transformed.rows[split]
        self.output = tft.TFTransformOutput(str(transformed.graph))
        files = tf.io.gfile.glob(transformed.files(split)[0])
        records = tf.data.TFRecordDataset(files, "GZIP").batch(10**6)
        spec = self.output.transformed_feature_spec()
        parsed = tf.io.parse_example(next(iter(records)), spec)
        self.columns = {name: values.numpy() for name, values in parsed.items()}

    def of(self, slots: tuple[Slot, ...], name: str, packed: str) -> np.ndarray:
        (slot,) = (s for s in slots if s.feature.name == name)
        return self.columns[packed][:, slot.start : slot.start + slot.width]

    def ids(self, name: str) -> np.ndarray:
        return self.of(LAYOUT.categorical, name, TRANSFORMED_CATEGORICAL)[:, 0]

    def sequence(self, name: str) -> np.ndarray:
        return self.of(LAYOUT.sequences, name, TRANSFORMED_SEQUENCES)

    def numbers(self, name: str) -> np.ndarray:
        return self.of(LAYOUT.numeric, name, TRANSFORMED_NUMERIC)

    def floats(self, name: str) -> np.ndarray:
        return np.array([np.nan if v is None else v for v in self.raw[name]], np.float64)

    def num_rows(self, table: str) -> int:
        return LAYOUT.tables[table].num_rows(self.output.vocabulary_size_by_name)


@pytest.fixture(scope="module")
def train(transformed: Transformed) -> Split:
    return Split(transformed, "train")


@pytest.fixture(scope="module")
def validation(transformed: Transformed) -> Split:
    return Split(transformed, "validation")


def test_outputs_are_packed_features_labels_weights_and_group(train: Split) -> None:
    packed = {
        TRANSFORMED_CATEGORICAL,
        TRANSFORMED_NUMERIC,
        TRANSFORMED_SEQUENCES,
        TRANSFORMED_GROUP,
    }
    keys = {k for o in synthetic_ranking().all_outputs for k in (o.label_key, o.weight_key)}
    assert set(train.columns) == packed | keys
    for key in keys:
        np.testing.assert_allclose(train.columns[key], train.raw[key], rtol=1e-6)


def test_vocabulary_ids_are_from_the_most_frequent(train: Split, validation: Split) -> None:
    vocabulary = train.output.vocabulary_by_name("vocabulary_item_id")
    counts = {v: train.raw["item_id"].count(v) for v in vocabulary}
    assert vocabulary == sorted(vocabulary, key=lambda value: (-counts[value], value))
    assert min(counts.values()) >= 2
    row = {value: 1 + i for i, value in enumerate(vocabulary)}
    out_of_vocabulary = 1 + len(vocabulary)
    for split in (train, validation):
        expected = [
            MISSING_ID if v is None else row.get(v, out_of_vocabulary) for v in split.raw["item_id"]
        ]
        np.testing.assert_array_equal(split.ids("item_id"), expected)
    assert list(validation.ids("item_id")[:2]) == [out_of_vocabulary, MISSING_ID]
    assert b"never seen" not in vocabulary
    assert train.num_rows("item_id") == out_of_vocabulary + 1


def test_hashes(train: Split) -> None:
    ids, raw = train.ids("user_id"), train.raw["user_id"]
    assert train.num_rows("user_id") == 65 > ids.max()
    by_value: dict[Any, set[int]] = {}
    for value, row in zip(raw, ids, strict=True):
        by_value.setdefault(value, set()).add(int(row))
    assert all(len(rows) == 1 for rows in by_value.values())
    assert by_value[None] == {MISSING_ID} and len(set.union(*by_value.values())) > 25


def test_quantiles_have_equal_counts(train: Split) -> None:
    ids, values = train.ids("quality"), train.floats("quality")
    np.testing.assert_array_equal(ids == MISSING_ID, np.isnan(values))
    counts = np.bincount(ids[ids > 0], minlength=6)[1:]
    assert counts.min() > 0.9 * counts.max() and train.num_rows("quality") == 6
    edges = [values[ids == bucket].max() for bucket in range(1, 6)]
    assert edges == sorted(edges)


@pytest.mark.parametrize("name", ["price", "popularity_rank", "price_share", "position"])
def test_numbers_are_standardised_on_train(name: str, train: Split, validation: Split) -> None:
    log = name == "price"

    def scaled(split: Split) -> np.ndarray:
        raw = split.floats(name)
        return np.sign(raw) * np.log1p(np.abs(raw)) if log else raw

    mean, deviation = np.nanmean(scaled(train)), np.nanstd(scaled(train))
    for split in (train, validation):
        values, missing = split.numbers(name).T[:2]
        expected = np.nan_to_num((scaled(split) - mean) / deviation)
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(missing, np.isnan(split.floats(name)))


def test_a_piecewise_linear_code_rises_by_one_from_quantile_to_quantile(
    train: Split, validation: Split
) -> None:
    scaled = np.log1p(train.floats("price"))
    edges = np.nanquantile(scaled, np.arange(1, 8) / 8)
    for split in (train, validation):
        values = np.log1p(split.floats("price"))
        sums = split.numbers("price")[:, 2]
        # An empirical quantile may be any value between two neighbouring ones.
        expected = np.nan_to_num(np.interp(values, edges, np.arange(7)))
        np.testing.assert_allclose(sums, expected, atol=0.05)
        assert sums.min() == 0.0 and sums.max() == 6.0


def test_tied_quantiles_say_whether_a_value_is_above_them(
    transformed: Transformed, tmp_path: Path
) -> None:
    ranking = synthetic_ranking()
    train = dict(transformed.rows["train"])
    # Five of eight values are 0: the edges of the first intervals are 0 as well.
    train["price"] = [float(max(0, i % 8 - 4)) for i in range(len(train["price"]))]
    split = Split(run_transform(ranking, {"train": train, "validation": train}, tmp_path), "train")
    sums = {raw: split.numbers("price")[i, 2] for i, raw in enumerate(train["price"])}
    assert sums[0.0] == 0.0 and sums[1.0] >= 3.0 and sums[1.0] < sums[2.0] <= sums[3.0] == 6.0


def test_numbers_as_they_are(train: Split) -> None:
    np.testing.assert_array_equal(train.numbers("fresh")[:, 0], train.raw["fresh"])


def test_numeric_sequences(train: Split) -> None:
    raw = np.array([[np.nan] * 2 if v is None else v for v in train.raw["content"]])
    expected = np.nan_to_num((raw - np.nanmean(raw)) / np.nanstd(raw))
    np.testing.assert_allclose(train.numbers("content")[:, :2], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(train.numbers("content")[:, 2], np.isnan(raw).mean(axis=1))


def test_sequences_are_padded_and_share_tables(train: Split) -> None:
    for name, table in (("history", "item_id"), ("tags", "tags")):
        vocabulary = train.output.vocabulary_by_name(f"vocabulary_{table}")
        row = {value: 1 + i for i, value in enumerate(vocabulary)}
        expected = [[row[v] if v else -1 for v in values] for values in train.raw[name]]
        np.testing.assert_array_equal(train.sequence(name), expected)
    assert (train.sequence("history") == -1).all(axis=1).any()


def test_group_is_that_of_the_slate(train: Split) -> None:
    groups = train.columns[TRANSFORMED_GROUP]
    slates = train.raw[key_feature("request_id")]
    assert len(set(groups)) == len(set(slates)) == len(set(zip(groups, slates, strict=True)))


# Degenerate columns, and independence of the other splits -----------------------------------------


@pytest.fixture(scope="module")
def degenerate(transformed: Transformed, tmp_path_factory: pytest.TempPathFactory) -> Transformed:
    ranking = synthetic_ranking()
    train = dict(transformed.rows["train"])
    num_rows = len(train["price"])
    nothing = [None] * num_rows
    train |= {"device": nothing, "price": nothing, "quality": nothing, "content": nothing}
    train |= {"price_share": [0.25] * num_rows, "popularity_rank": [1e38] * num_rows}
    # A statistic that only exists after some days: whole batches lack it.
    train["position"] = [None] * 900 + train["position"][900:]
    extreme = synthetic_rows(ranking, 6, seed=9)
    extreme |= {
        "device": [b"x\ny", b"\xff\xfe", b"a" * 10**6, b"", None, b"tv"],
        "price": [float("inf"), float("-inf"), 3e38, -3e38, 0.0, None],
        "quality": [float("inf"), 3e38, -3e38, 0.0, None, 1.0],
        "price_share": [0.25, 1e30, -1e30, None, float("nan"), 0.5],
    }
    folder = tmp_path_factory.mktemp("degenerate")
    return run_transform(ranking, {"train": train, "validation": extreme}, folder)


def test_degenerate_columns_stay_finite_and_in_their_tables(degenerate: Transformed) -> None:
    for name in ("train", "validation"):
        split = Split(degenerate, name)
        packed = split.columns[TRANSFORMED_NUMERIC]
        assert np.isfinite(packed).all() and np.abs(packed).max() <= MAX_STANDARD_DEVIATIONS
        for slot in LAYOUT.categorical:
            ids = split.ids(slot.feature.name)
            assert ids.min() >= 0 and ids.max() < split.num_rows(str(slot.table))
    train = Split(degenerate, "train")
    assert train.output.vocabulary_by_name("vocabulary_device") == [NO_VALUE]
    assert not train.ids("device").any() and not train.ids("quality").any()
    assert (train.numbers("price") == [0.0, 1.0, 0.0]).all()
    assert (train.numbers("price_share") == 0.0).all()
    late = train.floats("position")
    expected = np.nan_to_num((late - np.nanmean(late)) / np.nanstd(late))
    np.testing.assert_allclose(train.numbers("position")[:, 0], expected, rtol=1e-4, atol=1e-5)
    validation = Split(degenerate, "validation")
    assert list(validation.ids("device") == MISSING_ID) == [False] * 3 + [True] * 2 + [False]
    assert list(validation.numbers("price")[:, 1]) == [1, 1, 0, 0, 0, 1]


def test_other_columns_and_splits_change_nothing(
    transformed: Transformed, degenerate: Transformed
) -> None:
    before, after = Split(transformed, "train"), Split(degenerate, "train")
    for name in ("item_id", "user_id"):
        np.testing.assert_array_equal(before.ids(name), after.ids(name))
    for name in ("history", "tags"):
        np.testing.assert_array_equal(before.sequence(name), after.sequence(name))
    for name in ("fresh", "price_ratio"):
        np.testing.assert_array_equal(before.numbers(name), after.numbers(name))
