"""Every metric against scikit-learn, SciPy or the plain double loop."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from models.metrics.calibration import NUM_BINS
from models.metrics.catalog import FAMILY_OF_METRIC
from models.metrics.columns import TaskColumns
from models.metrics.estimation import compute, resample
from models.spec.errors import ConfigError, DataError
from models.spec.metric import METRICS

SEEDS = range(6)
Reference = Callable[[TaskColumns], float]


def binary_columns(seed: int, num_rows: int = 300) -> TaskColumns:
    """Random rows with tied predictions, weights of 0 and small groups inside clusters."""
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, 20, num_rows)
    prediction = np.round(rng.random(num_rows), 1 + seed % 2)
    label = (rng.random(num_rows) < 0.1 + 0.5 * prediction).astype(float)
    weight = np.where(rng.random(num_rows) < 0.15, 0.0, rng.random(num_rows) + 0.1)
    label[weight == 0] = 0.0
    return TaskColumns(
        label=label,
        prediction=np.clip(prediction, 0.001, 0.999),
        weight=weight,
        group=cluster * 3 + rng.integers(0, 3, num_rows),
        cluster=cluster,
    )


def real_columns(seed: int, num_rows: int = 300) -> TaskColumns:
    """The same rows with tied, heavy-tailed labels in natural units."""
    rng = np.random.default_rng(100 + seed)
    columns = binary_columns(seed, num_rows)
    label = np.round(rng.exponential(10, num_rows), seed % 2)
    prediction = np.round(label * rng.random(num_rows) + 3 * rng.random(num_rows), 1)
    return TaskColumns(label, prediction, columns.weight, columns.group, columns.cluster)


def _present(columns: TaskColumns) -> TaskColumns:
    keep = columns.weight > 0
    return TaskColumns(
        *(getattr(columns, f)[keep] for f in ("label", "prediction", "weight", "group", "cluster"))
    )


def _entropy(rate: float) -> float:
    return -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)


def _ece(c: TaskColumns) -> float:
    total = c.weight.sum()
    gaps = [0.0] * NUM_BINS
    for label, prediction, weight in zip(c.label, c.prediction, c.weight, strict=True):
        below = c.weight[c.prediction < prediction].sum()
        tied = c.weight[c.prediction == prediction].sum()
        gaps[int(NUM_BINS * (below + tied / 2) / total)] += weight * (label - prediction)
    return sum(abs(gap) for gap in gaps) / total


def _gauc(c: TaskColumns) -> float:
    total = weights = 0.0
    for group in np.unique(c.group):
        rows = c.group == group
        if len(set(c.label[rows])) == 2:
            auc = sk.roc_auc_score(c.label[rows], c.prediction[rows], sample_weight=c.weight[rows])
            total += auc * c.weight[rows].sum()
            weights += c.weight[rows].sum()
    return total / weights


def _ndcg(c: TaskColumns) -> float:
    values, weights = [], []
    for group in np.unique(c.group):
        rows = c.group == group
        if c.label[rows].max() > 0 and rows.sum() > 1:
            values.append(sk.ndcg_score([c.label[rows]], [c.prediction[rows]]))
            weights.append(c.weight[rows].mean())
    return float(np.average(values, weights=weights))


def _xauc(c: TaskColumns) -> float:
    concordant = pairs = 0.0
    for i in range(len(c)):
        higher = c.label > c.label[i]
        wins = (c.prediction > c.prediction[i]) + 0.5 * (c.prediction == c.prediction[i])
        concordant += c.weight[i] * (c.weight * wins)[higher].sum()
        pairs += c.weight[i] * c.weight[higher].sum()
    return concordant / pairs


def _spearman(c: TaskColumns) -> float:
    def midranks(x: np.ndarray) -> np.ndarray:
        return np.array([c.weight[x < v].sum() + 0.5 * c.weight[x == v].sum() for v in x])

    covariance = np.cov(midranks(c.label), midranks(c.prediction), aweights=c.weight)
    return float(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]))


REFERENCES: dict[str, Reference] = {
    "auc": lambda c: sk.roc_auc_score(c.label, c.prediction, sample_weight=c.weight),
    "pr_auc": lambda c: sk.average_precision_score(c.label, c.prediction, sample_weight=c.weight),
    "log_loss": lambda c: sk.log_loss(c.label, c.prediction, sample_weight=c.weight),
    "normalized_entropy": lambda c: (
        sk.log_loss(c.label, c.prediction, sample_weight=c.weight)
        / _entropy(np.average(c.label, weights=c.weight))
    ),
    "calibration": lambda c: (c.weight @ c.prediction) / (c.weight @ c.label),
    "ece": _ece,
    "mae": lambda c: sk.mean_absolute_error(c.label, c.prediction, sample_weight=c.weight),
    "rmse": lambda c: math.sqrt(
        sk.mean_squared_error(c.label, c.prediction, sample_weight=c.weight)
    ),
    "spearman": _spearman,
    "xauc": _xauc,
    "gauc": _gauc,
    "ndcg": _ndcg,
}

CASES = [
    (name, kind, seed)
    for name, metric in METRICS.items()
    for kind in ("binary", "duration")
    if kind in metric.kinds
    for seed in SEEDS
]


def columns_of(kind: str, seed: int) -> TaskColumns:
    return binary_columns(seed) if kind == "binary" else real_columns(seed)


def test_every_declared_metric_has_a_definition_and_a_reference() -> None:
    assert set(METRICS) == set(FAMILY_OF_METRIC) == set(REFERENCES)


@pytest.mark.parametrize(("name", "kind", "seed"), CASES)
def test_value_equals_the_reference(name: str, kind: str, seed: int) -> None:
    columns = columns_of(kind, seed)
    expected = REFERENCES[name](_present(columns))
    assert compute([name], columns)[name] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_spearman_without_weights_equals_scipy(seed: int) -> None:
    columns = real_columns(seed)
    columns = TaskColumns(
        columns.label, columns.prediction, np.ones(len(columns)), columns.group, columns.cluster
    )
    expected = stats.spearmanr(columns.label, columns.prediction).statistic
    assert compute(["spearman"], columns)["spearman"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_xauc_of_binary_labels_is_auc(seed: int) -> None:
    columns = binary_columns(seed)
    values = compute(["auc", "xauc"], columns)
    assert values["xauc"] == pytest.approx(values["auc"], abs=1e-12)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5, 8, 17, 64, 65])
def test_xauc_holds_for_any_number_of_rows(num_rows: int) -> None:
    columns = real_columns(seed=1, num_rows=num_rows)
    columns = TaskColumns(
        columns.label, columns.prediction, np.ones(num_rows), columns.group, columns.cluster
    )
    value = compute(["xauc"], columns)["xauc"]
    if len(set(columns.label)) < 2:
        assert math.isnan(value)
    else:
        assert value == pytest.approx(_xauc(columns), abs=1e-12)


@pytest.mark.parametrize(("name", "kind", "seed"), [c for c in CASES if c[2] < 2])
def test_a_row_of_weight_zero_is_absent(name: str, kind: str, seed: int) -> None:
    columns = columns_of(kind, seed)
    assert (columns.weight == 0).any()
    assert compute([name], columns) == compute([name], _present(columns))


@pytest.mark.parametrize(("name", "kind", "seed"), [c for c in CASES if c[2] < 2])
def test_row_order_does_not_change_a_bit(name: str, kind: str, seed: int) -> None:
    columns = columns_of(kind, seed)
    order = np.random.default_rng(seed).permutation(len(columns))
    shuffled = TaskColumns(
        *(getattr(columns, f)[order] for f in ("label", "prediction", "weight", "group", "cluster"))
    )
    a = resample([name], columns, num_replicates=20, seed=1)
    b = resample([name], shuffled, num_replicates=20, seed=1)
    assert a.values == b.values
    assert np.array_equal(a.replicates[name], b.replicates[name])


def test_keys_may_be_bytes_or_numbers() -> None:
    columns = binary_columns(0)
    as_bytes = TaskColumns(
        columns.label,
        columns.prediction,
        columns.weight,
        np.array([b"slate-%03d" % g for g in columns.group], object),
        np.array([b"user-%03d" % u for u in columns.cluster], object),
    )
    names = ["gauc", "ndcg", "auc"]
    numbers = resample(names, columns, num_replicates=10, seed=2)
    keys = resample(names, as_bytes, num_replicates=10, seed=2)
    assert numbers.values == keys.values
    assert all(np.array_equal(numbers.replicates[n], keys.replicates[n]) for n in names)


def _columns(label: list[float], prediction: list[float]) -> TaskColumns:
    n = len(label)
    return TaskColumns(
        np.array(label), np.array(prediction), np.ones(n), np.zeros(n, int), np.arange(n)
    )


@pytest.mark.parametrize("name", METRICS)
def test_no_rows_give_nan(name: str) -> None:
    assert math.isnan(compute([name], _columns([], []))[name])


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("name", ["auc", "pr_auc", "gauc", "normalized_entropy", "xauc"])
def test_one_class_gives_nan(name: str, label: float) -> None:
    assert math.isnan(compute([name], _columns([label] * 4, [0.1, 0.2, 0.3, 0.4]))[name])


@pytest.mark.parametrize("name", ["calibration", "ndcg"])
def test_no_positive_gives_nan(name: str) -> None:
    assert math.isnan(compute([name], _columns([0.0] * 3, [0.1, 0.2, 0.3]))[name])


def test_constant_predictions_have_no_rank_correlation() -> None:
    assert math.isnan(compute(["spearman"], _columns([1.0, 2.0, 3.0], [5.0] * 3))["spearman"])


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_prediction_that_is_not_finite_gives_nan(name: str, bad: float) -> None:
    assert math.isnan(compute([name], _columns([0.0, 1.0, 1.0], [0.1, bad, 0.3]))[name])


def test_a_negative_label_has_no_ndcg() -> None:
    assert math.isnan(compute(["ndcg"], _columns([-1.0, 1.0], [0.1, 0.2]))["ndcg"])


def test_certain_and_wrong_costs_a_finite_loss() -> None:
    loss = compute(["log_loss"], _columns([1.0, 0.0], [0.0, 1.0]))["log_loss"]
    assert loss == pytest.approx(-math.log(np.finfo(np.float32).eps), rel=1e-6)


def test_skipped_groups_are_counted() -> None:
    columns = TaskColumns(
        label=np.array([0, 1, 0, 0, 1, 1, 1.0]),
        prediction=np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        weight=np.ones(7),
        # One group of each class alone, and one of a single row.
        group=np.array([0, 0, 1, 1, 2, 2, 3]),
        cluster=np.arange(7),
    )
    tallies = resample(["gauc", "ndcg"], columns, num_replicates=0, seed=0).tallies
    assert tallies == {
        "gauc_num_groups": 1,
        "gauc_num_groups_skipped": 3,
        "ndcg_num_groups": 2,
        "ndcg_num_groups_skipped": 2,
    }


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'gauc'"):
        compute(["guac"], binary_columns(0))


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="do not fit together"):
        TaskColumns(np.zeros(2), np.zeros(3), np.zeros(2), np.zeros(2), np.zeros(2))


@pytest.mark.parametrize("weight", [-1.0, math.nan])
def test_bad_weights_are_refused(weight: float) -> None:
    with pytest.raises(DataError, match="negative or not finite"):
        TaskColumns(np.zeros(1), np.zeros(1), np.array([weight]), np.zeros(1), np.zeros(1))


def test_the_metrics_import_no_tensorflow() -> None:
    code = "import models.metrics.estimation, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
