"""The TFMA metric through TFMA itself: a small SavedModel, slices, a baseline, gates."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from apache_beam.options.pipeline_options import PipelineOptions
from google.protobuf import json_format
from tensorflow_model_analysis.api import types
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.slicer import slicer_lib
from tensorflow_model_analysis.utils import config_util

from models.metrics.batch_slicing import _SliceBatches, custom_extractors
from models.metrics.columns import TaskColumns
from models.metrics.estimation import paired_bootstrap, resample
from models.metrics.task_metrics import TaskMetrics
from models.spec.errors import ConfigError, DataError
from models.spec.metric import default_metrics
from pipeline.evaluation import (
    OVERALL,
    EvalOutput,
    Gate,
    eval_config,
    gate_rows,
    read_changes,
    read_metrics,
)

pytestmark = pytest.mark.slow

NUM_ROWS = 400
NUM_REPLICATES = 30
SEED = 3
SLICES = (("device__slice",), ("device__slice", "tab__slice"))

PASSING = {
    "click": (Gate("auc", lower_bound=0.6), Gate("auc", max_worsening=0.3)),
    "conversion": (Gate("log_loss", upper_bound=5.0), Gate("num_rows", lower_bound=50)),
    "watch_seconds": (Gate("mae", max_worsening=100.0),),
}


def outputs_with(gates: dict[str, tuple[Gate, ...]]) -> tuple[EvalOutput, ...]:
    return tuple(
        EvalOutput(
            name=name,
            label_key=f"{name}__label",
            weight_key=f"{name}__weight",
            group_key="request__key",
            cluster_key="user__key",
            metrics=default_metrics("duration" if name == "watch_seconds" else "binary"),
            gates=gates.get(name, ()),
        )
        for name in ("click", "conversion", "watch_seconds")
    )


OUTPUTS = outputs_with(PASSING)
Columns = dict[str, np.ndarray]


def make_columns() -> Columns:
    rng = np.random.default_rng(0)
    user = rng.integers(0, 40, NUM_ROWS)
    request = user * 3 + rng.integers(0, 3, NUM_ROWS)
    x = rng.normal(size=NUM_ROWS) + rng.normal(size=40)[user]
    click = (rng.random(NUM_ROWS) < 1 / (1 + np.exp(-x))).astype(np.float32)
    conversion = click * (rng.random(NUM_ROWS) < 0.4)
    weight = rng.choice([0.5, 1.0, 2.0], NUM_ROWS)
    return {
        "x": x.astype(np.float32),
        "click__label": click,
        "click__weight": weight.astype(np.float32),
        "conversion__label": conversion.astype(np.float32),
        "conversion__weight": (weight * (rng.random(NUM_ROWS) < 0.8)).astype(np.float32),
        "watch_seconds__label": (click * rng.exponential(20, NUM_ROWS)).astype(np.float32),
        "watch_seconds__weight": click,
        "user__key": np.array([b"user-%d" % u for u in user], object),
        "request__key": np.array([b"request-%d" % r for r in request], object),
        "device__slice": rng.choice(np.array([b"phone", b"tablet"], object), NUM_ROWS),
        "tab__slice": rng.choice(np.array([b"home", b"search"], object), NUM_ROWS),
    }


def write_examples(columns: Columns, rows: Sequence[int], path: Path) -> None:
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions("GZIP")) as writer:
        for row in rows:
            feature = {}
            for name, values in columns.items():
                if values.dtype == object:
                    feature[name] = tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[values[row]])
                    )
                else:
                    feature[name] = tf.train.Feature(
                        float_list=tf.train.FloatList(value=[values[row]])
                    )
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


class Model(tf.Module):
    """Two of these with different noise stand for the candidate and the baseline."""

    def __init__(
        self, noise: float, outputs: Sequence[str] = ("click", "conversion", "watch_seconds")
    ) -> None:
        self._noise = noise
        self._outputs = outputs

    def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        y = x + self._noise * tf.sin(37.0 * x)
        return {
            "click": tf.sigmoid(y),
            "conversion": tf.round(10.0 * tf.sigmoid(y - 1.0)) / 10.0,
            "watch_seconds": tf.exp(y / 2.0) + 5.0,
            "score": y,
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([], tf.float32)})
        predicted = self.predict(parsed["x"])
        return {name: predicted[name] for name in (*self._outputs, "score")}


NOISE = {"candidate": 0.9, "baseline": 0.3}


@dataclass(frozen=True)
class Evaluations:
    """Evaluations of the same rows.

    `alone` has no baseline and uses TFMA's extractors; `compared` has a baseline, the rows in
    another order and in two files, and our extractors.
    """

    alone: str
    compared: str
    columns: Columns

    def task(self, output: str, rows: np.ndarray, model: str = "candidate") -> TaskColumns:
        prediction = Model(NOISE[model]).predict(tf.constant(self.columns["x"]))[output].numpy()
        return TaskColumns(
            self.columns[f"{output}__label"][rows],
            prediction[rows],
            self.columns[f"{output}__weight"][rows],
            self.columns["request__key"][rows],
            self.columns["user__key"][rows],
        )


def evaluate(
    config: config_pb2.EvalConfig,
    models: dict[str, str],
    data: str,
    output_path: str,
    by_batch: bool = True,
) -> None:
    """Runs TFMA as the Evaluator component does, with or without the custom extractors."""
    compared = "baseline" in models
    config = config_util.update_eval_config_with_defaults(
        config, has_baseline=compared, rubber_stamp=True
    )
    shared = [
        tfma.default_eval_shared_model(path, eval_config=config, model_name=name)
        for name, path in (models if compared else {"": models["candidate"]}).items()
    ]
    model = shared if compared else shared[0]
    tfma.run_model_analysis(
        model,
        eval_config=config,
        extractors=custom_extractors(model, config) if by_batch else None,
        data_location=data,
        output_path=output_path,
        pipeline_options=PipelineOptions(["--runner=FnApiRunner"]),
    )


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> Evaluations:
    folder = tmp_path_factory.mktemp("tfma")
    models = {}
    for name, noise in NOISE.items():
        models[name] = str(folder / name)
        module = Model(noise)
        tf.saved_model.save(module, models[name], signatures={"serving_default": module.serve})
    columns = make_columns()
    for name in ("forward", "split"):
        (folder / name).mkdir()
    write_examples(columns, range(NUM_ROWS), folder / "forward" / "data.gz")
    backward = list(reversed(range(NUM_ROWS)))
    write_examples(columns, backward[:130], folder / "split" / "data-0.gz")
    write_examples(columns, backward[130:], folder / "split" / "data-1.gz")
    config = eval_config(OUTPUTS, SLICES, num_replicates=NUM_REPLICATES, seed=SEED, code_hash="abc")
    alone, compared = str(folder / "alone"), str(folder / "compared")
    only_candidate = {"candidate": models["candidate"]}
    evaluate(config, only_candidate, str(folder / "forward" / "*"), alone, by_batch=False)
    evaluate(config, models, str(folder / "split" / "*"), compared)
    return Evaluations(alone, compared, columns)


def every_slice(columns: Columns) -> dict[str, np.ndarray]:
    slices = {OVERALL: np.ones(NUM_ROWS, bool)}
    for device in (b"phone", b"tablet"):
        name = f"device={device.decode()}"
        slices[name] = columns["device__slice"] == device
        for tab in (b"home", b"search"):
            slices[f"{name},tab={tab.decode()}"] = slices[name] & (columns["tab__slice"] == tab)
    return slices


def test_every_number_is_that_of_the_same_rows_in_numpy(evaluations: Evaluations) -> None:
    read = read_metrics(evaluations.alone)
    slices = every_slice(evaluations.columns)
    assert set(read) == set(slices)
    for (slice_name, rows), output in itertools.product(slices.items(), OUTPUTS):
        columns = evaluations.task(output.name, rows)
        expected = resample(output.metrics, columns, num_replicates=NUM_REPLICATES, seed=SEED)
        found = dict(read[slice_name][output.name])
        for name, interval in expected.intervals().items():
            values = found.pop(name)
            assert values["value"] == pytest.approx(interval.value, rel=1e-6, nan_ok=True)
            assert values["low"] == pytest.approx(interval.low, rel=1e-6, nan_ok=True)
            assert values["high"] == pytest.approx(interval.high, rel=1e-6, nan_ok=True)
        present = columns.weight > 0
        counts = expected.tallies | {
            "num_rows": present.sum(),
            "num_positives": (columns.label[present] > 0).sum(),
        }
        assert {name: value["value"] for name, value in found.items()} == counts


def test_order_shards_extractors_and_a_baseline_change_nothing(evaluations: Evaluations) -> None:
    """Up to the last bits of predictions, which TensorFlow rounds by their place in a batch."""
    alone, compared = read_metrics(evaluations.alone), read_metrics(evaluations.compared)
    assert set(alone) == set(compared)
    for slice_name, output in itertools.product(alone, OUTPUTS):
        a, b = alone[slice_name][output.name], compared[slice_name][output.name]
        assert set(a) == set(b)
        for name in a:
            np.testing.assert_allclose(
                [v for v in a[name].values() if v is not None],
                [v for v in b[name].values() if v is not None],
                rtol=1e-5,
            )


def test_the_baseline_has_metrics_of_its_own(evaluations: Evaluations) -> None:
    baseline = read_metrics(evaluations.compared, model="baseline")
    rows = np.ones(NUM_ROWS, bool)
    columns = evaluations.task("click", rows, model="baseline")
    expected = resample(["auc"], columns, num_replicates=NUM_REPLICATES, seed=SEED).intervals()
    assert baseline[OVERALL]["click"]["auc"]["low"] == pytest.approx(expected["auc"].low, rel=1e-6)
    assert read_metrics(evaluations.alone, model="baseline") == {}


def test_changes_have_paired_intervals(evaluations: Evaluations) -> None:
    changes = read_changes(evaluations.compared)
    for slice_name, rows in every_slice(evaluations.columns).items():
        for output in OUTPUTS:
            expected = paired_bootstrap(
                output.metrics,
                evaluations.task(output.name, rows, model="baseline"),
                evaluations.task(output.name, rows),
                NUM_REPLICATES,
                seed=SEED,
            )
            found = changes[slice_name][output.name]
            assert set(found) == set(output.metrics)
            for name, interval in expected.items():
                np.testing.assert_allclose(
                    list(found[name].values()),
                    [interval.value, interval.low, interval.high],
                    rtol=1e-5,
                    atol=1e-6,
                )
    assert read_changes(evaluations.alone) == {}


def test_tfma_blesses_when_every_gate_passes(evaluations: Evaluations) -> None:
    for path in (evaluations.alone, evaluations.compared):
        result = tfma.load_validation_result(path)
        assert result.validation_ok
        assert not result.missing_slices
        assert not result.metric_validations_per_slice


def test_without_a_baseline_a_change_gate_says_so(evaluations: Evaluations) -> None:
    rows = gate_rows(read_metrics(evaluations.alone)[OVERALL], OUTPUTS)
    outcomes = {(row.output, row.kind): row.outcome for row in rows}
    assert outcomes["click", "change"] == outcomes["watch_seconds", "change"] == "no_baseline"
    assert outcomes["click", "value"] == outcomes["conversion", "value"] == "passed"
    assert all(row.passed for row in rows)


def test_a_task_that_the_baseline_lacks_has_no_baseline(
    evaluations: Evaluations, tmp_path: Path
) -> None:
    """The first window after a task was added: its change gates wait, the others' still hold."""
    gates = outputs_with(
        {
            "click": (Gate("auc", max_worsening=0.0),),
            "watch_seconds": (Gate("mae", upper_bound=99.0), Gate("rmse", max_worsening=0.0)),
        }
    )
    models = {}
    for name, outputs in {"candidate": ("click", "watch_seconds"), "baseline": ("click",)}.items():
        module = Model(NOISE[name], outputs)
        models[name] = str(tmp_path / name)
        tf.saved_model.save(module, models[name], signatures={"serving_default": module.serve})
    write_examples(evaluations.columns, range(NUM_ROWS), tmp_path / "data.gz")
    path = str(tmp_path / "evaluation")
    config = eval_config(
        [output for output in gates if output.name != "conversion"],
        (),
        num_replicates=NUM_REPLICATES,
        seed=SEED,
        code_hash="",
        baseline_outputs=["click"],
    )
    evaluate(config, models, str(tmp_path / "data.gz"), path)
    metrics, changes = read_metrics(path)[OVERALL], read_changes(path)[OVERALL]
    assert set(metrics) == {"click", "watch_seconds"} and set(changes) == {"click"}
    alone = read_metrics(evaluations.alone)[OVERALL]["watch_seconds"]
    assert metrics["watch_seconds"]["mae"]["value"] == pytest.approx(alone["mae"]["value"])
    rows = {(row.output, row.metric): row for row in gate_rows(metrics, gates, changes)}
    assert rows["watch_seconds", "mae"].outcome == "passed"
    assert rows["watch_seconds", "rmse"].outcome == "no_baseline"
    assert rows["click", "auc"].outcome == "refused"  # the candidate is the noisier model
    (failed,) = tfma.load_validation_result(path).metric_validations_per_slice
    assert [(f.metric_key.output_name, f.metric_key.name) for f in failed.failures] == [
        ("click", "auc")
    ]


def _tfma_verdict(
    path: str, gates: dict[str, tuple[Gate, ...]]
) -> tuple[bool, set[tuple[str, str]]]:
    """What TFMA's validator says of the stored metrics of the overall slice under other gates."""
    compared = path.endswith("compared")
    config = config_util.update_eval_config_with_defaults(
        eval_config(
            outputs_with(gates), SLICES, num_replicates=NUM_REPLICATES, seed=SEED, code_hash=""
        ),
        has_baseline=compared,
        rubber_stamp=True,
    )
    failed = set()
    is_ok = True
    for record in tfma.load_metrics(path):
        slice_key = tuple(
            (key.column, key.bytes_value.decode()) for key in record.slice_key.single_slice_keys
        )
        metrics = {
            metric_types.MetricKey.from_proto(item.key): item.value.double_value.value
            for item in record.metric_keys_and_values
        }
        result = tfma.evaluators.metrics_validator.validate_metrics((slice_key, metrics), config)
        is_ok &= result.validation_ok
        for validation in result.metric_validations_per_slice:
            assert not slice_key, "a gate was held against a slice"
            failed |= {(f.metric_key.output_name, f.metric_key.name) for f in validation.failures}
    return is_ok, failed


def _shifted(value: float, by: float) -> float:
    return math.nextafter(value, math.inf if by > 0 else -math.inf)


@pytest.mark.parametrize(
    ("gate_of", "passes"),
    [
        (lambda auc, *_: Gate("auc", lower_bound=auc), True),
        (lambda auc, *_: Gate("auc", lower_bound=_shifted(auc, +1)), False),
        (lambda auc, *_: Gate("auc", upper_bound=auc), True),
        (lambda auc, *_: Gate("auc", upper_bound=_shifted(auc, -1)), False),
        (lambda _, drop, __: Gate("auc", max_worsening=drop), True),
        (lambda _, drop, __: Gate("auc", max_worsening=_shifted(drop, -1)), False),
        (lambda *args: Gate("log_loss", max_worsening=args[2]), True),
        (lambda *args: Gate("log_loss", max_worsening=_shifted(args[2], -1)), False),
        (lambda *_: Gate("num_positives", lower_bound=NUM_ROWS), False),
    ],
)
def test_tfma_and_the_gate_rows_agree_to_the_last_bit(
    evaluations: Evaluations, gate_of: Callable[[float, float, float], Gate], passes: bool
) -> None:
    metrics = read_metrics(evaluations.compared)[OVERALL]
    changes = read_changes(evaluations.compared)[OVERALL]
    # The candidate is the noisier of the two: worse in both metrics.
    auc_drop = -changes["click"]["auc"]["value"]
    loss_increase = changes["click"]["log_loss"]["value"]
    gate = gate_of(metrics["click"]["auc"]["value"], auc_drop, loss_increase)
    is_ok, failed = _tfma_verdict(evaluations.compared, {"click": (gate,)})
    assert (is_ok, failed) == (passes, set() if passes else {("click", gate.metric)})
    (row,) = gate_rows(metrics, outputs_with({"click": (gate,)}), changes)
    assert row.passed == passes


def test_a_change_gate_alone_can_be_blessed_without_a_baseline(evaluations: Evaluations) -> None:
    gates = {"click": (Gate("auc", max_worsening=0.0),)}
    assert _tfma_verdict(evaluations.alone, gates) == (True, set())
    assert _tfma_verdict(evaluations.compared, gates) == (False, {("click", "auc")})


def test_thresholds_survive_the_json_that_tfx_stores() -> None:
    config = eval_config(OUTPUTS, SLICES, seed=SEED, code_hash="abc")
    stored = json_format.MessageToJson(config, preserving_proto_field_name=True)
    assert json_format.Parse(stored, config_pb2.EvalConfig()) == config


@pytest.mark.parametrize("metric", ["auc", "num_rows"])
def test_tfma_refuses_an_undefined_metric(metric: str) -> None:
    gate = Gate(metric, lower_bound=0.0)
    config = config_util.update_eval_config_with_defaults(
        eval_config(outputs_with({"click": (gate,)}), (), seed=SEED, code_hash=""),
        has_baseline=False,
    )
    key = metric_types.MetricKey(metric, output_name="click", example_weighted=True)
    validate = tfma.evaluators.metrics_validator.validate_metrics
    assert validate(((), {key: 1.0}), config).validation_ok
    assert not validate(((), {key: math.nan}), config).validation_ok
    assert not validate(((), {}), config).validation_ok


def test_slices_are_cut_as_tfma_cuts_them() -> None:
    """Missing and repeated values, dense and sparse columns."""
    config = eval_config(OUTPUTS, (("device",), ("device", "tab")), seed=SEED, code_hash="")
    device = types.VarLenTensorValue(
        values=np.array([b"phone", b"phone", b"tablet"], object),
        indices=np.array([[0, 0], [2, 0], [2, 1]]),
        dense_shape=np.array([3, 2]),
    )
    batch = {
        "input": np.array([b""] * 3, object),
        "features": {
            "device": device,
            "tab": np.array([[1], [2], [1]]),
            "request__key": np.array([[b"r0"], [b"r1"], [b"r2"]], object),
            "user__key": types.VarLenTensorValue(
                np.array([b"u"], object), np.array([[1, 0]]), np.array([3, 1])
            ),
        },
        "labels": {"click": np.array([0.0, 1.0, 2.0])},
        "predictions": {"click": np.array([[0.0], [0.1], [0.2]])},
    }
    cut = {}
    for extracts in _SliceBatches(config).process(batch):
        (slice_key,) = extracts["_slice_key_types"]
        cut[slice_key] = extracts["labels"]["click"].astype(int).tolist()
        if slice_key == ():
            assert extracts["features"]["user__key"].tolist() == [b"", b"u", b""]
            assert extracts["features"]["request__key"].tolist() == [b"r0", b"r1", b"r2"]
    expected: dict[slicer_lib.SliceKeyType, list[int]] = {}
    specs = [slicer_lib.SingleSliceSpec(spec=s) for s in config.slicing_specs]
    rows = [
        {"device": [b"phone"], "tab": [1]},
        {"tab": [2]},
        {"device": [b"phone", b"tablet"], "tab": [1]},
    ]
    for row, features in enumerate(rows):
        arrays = {name: np.array(values) for name, values in features.items()}
        for slice_key in slicer_lib.get_slices_for_features_dicts([], arrays, specs):
            expected.setdefault(slice_key, []).append(row)
    assert cut == expected
    assert len(cut) == 5


def test_batches_are_not_given_to_metrics_that_want_rows() -> None:
    config = eval_config(OUTPUTS, (), seed=SEED, code_hash="")
    config.metrics_specs[0].metrics.add(class_name="ExampleCount")
    with pytest.raises(ConfigError, match="metrics ExampleCount need one example"):
        custom_extractors(None, config)


def _combiner(models: list[str]) -> object:
    metric = TaskMetrics(["auc", "gauc", "ece"], "request__key", "user__key", 10, 1, "abc")
    (computation,) = metric.computations(model_names=models, output_names=["click"])
    return computation.combiner


def test_bundles_do_not_change_a_bit() -> None:
    rng = np.random.default_rng(4)
    num_rows = 2500
    group = np.array([b"r%d" % g for g in rng.integers(0, 90, num_rows)], object)
    cluster = np.array([b"u%d" % c for c in rng.integers(0, 30, num_rows)], object)
    label = (rng.random(num_rows) < 0.3).astype(float)
    weight, prediction = rng.random(num_rows) + 0.5, rng.random((num_rows, 1))
    rows = [
        tuple(c[i : i + 1] for c in (label, weight, group, cluster, prediction))
        for i in range(num_rows)
    ]
    combiner = _combiner([""])
    whole = combiner.add_inputs(combiner.create_accumulator(), rows)
    expected = combiner.extract_output(whole)
    accumulators = []
    for cut in np.array_split(rng.permutation(num_rows), 7):
        part = combiner.add_inputs(combiner.create_accumulator(), [rows[i] for i in cut])
        accumulators.append(pickle.loads(pickle.dumps(combiner.compact(part))))
    accumulators.append(combiner.create_accumulator())
    merged = combiner.merge_accumulators(accumulators[:3])
    merged = combiner.merge_accumulators([combiner.compact(merged), *accumulators[3:]])
    assert combiner.extract_output(merged) == expected


def test_no_rows_give_nan_and_zero_counts() -> None:
    combiner = _combiner([""])
    numbers = combiner.extract_output(combiner.create_accumulator())
    by_name = {key.name: value for key, value in numbers.items()}
    assert math.isnan(by_name["auc"]) and math.isnan(by_name["auc_low"])
    assert by_name["num_rows"] == by_name["num_positives"] == by_name["gauc_num_groups"] == 0


def test_a_missing_key_feature_is_named() -> None:
    metric = TaskMetrics(["auc"], "request__key", "user__key", 10, 1, "abc")
    (computation,) = metric.computations(model_names=[""], output_names=["click"])
    extracts = {
        "labels": {"click": np.ones(1)},
        "predictions": {"click": np.ones(1)},
        "example_weights": {"click": np.ones(1)},
        "features": {"request__key": np.array([b"r"], object)},
    }
    with pytest.raises(DataError, match="no feature 'user__key'"):
        list(computation.preprocessors[0].process(extracts))


def test_the_code_hash_is_part_of_the_configuration() -> None:
    a, b = (eval_config(OUTPUTS, SLICES, seed=SEED, code_hash=h) for h in ("abc", "abd"))
    assert a.SerializeToString(deterministic=True) != b.SerializeToString(deterministic=True)


def test_a_single_output_need_not_be_keyed_by_name() -> None:
    """TFMA unwraps a signature's outputs when there is only one."""
    metric = TaskMetrics(["auc"], "request__key", "user__key", 10, 1, "abc")
    (computation,) = metric.computations(model_names=[""], output_names=["click"])
    extracts = {
        "labels": {"click": np.ones(1)},
        "predictions": np.full(1, 0.25),
        "features": {
            "request__key": np.array([b"r"], object),
            "user__key": np.array([], object),
        },
    }
    (columns,) = computation.preprocessors[0].process(extracts)
    assert [c.tolist() for c in columns] == [[1.0], [1.0], [b"r"], [b""], [[0.25]]]
