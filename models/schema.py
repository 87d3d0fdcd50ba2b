"""The schema of the examples, derived from the specification and not from data."""

from __future__ import annotations

from tensorflow_metadata.proto.v0 import schema_pb2

from models.feature_layout import length_input
from models.spec.errors import ConfigError
from models.spec.keys import TIMESTAMP, key_feature, slice_feature
from models.spec.ranking import RankingSpec

TRAINING = "TRAINING"
SERVING = "SERVING"

_DENSE_GROUP = ""
"""Name of TensorFlow Metadata's default group of tensor representations."""


def training_schema(ranking: RankingSpec, slice_columns: tuple[str, ...] = ()) -> schema_pb2.Schema:
    """Derives the schema of the examples that LogExampleGen writes.

    Every feature is dense: a scalar has one value, a sequence exactly its declared length. A
    feature absent from an example reads as ``b''`` or NaN, in every position of a sequence.
    Request features belong to both environments; labels, masks, weights, keys, slices, the
    timestamp and decision columns to TRAINING only.

    Args:
        ranking: What is ranked.
        slice_columns: Columns that examples carry for slicing metrics.

    Raises:
        ConfigError: A feature's name is that of the lengths of a sequence.
    """
    schema = schema_pb2.Schema(default_environment=[TRAINING, SERVING])
    names = {feature.name for feature in ranking.training_features}
    for feature in ranking.training_features:
        if (lengths := length_input(feature)) in names:
            raise ConfigError(
                f"feature {lengths!r} has the name of the lengths of {feature.name!r}",
                constraint="no feature named like a numeric sequence with _length at the end",
                received=lengths,
                remedy="rename the column and keep the log's own name under `source`",
            )
        kind = schema_pb2.BYTES if feature.dtype == "string" else schema_pb2.FLOAT
        served = feature.availability == "request"
        _add(schema, feature.name, kind, length=feature.length, served=served)
    for column in ranking.key_columns:
        _add(schema, key_feature(column), schema_pb2.BYTES)
    for column in dict.fromkeys(slice_columns):
        _add(schema, slice_feature(column), schema_pb2.BYTES)
    _add(schema, TIMESTAMP, schema_pb2.INT, required=True)
    for output in ranking.all_outputs:
        label = _add(schema, output.label_key, schema_pb2.FLOAT, required=True)
        if output.kind == "binary":
            label.float_domain.min, label.float_domain.max = 0.0, 1.0
        mask = _add(schema, output.mask_key, schema_pb2.FLOAT, required=True)
        mask.float_domain.min, mask.float_domain.max = 0.0, 1.0
        weight = _add(schema, output.weight_key, schema_pb2.FLOAT, required=True)
        weight.float_domain.min = 0.0
    return schema


def _add(
    schema: schema_pb2.Schema,
    name: str,
    kind: int,
    *,
    length: int | None = None,
    served: bool = False,
    required: bool = False,
) -> schema_pb2.Feature:
    """Adds one feature and its dense representation."""
    num_values = length or 1
    feature = schema.feature.add(
        name=name,
        type=kind,
        presence=schema_pb2.FeaturePresence(min_fraction=1.0 if required else 0.0),
        value_count=schema_pb2.ValueCount(min=num_values, max=num_values),
    )
    if not served:
        feature.not_in_environment.append(SERVING)
    dense = (
        schema.tensor_representation_group[_DENSE_GROUP].tensor_representation[name].dense_tensor
    )
    dense.column_name = name
    if length is not None:
        dense.shape.dim.add(size=length)
    if not required:
        if kind == schema_pb2.BYTES:
            dense.default_value.bytes_value = b""
        else:
            dense.default_value.float_value = float("nan")
    # A scalar has a shape without dimensions: present, but empty.
    dense.shape.SetInParent()
    return feature
