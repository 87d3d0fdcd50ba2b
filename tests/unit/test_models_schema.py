"""The schema of the examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError
from tensorflow_transform.tf_metadata import schema_utils

from models.schema import training_schema
from models.spec.errors import ConfigError
from models.spec.keys import TIMESTAMP, key_feature, slice_feature
from tests.conformance.synthetic_ranking import SLICES, encode, synthetic_ranking, synthetic_rows

RANKING = synthetic_ranking()
SCHEMA = training_schema(RANKING, SLICES)


def test_every_feature_of_the_examples_is_in_the_schema() -> None:
    assert {f.name for f in SCHEMA.feature} == set(synthetic_rows(RANKING, 2))


def test_serving_environment_is_the_allow_list() -> None:
    serving = {f.name for f in SCHEMA.feature if "SERVING" not in f.not_in_environment}
    assert serving == {f.name for f in RANKING.request_features}
    assert "position" not in serving
    assert list(SCHEMA.default_environment) == ["TRAINING", "SERVING"]
    assert not any("TRAINING" in f.not_in_environment for f in SCHEMA.feature)


def test_transform_reads_dense_features_with_missing_values() -> None:
    spec = schema_utils.schema_as_feature_spec(SCHEMA).feature_spec
    assert all(isinstance(s, tf.io.FixedLenFeature) for s in spec.values())
    assert spec["item_id"].default_value == "" and spec["item_id"].shape == []
    assert spec["history"].shape == [4] and spec["history"].default_value == [""] * 4
    assert np.isnan(spec["price"].default_value) and spec["price"].dtype == tf.float32
    assert np.isnan(spec["content"].default_value).all()
    for required in (TIMESTAMP, "click__label", "spend_given_click__weight"):
        assert spec[required].default_value is None
    assert spec[slice_feature("device")].default_value == ""
    assert spec[key_feature("user_id")].dtype == tf.string


def test_examples_parse_by_the_schema() -> None:
    spec = schema_utils.schema_as_feature_spec(SCHEMA).feature_spec
    parsed = tf.io.parse_example(encode(synthetic_rows(RANKING, 50)), spec)
    assert np.isnan(parsed["price"]).any() and not np.isnan(parsed["price"]).all()
    assert np.isnan(parsed["content"][:, 0]).any()


def test_labels_have_domains() -> None:
    by_name = {f.name: f for f in SCHEMA.feature}
    assert by_name["click__label"].float_domain.max == 1.0
    assert not by_name["watch_seconds__label"].HasField("float_domain")
    assert by_name["watch_seconds__mask"].float_domain.max == 1.0


def test_a_name_that_the_lengths_of_a_sequence_take() -> None:
    columns: dict[str, Any] = RANKING.model_dump(mode="json")["columns"]
    columns["content_length"] = columns["fresh"]
    with pytest.raises(ConfigError, match="lengths of 'content'"):
        training_schema(synthetic_ranking(columns=columns))


@pytest.mark.parametrize("name", ["item id", "1st", "class", "prix_é", "self"])
def test_a_name_that_no_signature_can_have(name: str) -> None:
    columns: dict[str, Any] = RANKING.model_dump(mode="json")["columns"]
    columns[name] = columns["fresh"]
    with pytest.raises(ValidationError, match="`source`"):
        training_schema(synthetic_ranking(columns=columns))
