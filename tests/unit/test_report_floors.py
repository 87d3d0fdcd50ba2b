from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.report.floor_features import NUM_BUCKETS, FloorFeatures
from components.report.floor_scores import FLOORS, LINEAR, POPULARITY
from components.report.floors import PRIOR_ROWS, columns_needed, score_floors
from models.metrics.columns import TaskColumns
from models.metrics.estimation import compute
from models.spec.feature import Feature, NumericEncoding, VocabularyEncoding
from models.spec.keys import TIMESTAMP, key_feature
from models.spec.ranking import RankingSpec
from tests.browser.synthetic_rows import Impressions, example_batch, impressions, ranking_spec

RANKING = ranking_spec()


def split(rows: Impressions, name: str) -> pa.Table:
    return pa.Table.from_batches([example_batch(rows, RANKING, rows.split(name))])


@pytest.fixture(scope="module")
def rows() -> Impressions:
    return impressions(20_000, seed=3)


@pytest.fixture(scope="module")
def scores(rows: Impressions) -> Any:
    return score_floors(RANKING, split(rows, "train"), split(rows, "test"))


def measured(rows: Impressions, output: str, metric: str, scores: Any) -> float:
    test = rows.split("test")
    columns = TaskColumns(
        label=rows.labels[output][test],
        prediction=scores,
        weight=rows.weights[output][test],
        group=np.arange(len(test)) // 10,
        cluster=np.arange(len(test)) // 10,
    )
    return compute([metric], columns)[metric]


def test_popularity_is_the_smoothed_mean_of_the_item(rows: Impressions, scores: Any) -> None:
    train, test = rows.split("train"), rows.split("test")
    for output in RANKING.outputs:
        label = rows.labels[output.name].astype(float)
        weight = rows.weights[output.name]
        mean = (weight * label)[train].sum() / weight[train].sum()
        found = scores[POPULARITY].predictions[output.name]
        for row in range(0, len(test), 97):
            item = rows.columns["item_id"][test[row]]
            same = train[rows.columns["item_id"][train] == item]
            expected = ((weight * label)[same].sum() + PRIOR_ROWS * mean) / (
                weight[same].sum() + PRIOR_ROWS
            )
            assert found[row] == pytest.approx(expected, rel=1e-6)


def test_linear_floor_beats_chance_and_popularity(rows: Impressions, scores: Any) -> None:
    linear = measured(rows, "click", "auc", scores[LINEAR].predictions["click"])
    popular = measured(rows, "click", "auc", scores[POPULARITY].predictions["click"])
    truth = measured(rows, "click", "auc", rows.truth["click"][rows.split("test")])
    assert 0.6 < linear < truth
    assert linear > popular
    ranks = scores[LINEAR].predictions["watch_seconds"]
    assert measured(rows, "watch_seconds", "spearman", ranks) > 0.5


def test_linear_floor_is_calibrated_and_in_natural_units(rows: Impressions, scores: Any) -> None:
    click = scores[LINEAR].predictions["click"]
    assert click.min() > 0 and click.max() < 1
    assert measured(rows, "click", "calibration", click) == pytest.approx(1, abs=0.1)
    watched = scores[LINEAR].predictions["watch_seconds"]
    assert watched.min() >= 0
    assert 5 < np.median(watched) < 100


def test_every_output_has_every_floor(scores: Any) -> None:
    assert set(scores) == set(FLOORS)
    for floor in scores.values():
        assert set(floor.predictions) == {o.name for o in RANKING.outputs}
        assert floor.absent == {}


def test_an_output_without_both_classes_has_no_floor_and_says_why(rows: Impressions) -> None:
    train, test = split(rows, "train"), split(rows, "test")
    zeros = pa.array([[0.0]] * train.num_rows, pa.list_(pa.float32()))
    at = train.column_names.index("click__label")
    scores = score_floors(RANKING, train.set_column(at, "click__label", zeros), test)
    for floor in scores.values():
        assert "click" not in floor.predictions
        assert "same label" in floor.absent["click"]
        assert "conversion" in floor.predictions


def test_labels_taken_as_they_arrive_give_the_floors_of_true_ones(
    rows: Impressions, scores: Any
) -> None:
    content = RANKING.model_dump(mode="json")
    join = {"stream": "clicks", "aggregate": "any", "window": "1h"}
    content["columns"]["clicked"]["join"] = join
    content["tasks"]["click"]["immature"] = "fake_negative"
    ranking = RankingSpec.model_validate_json(json.dumps(content))
    train, test = split(rows, "train"), split(rows, "test")
    clicked = np.array(train["click__label"].to_pylist())[:, 0] > 0
    for key, values in (("label", 0.5 * clicked), ("weight", 1.0 + clicked)):
        column = pa.array([[v] for v in values], pa.list_(pa.float32()))
        train = train.set_column(train.column_names.index(f"click__{key}"), f"click__{key}", column)
    assert rows.weights["click"].min() == rows.weights["click"].max() == 1.0
    found = score_floors(ranking, train, test)
    for floor in FLOORS:
        expected = scores[floor].predictions["click"]
        np.testing.assert_allclose(found[floor].predictions["click"], expected, rtol=1e-6)


def test_floors_read_request_features_keys_and_targets_only() -> None:
    request = {f.name for f in RANKING.request_features}
    keys = {key_feature(c) for c in RANKING.key_columns} | {TIMESTAMP}
    targets = {k for o in RANKING.outputs for k in (o.label_key, o.weight_key)}
    assert set(columns_needed(RANKING)) == request | keys | targets


def feature(name: str, dtype: Any, encoding: Any) -> Feature:
    return Feature(name, dtype, None, encoding, "main", "candidate", "request", "column")


def test_matrix_standardises_marks_missing_and_hashes() -> None:
    features = [
        feature("size", "float", NumericEncoding(log=True)),
        feature("word", "string", VocabularyEncoding()),
    ]
    table = pa.table(
        {
            "size": pa.array([[0.0], [np.e - 1], None, []], pa.list_(pa.float32())),
            "word": pa.array([[b"a"], [b"b"], [b"a", b"b"], None], pa.list_(pa.binary())),
        }
    )
    matrix = FloorFeatures(features, table).matrix(table)
    assert matrix.shape == (4, 2 + NUM_BUCKETS)
    np.testing.assert_allclose(matrix[:, 0].toarray()[:, 0], [-1, 1, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(matrix[:, 1].toarray()[:, 0], [0, 0, 1, 1])
    words = matrix[:, 2:].toarray()
    np.testing.assert_allclose(words.sum(1), [1, 1, 1, 0])
    np.testing.assert_allclose(words[2], (words[0] + words[1]) / 2)
    assert not np.array_equal(words[0], words[1])


def test_equal_values_of_two_features_differ() -> None:
    features = [feature(name, "string", VocabularyEncoding()) for name in ("one", "two")]
    values = pa.array([[b"same"]], pa.list_(pa.binary()))
    table = pa.table({"one": values, "two": values})
    assert FloorFeatures(features, table).matrix(table).nnz == 2
