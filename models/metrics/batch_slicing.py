"""Slices batches of examples as columns, where TFMA would take every row apart.

TFMA's default extractors turn each batch of predictions into one dictionary per example and
feature, then copy every example to each of its slices: most of the time of an evaluation.
`TaskMetrics` wants columns again. Here a batch is cut into one extract per slice, with the rows of
that slice as arrays. Slice keys are TFMA's own, so results land where they always do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from numpy.typing import NDArray
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.api import types
from tensorflow_model_analysis.extractors import (
    extractor,
    slice_key_extractor,
    unbatch_extractor,
)
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.slicer import slicer_lib

from models.metrics.columns import IntArray, KeyArray
from models.spec.errors import ConfigError, DataError

_REPLACED_STAGES = frozenset(
    {
        unbatch_extractor.UNBATCH_EXTRACTOR_STAGE_NAME,
        slice_key_extractor.SLICE_KEY_EXTRACTOR_STAGE_NAME,
    }
)
_SERVED_METRICS = frozenset({"TaskMetrics", "GatedMetric"})
_COLUMNS = (constants.LABELS_KEY, constants.PREDICTIONS_KEY, constants.EXAMPLE_WEIGHTS_KEY)
_Values = tuple[Any, ...]


def custom_extractors(
    eval_shared_model: types.MaybeMultipleEvalSharedModels,
    eval_config: config_pb2.EvalConfig,
    tensor_adapter_config: Any = None,
) -> list[extractor.Extractor]:
    """Returns TFMA's default extractors with the row-wise stages replaced.

    TFX calls it by name: `Evaluator(module_path='models.metrics.batch_slicing')`. It serves
    configurations whose metrics are all `TaskMetrics` or `GatedMetric`.

    Args:
        eval_shared_model: The candidate, or candidate and baseline.
        eval_config: The configuration with TFMA's defaults applied.
        tensor_adapter_config: How features become tensors, where there is a schema.

    Raises:
        ConfigError: A metric of another class, which would take a batch for one example.
    """
    classes = {m.class_name for spec in eval_config.metrics_specs for m in spec.metrics}
    if classes - _SERVED_METRICS:
        raise ConfigError(
            f"metrics {', '.join(sorted(classes - _SERVED_METRICS))} need one example at a time",
            constraint=f"metrics of the classes {', '.join(sorted(_SERVED_METRICS))}",
            remedy="run the Evaluator without module_path",
        )
    defaults = tfma.default_extractors(
        eval_shared_model=eval_shared_model,
        eval_config=eval_config,
        tensor_adapter_config=tensor_adapter_config,
    )
    return [
        *(e for e in defaults if e.stage_name not in _REPLACED_STAGES),
        extractor.Extractor(
            # Evaluators ask for this stage before them.
            stage_name=slice_key_extractor.SLICE_KEY_EXTRACTOR_STAGE_NAME,
            ptransform=beam.ParDo(_SliceBatches(eval_config)),
        ),
    ]


class _SliceBatches(beam.DoFn):
    """Turns a batch of n examples into one extract of arrays for each slice in it."""

    def __init__(self, eval_config: config_pb2.EvalConfig) -> None:
        self._specs = [slicer_lib.SingleSliceSpec(spec=s) for s in eval_config.slicing_specs]
        self._slice_features = sorted(
            {key for s in eval_config.slicing_specs for key in _feature_keys(s)}
        )
        self._key_features = _key_features(eval_config)

    def process(self, extracts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        features = extracts[constants.FEATURES_KEY]
        columns = {name: extracts[name] for name in _COLUMNS if name in extracts}
        num_rows = len(extracts[constants.INPUT_KEY])
        columns[constants.FEATURES_KEY] = {
            name: _first_values(_row_values(features, name, num_rows))
            for name in self._key_features
            if name in features
        }
        for slice_key, rows in self._rows_of_slices(features, num_rows).items():
            yield {
                constants.SLICE_KEY_TYPES_KEY: slicer_lib.slice_keys_to_numpy_array([slice_key]),
                **_take(columns, rows),
            }

    def _rows_of_slices(
        self, features: Mapping[str, Any], num_rows: int
    ) -> dict[slicer_lib.SliceKeyType, IntArray]:
        # TFMA derives slice keys from the features of one example; asking it once for each
        # distinct combination of values is enough.
        rows_of_combination: dict[tuple[_Values, ...], list[int]] = {}
        by_feature = [_row_values(features, name, num_rows) for name in self._slice_features]
        for row, combination in enumerate(zip(*by_feature, strict=True) if by_feature else ()):
            rows_of_combination.setdefault(combination, []).append(row)
        if not by_feature:
            rows_of_combination[()] = list(range(num_rows))
        parts: dict[slicer_lib.SliceKeyType, list[list[int]]] = {}
        for combination, rows in rows_of_combination.items():
            example = {
                name: np.array(values)
                for name, values in zip(self._slice_features, combination, strict=True)
                if values
            }
            for key in set(slicer_lib.get_slices_for_features_dicts([], example, self._specs)):
                parts.setdefault(key, []).append(rows)
        return {key: np.sort(np.concatenate(rows)) for key, rows in parts.items()}


def _feature_keys(spec: config_pb2.SlicingSpec) -> tuple[str, ...]:
    return (*spec.feature_keys, *spec.feature_values)


def _key_features(eval_config: config_pb2.EvalConfig) -> tuple[str, ...]:
    """Finds the features that the metrics group and resample by, in their configurations."""
    parameters = [
        json.loads(metric.config)
        for spec in eval_config.metrics_specs
        for metric in spec.metrics
        if metric.class_name == "TaskMetrics"
    ]
    return tuple(sorted({p[key] for p in parameters for key in ("group_key", "cluster_key")}))


def _row_values(features: Mapping[str, Any], name: str, num_rows: int) -> list[_Values]:
    """Returns the values of a feature in each row of a batch, none where it is missing."""
    column = features.get(name)
    if column is None:
        return [()] * num_rows
    if isinstance(column, np.ndarray):
        return [tuple(values) for values in column.reshape(num_rows, -1).tolist()]
    if isinstance(column, types.VarLenTensorValue):
        rows: list[list[Any]] = [[] for _ in range(num_rows)]
        for row, value in zip(column.indices[:, 0].tolist(), column.values.tolist(), strict=True):
            rows[row].append(value)
        return [tuple(values) for values in rows]
    raise DataError(
        f"feature {name!r} cannot be sliced or grouped by",
        constraint="a feature with a list of values per example",
        received=type(column).__name__,
        remedy="write the feature as a flat list, or leave the schema out of the Evaluator",
    )


def _first_values(rows: list[_Values]) -> KeyArray:
    result = np.empty(len(rows), object)
    result[:] = [values[0] if values else b"" for values in rows]
    return result


def _take(columns: Any, rows: NDArray[np.int64]) -> Any:
    if isinstance(columns, Mapping):
        return {name: _take(values, rows) for name, values in columns.items()}
    return columns[rows]
