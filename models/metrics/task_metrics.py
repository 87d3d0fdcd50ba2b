"""The TFMA metric: every metric of a task with its interval, from one pass over its rows.

TFMA's own intervals resample rows and recompute every metric per replicate; metrics that need
groups cannot be sliced there either. Here one combiner per task buffers the few columns that all
metrics need and computes once per slice, in `models.metrics.estimation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.utils import model_util

from models.metrics.columns import FloatArray, IntArray, KeyArray, TaskColumns
from models.metrics.estimation import Resampled, resample
from models.metrics.names import change_bounds, interval_bounds
from models.spec.errors import DataError

_MAX_CHUNKS = 1000

Chunk = tuple[FloatArray, FloatArray, KeyArray, KeyArray, FloatArray]
"""Rows as columns: label [n], weight [n], group [n], cluster [n], prediction [n, models]."""


class TaskMetrics(metric_types.Metric):
    """Metrics of one output, as keys `m`, `m_low` and `m_high` for each metric m.

    Further keys: `num_rows`, `num_positives` (labels above 0) and the tallies of grouped metrics.
    Where a baseline is evaluated along with the candidate, TFMA adds the differences candidate -
    baseline of all of them, and the candidate has `m_change_low` and `m_change_high`, the interval
    of the difference with both models on the same rows and the same resamples.

    Labels, predictions and row weights come from the `label_keys`, `prediction_keys` and
    `example_weight_keys` of the model spec; weight 0 means that the row is absent. The rows are put
    into an order of their own before anything is summed, so the numbers do not depend on bundles.

    Args:
        metrics: Names of metrics, keys of `models.spec.metric.METRICS`.
        group_key: Bytes feature with the slate or user inside which grouped metrics rank.
        cluster_key: Bytes feature with the user, the unit that is resampled. Rows without a value
            form one cluster together.
        num_replicates: Number of resamples.
        seed: Seed of the resamples.
        has_baseline: False for an output that the baseline does not have: the candidate is measured
            alone. Without a baseline it makes no difference.
        code_hash: Hash of the code that computes; here so that TFX, which keys its cache by
            parameters, runs the Evaluator again after an edit.
        name: Name of the computation; no key carries it.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        group_key: str,
        cluster_key: str,
        num_replicates: int,
        seed: int,
        code_hash: str,
        has_baseline: bool = True,
        name: str = "task_metrics",
    ) -> None:
        """Keeps the parameters for `computations`."""
        super().__init__(
            _computations,
            metrics=list(metrics),
            group_key=group_key,
            cluster_key=cluster_key,
            num_replicates=num_replicates,
            seed=seed,
            code_hash=code_hash,
            has_baseline=has_baseline,
            name=name,
        )


class GatedMetric(metric_types.Metric):
    """Computes nothing: carries a threshold to a key that `TaskMetrics` emits.

    TFMA looks thresholds up by the name of the metric instance they are declared on, and one
    instance has one name while `TaskMetrics` emits many.

    Args:
        name: A key that the `TaskMetrics` of the same output emits.
    """

    def __init__(self, name: str) -> None:
        """Keeps the name, under which TFMA files the threshold."""
        super().__init__(_no_computations, name=name)


def _no_computations(name: str, example_weighted: bool = False) -> list[Any]:
    return []


def _computations(
    metrics: Sequence[str],
    group_key: str,
    cluster_key: str,
    num_replicates: int,
    seed: int,
    code_hash: str,
    has_baseline: bool,
    name: str,
    eval_config: config_pb2.EvalConfig | None = None,
    model_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    example_weighted: bool = False,
) -> list[metric_types.MetricComputation]:
    models = tuple(model_names or [""])
    is_keyed_by_model = len(models) > 1
    baseline = model_util.get_baseline_model_spec(eval_config) if is_keyed_by_model else None
    if baseline and not has_baseline:
        models = tuple(name for name in models if name != baseline.name)
        baseline = None
    return [
        metric_types.MetricComputation(
            keys=[],
            preprocessors=[
                _ColumnPreprocessor(output, models, is_keyed_by_model, group_key, cluster_key)
            ],
            combiner=_TaskCombiner(
                output=output,
                models=models,
                baseline=baseline.name if baseline else None,
                metrics=tuple(metrics),
                num_replicates=num_replicates,
                seed=seed,
                example_weighted=example_weighted,
            ),
        )
        for output in output_names or [""]
    ]


class _ColumnPreprocessor(metric_types.Preprocessor):
    """Cuts extracts down to the columns of one output; drops rows of weight 0.

    The extracts hold one example, as TFMA's extractors leave them, or a batch of them, as
    `models.metrics.batch_slicing` does.
    """

    def __init__(
        self,
        output: str,
        models: tuple[str, ...],
        is_keyed_by_model: bool,
        group_key: str,
        cluster_key: str,
    ) -> None:
        super().__init__(name=f"task_columns_{output}")
        self._output = output
        self._models = models
        self._is_keyed_by_model = is_keyed_by_model
        self._group_key = group_key
        self._cluster_key = cluster_key

    def process(self, extracts: Mapping[str, Any]) -> Iterator[Chunk]:
        label = self._numbers(extracts[constants.LABELS_KEY], self._models[0])
        weights = extracts.get(constants.EXAMPLE_WEIGHTS_KEY)
        weight = np.ones(len(label)) if weights is None else self._numbers(weights, self._models[0])
        present = np.flatnonzero(weight)
        if not len(present):
            return
        features = extracts[constants.FEATURES_KEY]
        predictions = extracts[constants.PREDICTIONS_KEY]
        columns = (
            label,
            weight,
            _keys(features, self._group_key, len(label)),
            _keys(features, self._cluster_key, len(label)),
            np.stack([self._numbers(predictions, model) for model in self._models], axis=1),
        )
        yield columns if len(present) == len(label) else _take(columns, present)

    def _numbers(self, values: Any, model: str) -> FloatArray:
        # Keyed by model when there are two, by output when there are several.
        if self._is_keyed_by_model:
            values = values[model]
        if isinstance(values, Mapping):
            values = values[self._output]
        return np.asarray(values, np.float64).reshape(-1)


def _keys(features: Mapping[str, Any], name: str, num_rows: int) -> KeyArray:
    if name not in features:
        raise DataError(
            f"the examples have no feature {name!r}",
            constraint="the key that metrics group or resample by",
            received=f"features {', '.join(sorted(features))}",
            remedy="write the key column into the examples, or name another one in the config",
        )
    keys = np.asarray(features[name], object).reshape(-1)
    # An example without a value has an empty list.
    return keys if len(keys) else np.full(num_rows, b"", object)


@dataclass
class _Buffer:
    """The rows received, in as many chunks as they came in."""

    chunks: list[Chunk] = field(default_factory=list)

    def add(self, chunks: Iterable[Chunk]) -> None:
        self.chunks.extend(chunks)
        if len(self.chunks) > _MAX_CHUNKS:
            self.compact()

    def compact(self) -> None:
        if len(self.chunks) > 1:
            self.chunks = [_concatenate(self.chunks)]

    def columns(self, num_models: int) -> Chunk:
        numbers, keys = np.empty(0), np.empty(0, object)
        no_rows = (numbers, numbers, keys, keys, np.empty((0, num_models)))
        return _concatenate([no_rows, *self.chunks])


def _take(chunk: Chunk, rows: IntArray) -> Chunk:
    label, weight, group, cluster, prediction = (column[rows] for column in chunk)
    return label, weight, group, cluster, prediction


def _concatenate(chunks: Sequence[Chunk]) -> Chunk:
    label, weight, group, cluster, prediction = (
        np.concatenate(parts) for parts in zip(*chunks, strict=True)
    )
    return label, weight, group, cluster, prediction


class _TaskCombiner(beam.CombineFn):
    """Buffers the rows of a slice and computes its metrics once."""

    def __init__(
        self,
        output: str,
        models: tuple[str, ...],
        baseline: str | None,
        metrics: tuple[str, ...],
        num_replicates: int,
        seed: int,
        example_weighted: bool,
    ) -> None:
        self._output = output
        self._models = models
        self._baseline = baseline
        self._metrics = metrics
        self._num_replicates = num_replicates
        self._seed = seed
        self._example_weighted = example_weighted

    def create_accumulator(self) -> _Buffer:
        return _Buffer()

    def add_input(self, accumulator: _Buffer, chunk: Chunk) -> _Buffer:
        accumulator.add([chunk])
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Buffer]) -> _Buffer:
        merged = _Buffer()
        for accumulator in accumulators:
            merged.add(accumulator.chunks)
        return merged

    def compact(self, accumulator: _Buffer) -> _Buffer:
        accumulator.compact()
        return accumulator

    def extract_output(self, accumulator: _Buffer) -> dict[metric_types.MetricKey, float]:
        label, weight, group, cluster, predictions = accumulator.columns(len(self._models))
        resampled = {
            model: resample(
                self._metrics,
                TaskColumns(label, predictions[:, index], weight, group, cluster),
                num_replicates=self._num_replicates,
                seed=self._seed,
            )
            for index, model in enumerate(self._models)
        }
        counts = {"num_rows": len(label), "num_positives": int((label > 0).sum())}
        numbers: dict[tuple[str, str], float] = {}
        for model, result in resampled.items():
            for name, value in (counts | result.tallies | _values(result)).items():
                numbers[model, name] = float(value)
            if self._baseline is not None and model != self._baseline:
                for name, interval in result.less(resampled[self._baseline]).items():
                    low, high = change_bounds(name)
                    numbers[model, low], numbers[model, high] = interval.low, interval.high
        return {
            metric_types.MetricKey(
                name=name,
                model_name=model,
                output_name=self._output,
                example_weighted=self._example_weighted,
            ): value
            for (model, name), value in numbers.items()
        }


def _values(result: Resampled) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, interval in result.intervals().items():
        low, high = interval_bounds(name)
        values |= {name: interval.value, low: interval.low, high: interval.high}
    return values
