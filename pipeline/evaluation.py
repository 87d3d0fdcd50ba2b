"""Task outputs to a TFMA configuration, and a TFMA evaluation back to numbers and gate verdicts."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from models.metrics.names import change_bounds, interval_bounds
from models.spec.errors import ConfigError, nearest
from models.spec.keys import slice_feature
from models.spec.metric import METRICS

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto import config_pb2

OVERALL = "overall"
COUNTS = ("num_rows", "num_positives")
_METRIC_MODULE = "models.metrics.task_metrics"
_BASELINE = "baseline"


class MetricValue(TypedDict):
    """A number with its 95 % interval.

    NaN where undefined; a count has bounds of None.
    """

    value: float
    low: float | None
    high: float | None


OutputMetrics = dict[str, dict[str, MetricValue]]
"""Output name to metric name to value."""

SliceMetrics = dict[str, OutputMetrics]
"""Slice name (`overall`, `device=phone`, `device=phone,tab=home`) to the metrics of its rows."""


@dataclass(frozen=True)
class Gate:
    """A bound on a metric of the test split, or on how it compares with the model pushed before.

    A value gate has a lower bound, an upper bound or both; a change gate has `max_worsening`. All
    bounds are inclusive. An undefined metric passes no gate, a change gate without a baseline
    included.

    Attributes:
        metric: One of the output's metrics, or `num_rows` or `num_positives` for value gates.
        lower_bound: The value must be at least this.
        upper_bound: The value must be at most this.
        max_worsening: How far the metric may move in its worse direction against the baseline on
            the same rows, in its own unit; at least 0.

    Raises:
        ConfigError: Not exactly one of the two kinds, or a change gate on a metric without a
            better direction.
    """

    metric: str
    lower_bound: float | None = None
    upper_bound: float | None = None
    max_worsening: float | None = None

    def __post_init__(self) -> None:
        """Checks that the gate is of one kind and can be decided."""
        bounded = self.lower_bound is not None or self.upper_bound is not None
        if bounded == (self.max_worsening is not None):
            raise ConfigError(
                f"the gate on {self.metric!r} has {'both kinds' if bounded else 'no bound'}",
                constraint="value bounds or max_worsening, one gate each",
                remedy="declare one gate for the value and another one for the change",
            )
        if self.max_worsening is not None:
            _better_direction(self.metric)
            if not self.max_worsening >= 0:
                raise ConfigError(
                    f"the change gate on {self.metric!r} demands an improvement",
                    constraint="max_worsening of at least 0",
                    received=self.max_worsening,
                    remedy="set it to 0 to allow no change for the worse",
                )

    @property
    def kind(self) -> Literal["value", "change"]:
        """Whether the gate looks at the value or at the change against the baseline."""
        return "value" if self.max_worsening is None else "change"

    def bounds(self) -> Iterator[tuple[Literal["lower", "upper"], float]]:
        """Yields each bound on the value, or on the difference candidate - baseline."""
        if self.lower_bound is not None:
            yield "lower", self.lower_bound
        if self.upper_bound is not None:
            yield "upper", self.upper_bound
        if self.max_worsening is not None:
            if _better_direction(self.metric) == "higher":
                yield "lower", -self.max_worsening
            else:
                yield "upper", self.max_worsening


@dataclass(frozen=True)
class EvalOutput:
    """What the evaluation needs to know about one served output.

    Attributes:
        name: Name of the output in the `serving_default` signature and in all results.
        label_key: Float feature with the label; finite, also where the weight is 0.
        weight_key: Float feature with mask times row weight; 0 where the row is absent.
        group_key: Bytes feature with the slate or user of grouped metrics.
        cluster_key: Bytes feature with the user that intervals resample.
        metrics: Names of the metrics to report.
        gates: Bounds that decide on the blessing.

    Raises:
        ConfigError: A metric does not exist, or a gate is on one that the output does not report.
    """

    name: str
    label_key: str
    weight_key: str
    group_key: str
    cluster_key: str
    metrics: tuple[str, ...]
    gates: tuple[Gate, ...] = ()

    def __post_init__(self) -> None:
        """Checks that every metric exists and every gate finds its own."""
        for metric in self.metrics:
            if metric not in METRICS:
                raise ConfigError(
                    f"output {self.name!r} has an unknown metric {metric!r}"
                    f"{nearest(metric, METRICS)}",
                    constraint=f"one of {', '.join(METRICS)}",
                    remedy="correct the task's metrics",
                )
        allowed = (*self.metrics, *COUNTS)
        for gate in self.gates:
            if gate.metric not in allowed:
                raise ConfigError(
                    f"output {self.name!r} has a gate on {gate.metric!r}, which it does not report"
                    f"{nearest(gate.metric, allowed)}",
                    constraint=f"one of {', '.join(allowed)}",
                    remedy="add the metric to the task or gate another one",
                )


@dataclass(frozen=True)
class GateRow:
    """The verdict of one bound.

    Attributes:
        output: Name of the output.
        metric: Name of the metric.
        kind: Whether the bound is on the value or on the change against the baseline.
        bound: Whether the number must stay above or below the threshold; equality passes.
        threshold: The bound.
        value: The number held against it; None where it is missing or undefined.
        outcome: `no_baseline` where a change has nothing to be measured against.
    """

    output: str
    metric: str
    kind: Literal["value", "change"]
    bound: Literal["lower", "upper"]
    threshold: float
    value: float | None
    outcome: Literal["passed", "refused", "no_baseline"]

    @property
    def passed(self) -> bool:
        """Whether the bound lets the candidate through; the first model has no baseline."""
        return self.outcome != "refused"


def eval_config(
    outputs: Sequence[EvalOutput],
    slices: Sequence[Sequence[str]],
    *,
    num_replicates: int = 200,
    seed: int,
    code_hash: str,
    baseline_outputs: Collection[str] | None = None,
) -> config_pb2.EvalConfig:
    """Builds the configuration of the Evaluator.

    One unnamed model spec: where the Evaluator is given a baseline it adds a spec for it, and
    where it is not, TFX drops the change thresholds. Both kinds of threshold bind on the overall
    slice only; TFMA would hold an unsliced threshold against every slice, down to the smallest.

    Args:
        outputs: The served outputs.
        slices: Feature keys per slice, several keys to cross them; the overall slice is implied.
        num_replicates: Resamples behind each interval.
        seed: Seed of the resamples.
        code_hash: Hash of the code of the metrics, which enters the cache key with the config.
        baseline_outputs: Outputs that the baseline shares; all of them if None. The others (those
            of a task added since) are measured without it and have nothing to be compared with.
    """
    from tensorflow_model_analysis.proto import config_pb2

    config = config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                model_type="tf_generic",
                signature_name="serving_default",
                label_keys={output.name: output.label_key for output in outputs},
                prediction_keys={output.name: output.name for output in outputs},
                example_weight_keys={output.name: output.weight_key for output in outputs},
            )
        ],
        slicing_specs=[
            config_pb2.SlicingSpec(),
            *(config_pb2.SlicingSpec(feature_keys=list(keys)) for keys in slices),
        ],
        metrics_specs=[
            config_pb2.MetricsSpec(
                output_names=[output.name],
                metrics=[
                    _task_metrics(output, num_replicates, seed, code_hash, has_baseline),
                    *(_gated_metric(gate, has_baseline) for gate in output.gates),
                ],
            )
            for output in outputs
            for has_baseline in [baseline_outputs is None or output.name in baseline_outputs]
        ],
    )
    config.options.include_default_metrics.value = False
    return config


def read_metrics(
    evaluation_path: str, *, model: Literal["candidate", "baseline"] = "candidate"
) -> SliceMetrics:
    """Reads the metrics of one model from a TFMA evaluation.

    Args:
        evaluation_path: Folder of the evaluation artifact.
        model: Which of the two models; without a baseline there is only the candidate.

    Returns:
        Slice to output to metric to value; empty for the baseline where there was none.
    """
    result: SliceMetrics = {}
    for slice_name, key, numbers in _numbers(evaluation_path):
        if key.is_diff or (key.model == _BASELINE) != (model == _BASELINE):
            continue
        values: dict[str, MetricValue] = {}
        for name, value in numbers.items():
            if name in METRICS:
                values[name] = _with_bounds(value, numbers, interval_bounds(name))
            elif not name.endswith(("_low", "_high")):
                values[name] = {"value": value, "low": None, "high": None}
        result.setdefault(slice_name, {})[key.output] = values
    return result


def read_changes(evaluation_path: str) -> SliceMetrics:
    """Reads the differences candidate - baseline, with paired intervals.

    Args:
        evaluation_path: Folder of the evaluation artifact.

    Returns:
        Slice to output to metric to difference; empty where there was no baseline.
    """
    differences: dict[tuple[str, str], dict[str, float]] = {}
    bounds: dict[tuple[str, str], dict[str, float]] = {}
    for slice_name, key, numbers in _numbers(evaluation_path):
        if key.is_diff:
            differences[slice_name, key.output] = numbers
        elif key.model != _BASELINE:
            bounds[slice_name, key.output] = numbers
    result: SliceMetrics = {}
    for (slice_name, output), numbers in differences.items():
        result.setdefault(slice_name, {})[output] = {
            name: _with_bounds(value, bounds[slice_name, output], change_bounds(name))
            for name, value in numbers.items()
            if name in METRICS
        }
    return result


def gate_rows(
    metrics: OutputMetrics,
    outputs: Sequence[EvalOutput],
    changes: OutputMetrics | None = None,
) -> list[GateRow]:
    """Decides every gate again from the numbers; TFMA's own result lists failures only.

    Args:
        metrics: Metrics of the overall slice, `read_metrics(path)[OVERALL]`.
        outputs: The outputs with their gates.
        changes: Differences to the baseline on the overall slice, `read_changes(path)[OVERALL]`;
            None without a baseline, and without the outputs that the baseline does not have.

    Returns:
        One row per bound, in the order of the outputs and their gates.
    """
    rows = []
    for output in outputs:
        for gate in output.gates:
            has_baseline = output.name in (changes or {})
            value = _finite(changes if gate.kind == "change" else metrics, output.name, gate.metric)
            is_defined = _finite(metrics, output.name, gate.metric) is not None
            for bound, threshold in gate.bounds():
                outcome: Literal["passed", "refused", "no_baseline"]
                if gate.kind == "change" and not has_baseline and is_defined:
                    outcome = "no_baseline"
                elif value is None:
                    outcome = "refused"
                else:
                    holds = value >= threshold if bound == "lower" else value <= threshold
                    outcome = "passed" if holds else "refused"
                rows.append(
                    GateRow(output.name, gate.metric, gate.kind, bound, threshold, value, outcome)
                )
    return rows


def _better_direction(metric: str) -> Literal["higher", "lower"]:
    higher_is_better = METRICS[metric].higher_is_better if metric in METRICS else None
    if higher_is_better is None:
        allowed = [name for name, m in METRICS.items() if m.higher_is_better is not None]
        raise ConfigError(
            f"a change gate on {metric!r} cannot tell better from worse",
            constraint=f"one of {', '.join(allowed)}",
            remedy="use value bounds instead",
        )
    return "higher" if higher_is_better else "lower"


def _task_metrics(
    output: EvalOutput, num_replicates: int, seed: int, code_hash: str, has_baseline: bool
) -> config_pb2.MetricConfig:
    from tensorflow_model_analysis.proto import config_pb2

    parameters = {
        "metrics": list(output.metrics),
        "group_key": output.group_key,
        "cluster_key": output.cluster_key,
        "num_replicates": num_replicates,
        "seed": seed,
        "code_hash": code_hash,
        "has_baseline": has_baseline,
    }
    return config_pb2.MetricConfig(
        module=_METRIC_MODULE,
        class_name="TaskMetrics",
        config=json.dumps(parameters, sort_keys=True),
    )


def _gated_metric(gate: Gate, has_baseline: bool) -> config_pb2.MetricConfig:
    from tensorflow_model_analysis.proto import config_pb2

    threshold = config_pb2.MetricThreshold()
    for bound, limit in gate.bounds():
        if gate.kind == "change":
            # Any number is at least this, NaN is not. It stays where the change threshold is
            # dropped for want of a baseline; without any threshold TFX would bless nothing.
            threshold.value_threshold.lower_bound.value = -math.inf
            if not has_baseline:
                continue
            threshold.change_threshold.absolute.value = limit
            threshold.change_threshold.direction = (
                config_pb2.MetricDirection.HIGHER_IS_BETTER
                if bound == "lower"
                else config_pb2.MetricDirection.LOWER_IS_BETTER
            )
        elif bound == "lower":
            threshold.value_threshold.lower_bound.value = limit
        else:
            threshold.value_threshold.upper_bound.value = limit
    return config_pb2.MetricConfig(
        module=_METRIC_MODULE,
        class_name="GatedMetric",
        config=json.dumps({"name": gate.metric}),
        per_slice_thresholds=[
            config_pb2.PerSliceMetricThreshold(
                slicing_specs=[config_pb2.SlicingSpec()], threshold=threshold
            )
        ],
    )


@dataclass(frozen=True)
class _Key:
    model: str
    output: str
    is_diff: bool


def _numbers(evaluation_path: str) -> Iterator[tuple[str, _Key, dict[str, float]]]:
    """Yields the numbers of each slice, by model and output, under the names TFMA stored."""
    import tensorflow_model_analysis as tfma

    for record in tfma.load_metrics(evaluation_path):
        by_key: dict[_Key, dict[str, float]] = {}
        for item in record.metric_keys_and_values:
            key = _Key(item.key.model_name, item.key.output_name, item.key.is_diff)
            by_key.setdefault(key, {})[item.key.name] = item.value.double_value.value
        for key, numbers in by_key.items():
            yield _slice_name(record.slice_key.single_slice_keys), key, numbers


def _slice_name(keys: Sequence[Any]) -> str:
    parts = []
    for key in keys:
        value = getattr(key, key.WhichOneof("kind"))
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        parts.append(f"{key.column.removesuffix(slice_feature(''))}={text}")
    return ",".join(parts) or OVERALL


def _with_bounds(
    value: float, numbers: Mapping[str, float], bounds: tuple[str, str]
) -> MetricValue:
    low, high = bounds
    return {"value": value, "low": numbers[low], "high": numbers[high]}


def _finite(source: OutputMetrics | None, output: str, metric: str) -> float | None:
    found = (source or {}).get(output, {}).get(metric)
    return found["value"] if found is not None and math.isfinite(found["value"]) else None
