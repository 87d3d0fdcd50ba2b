"""Names of the example features that are not model inputs. A double underscore marks them."""

from __future__ import annotations

TIMESTAMP = "impression__timestamp"
"""int64: impression time in milliseconds since 1970 UTC."""

TRANSFORMED_CATEGORICAL = "categorical__packed"
TRANSFORMED_NUMERIC = "numeric__packed"
TRANSFORMED_SEQUENCES = "sequences__packed"
"""Transformed features: all scalar ids, all numbers, all sequence ids, in feature name order."""

TRANSFORMED_GROUP = "group__id"
"""Transformed feature: int64 hash of the GAUC and NDCG group."""

WEIGHT_INPUT_PREFIX = "score_weight__"
"""`score_weight__<output>`: float32 [1] input of `rank` that overrides a fusion weight."""

DEFINITIONS = "feature_definitions"
"""Signature that tells what a model takes its as-of features to mean, and its only input and
output: a string [1], the JSON of `models.spec.definition.feature_definitions`. It is the input's
default, so that the model's metadata hold it, whichever server serves them."""

DECISION_GROUP = "decision__tower"
"""Feature group of decision columns: they enter through a tower of their own, in training only."""


def key_feature(column: str) -> str:
    """Example feature (bytes) that carries a key column."""
    return f"{column}__key"


def slice_feature(column: str) -> str:
    """Example feature (bytes) that carries a slice column."""
    return f"{column}__slice"
