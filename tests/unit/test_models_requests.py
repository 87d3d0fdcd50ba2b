"""Inputs of the serving signatures, and vocabularies."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import tensorflow as tf

from models.request_inputs import dense_features, slate_features, tensor_specs
from models.vocabularies import NO_VALUE, VocabularySettings, _CountValues, _kept
from tests.conformance.synthetic_ranking import synthetic_ranking

RANKING = synthetic_ranking()


def test_specs_name_every_input() -> None:
    specs = tensor_specs(RANKING.request_features)
    assert specs["history"].shape.as_list() == [None, None] and specs["history"].dtype == tf.string
    assert specs["price"].shape.as_list() == [None] and specs["price"].dtype == tf.float32
    assert specs["content_length"].dtype == tf.int64
    assert all(spec.name == name for name, spec in specs.items())


def test_numbers_beyond_the_length_are_missing() -> None:
    (content,) = (f for f in RANKING.request_features if f.name == "content")
    values = tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    inputs = {"content": values, "content_length": tf.constant([1, 3], tf.int64)}
    np.testing.assert_array_equal(
        dense_features(inputs, (content,))["content"], [[1.0, np.nan], [4.0, 5.0]]
    )
    short = {"content": values[:, :1], "content_length": tf.constant([0, 1], tf.int64)}
    np.testing.assert_array_equal(
        dense_features(short, (content,))["content"], [[np.nan, np.nan], [4.0, np.nan]]
    )


def test_a_slate_feature_of_a_column_with_a_vocabulary() -> None:
    columns: dict[str, Any] = RANKING.model_dump(mode="json")["columns"]
    columns["level"] = {
        "type": "int",
        "availability": "request",
        "role": ["feature"],
        "encoding": {"kind": "vocabulary"},
    }
    features = {"level_rank": {"slate": {"of": "level", "relation": "rank"}}}
    ranking = synthetic_ranking(columns=columns, features=features)
    inputs: dict[str, Any] = {}
    for feature in ranking.rank_inputs:
        shape = [1 if feature.scope == "context" else 3]
        shape += [] if feature.length is None else [feature.length]
        inputs[feature.name] = tf.fill(shape, "" if feature.dtype == "string" else 0.0)
    inputs["level"] = tf.constant(["2", "", "10"])
    found = slate_features(ranking, inputs)
    np.testing.assert_allclose(found["level_rank"], [1 / 3, 2 / 3, 0.0])
    assert {f.name for f in ranking.request_features} == set(found)
    assert all(len(values) == 3 for values in found.values())


def test_what_a_vocabulary_keeps() -> None:
    counter = Counter({b"b": 3, b"a": 3, b"c": 5, b"rare": 1, b"": 9, b"x\ny": 9, b"x\ry": 9})
    assert _kept(counter, VocabularySettings("v", max_size=10, min_count=2)) == [b"c", b"a", b"b"]
    assert _kept(counter, VocabularySettings("v", max_size=2, min_count=1)) == [b"c", b"a"]
    assert _kept(counter, VocabularySettings("v", max_size=2, min_count=10)) == [NO_VALUE]


def test_counts_merge() -> None:
    count = _CountValues(2)
    parts = []
    for batch in (([b"a", b"b"], [[b"x", b"y"]]), ([b"a"], [[b"x", b"x"]])):
        columns = tuple(np.array(values, object) for values in batch)
        parts.append(count.add_input(count.create_accumulator(), columns))
    merged = count.extract_output(count.merge_accumulators(parts))
    assert merged == [Counter({b"a": 2, b"b": 1}), Counter({b"x": 3, b"y": 1})]
