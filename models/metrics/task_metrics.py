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

from models.metrics.columns import KeyArray, TaskColumns
from models.metrics.estimation import Resampled, resample
from models.metrics.names import change_bounds, interval_bounds
from models.spec.errors import DataError

_BUFFERED_ROWS = 1000

Row = tuple[float, float, bytes, bytes, tuple[float, ...]]
"""Label, weight, group, cluster, and the prediction of each model."""


class TaskMetrics(metric_types.Metric):  # type: ignore[misc]
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
            name=name,
        )


class GatedMetric(metric_types.Metric):  # type: ignore[misc]
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
    name: str,
    eval_config: config_pb2.EvalConfig | None = None,
    model_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    example_weighted: bool = False,
) -> list[metric_types.MetricComputation]:
    models = tuple(model_names or [""])
    baseline = model_util.get_baseline_model_spec(eval_config) if len(models) > 1 else None
    return [
        metric_types.MetricComputation(
            keys=[],
            preprocessors=[_RowPreprocessor(output, models, group_key, cluster_key)],
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


class _RowPreprocessor(metric_types.Preprocessor):  # type: ignore[misc]
    """Cuts the extracts of an example down to a `Row`; drops rows of weight 0.

    It runs once per example, before the example fans out to its slices.
    """

    def __init__(
        self, output: str, models: tuple[str, ...], group_key: str, cluster_key: str
    ) -> None:
        super().__init__(name=f"task_row_{output}")
        self._output = output
        self._models = models
        self._keys = (group_key, cluster_key)

    def process(self, extracts: Mapping[str, Any]) -> Iterator[Row]:
        weights = extracts.get(constants.EXAMPLE_WEIGHTS_KEY)
        weight = 1.0 if weights is None else self._number(weights, self._models[0])
        if weight == 0.0:
            return
        features = extracts[constants.FEATURES_KEY]
        group, cluster = (_key_value(features, key) for key in self._keys)
        predictions = extracts[constants.PREDICTIONS_KEY]
        yield (
            self._number(extracts[constants.LABELS_KEY], self._models[0]),
            weight,
            group,
            cluster,
            tuple(self._number(predictions, model) for model in self._models),
        )

    def _number(self, values: Any, model: str) -> float:
        # Keyed by model when there are two, by output when there are several.
        if len(self._models) > 1:
            values = values[model]
        if isinstance(values, Mapping):
            values = values[self._output]
        return float(values.item() if isinstance(values, np.ndarray) else values)


def _key_value(features: Mapping[str, Any], key: str) -> bytes:
    if key not in features:
        raise DataError(
            f"the examples have no feature {key!r}",
            constraint="the key that metrics group or resample by",
            received=f"features {', '.join(sorted(features))}",
            remedy="write the key column into the examples, or name another one in the config",
        )
    value = np.asarray(features[key]).ravel()
    return bytes(value[0]) if len(value) else b""


@dataclass
class _Buffer:
    """Rows received: recent ones as tuples, the rest as columns."""

    rows: list[Row] = field(default_factory=list)
    chunks: list[tuple[KeyArray, ...]] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        if len(self.rows) >= _BUFFERED_ROWS:
            self._close_chunk()

    def extend(self, other: _Buffer) -> None:
        self.chunks.extend(other.chunks)
        for row in other.rows:
            self.add(row)

    def compact(self) -> None:
        if self.rows:
            self._close_chunk()
        if len(self.chunks) > 1:
            self.chunks = [tuple(np.concatenate(parts) for parts in zip(*self.chunks, strict=True))]

    def columns(self, num_models: int) -> tuple[KeyArray, ...]:
        self.compact()
        if self.chunks:
            return self.chunks[0]
        return np.empty(0), np.empty(0), np.empty(0), np.empty(0), np.empty((0, num_models))

    def _close_chunk(self) -> None:
        label, weight, group, cluster, predictions = zip(*self.rows, strict=True)
        self.chunks.append(
            (
                np.array(label, np.float64),
                np.array(weight, np.float64),
                # Objects: a fixed width would take rows times the longest key.
                np.array(group, object),
                np.array(cluster, object),
                np.array(predictions, np.float64),
            )
        )
        self.rows = []


class _TaskCombiner(beam.CombineFn):  # type: ignore[misc]
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

    def add_input(self, accumulator: _Buffer, row: Row) -> _Buffer:
        accumulator.add(row)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Buffer]) -> _Buffer:
        merged = _Buffer()
        for accumulator in accumulators:
            merged.extend(accumulator)
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
