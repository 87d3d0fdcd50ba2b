"""Resampling by cluster: replicates against copied rows, intervals on known cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.metrics import estimation
from models.metrics.columns import Rows, TaskColumns
from models.metrics.estimation import bootstrap, compute, paired_bootstrap, resample
from models.spec.errors import DataError
from models.spec.metric import METRICS

FIELDS = ("label", "prediction", "weight", "group", "cluster")
NUM_REPLICATES = 12
SEED = 7


def make_columns(
    seed: int, num_users: int = 15, num_rows: int = 150, binary: bool = True
) -> TaskColumns:
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, num_users, num_rows)
    prediction = np.round(rng.random(num_rows), 1) * 0.8 + 0.1
    label = (rng.random(num_rows) < prediction).astype(float)
    if not binary:
        label = np.round(rng.exponential(10 * prediction), 1)
    return TaskColumns(
        label=label,
        prediction=prediction,
        weight=rng.random(num_rows) * (rng.random(num_rows) < 0.9),
        group=cluster * 4 + rng.integers(0, 4, num_rows),
        cluster=cluster,
    )


def take(columns: TaskColumns, index: np.ndarray, **changed: np.ndarray) -> TaskColumns:
    return TaskColumns(**{f: getattr(columns, f)[index] for f in FIELDS} | changed)


def copies(columns: TaskColumns, cluster: np.ndarray, counts: np.ndarray) -> TaskColumns:
    """Writes a resample out: every copy of a cluster as a cluster with groups of its own."""
    index, copy = [], []
    for code, count in enumerate(counts):
        rows = np.flatnonzero(cluster == code)
        index.append(np.tile(rows, int(count)))
        copy.append(np.repeat(np.arange(int(count)), len(rows)))
    rows, number = np.concatenate(index), np.concatenate(copy)
    return take(columns, rows, group=columns.group[rows] * 1000 + number)


def written_out(columns: TaskColumns, unit_field: str) -> list[TaskColumns]:
    """The resamples that `resample` draws, as rows."""
    rows = Rows.of(columns)
    present = TaskColumns(rows.label, rows.prediction, rows.weight, rows.group, rows.cluster)
    unit = getattr(rows, unit_field)
    (draws,) = estimation._draws(int(unit.max()) + 1, NUM_REPLICATES, NUM_REPLICATES, SEED)
    return [copies(present, unit, counts) for counts in draws.T]


CASES = [
    (name, binary)
    for name, metric in METRICS.items()
    for binary in (True, False)
    if ("binary" if binary else "duration") in metric.kinds and name not in ("xauc", "ece")
]


@pytest.mark.parametrize(("name", "binary"), CASES)
def test_a_replicate_is_the_metric_of_the_copied_rows(name: str, binary: bool) -> None:
    columns = make_columns(3, binary=binary)
    replicates = resample([name], columns, num_replicates=NUM_REPLICATES, seed=SEED).replicates
    expected = [compute([name], c)[name] for c in written_out(columns, "cluster")]
    np.testing.assert_allclose(replicates[name], expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["gauc", "ndcg"])
def test_clusters_that_share_a_group_are_resampled_as_one(name: str) -> None:
    columns = make_columns(4, num_users=30, num_rows=200)
    slates = take(columns, np.arange(len(columns)), group=columns.cluster, cluster=columns.group)
    rows = Rows.of(slates)
    assert rows.cluster.max() > rows.whole_cluster.max()
    np.testing.assert_array_equal(rows.whole_cluster, rows.group)
    replicates = resample([name], slates, num_replicates=NUM_REPLICATES, seed=SEED).replicates
    expected = [compute([name], c)[name] for c in written_out(slates, "whole_cluster")]
    np.testing.assert_allclose(replicates[name], expected, rtol=1e-9)


def test_a_chain_of_shared_groups_becomes_one_cluster() -> None:
    n = 50
    link = np.arange(n)
    columns = TaskColumns(
        label=np.zeros(2 * n),
        prediction=np.zeros(2 * n),
        weight=np.ones(2 * n),
        group=np.concatenate([link, link]),
        cluster=np.concatenate([link[::-1], link[::-1] + 1]),
    )
    assert Rows.of(columns).whole_cluster.max() == 0


def test_ece_replicates_keep_the_bins_of_the_sample() -> None:
    rng = np.random.default_rng(5)
    # 128 rows: no row's share of the weight falls on the edge between two bins.
    columns = make_columns(5, num_rows=128)
    columns = take(
        columns, np.arange(128), weight=np.ones(128), prediction=rng.permutation(128) / 128
    )
    replicates = resample(["ece"], columns, num_replicates=NUM_REPLICATES, seed=SEED).replicates
    for value, rows in zip(replicates["ece"], written_out(columns, "cluster"), strict=True):
        bins = np.floor(20 * (rows.prediction * 128 + 0.5) / 128)
        gaps = [(rows.label - rows.prediction)[bins == b].sum() for b in range(20)]
        assert value == pytest.approx(np.abs(gaps).sum() / len(rows), rel=1e-9)


def test_the_interval_of_ece_lies_around_its_value() -> None:
    rng = np.random.default_rng(6)
    prediction = rng.random(4000)
    label = (rng.random(4000) < prediction).astype(float)
    user = np.arange(4000) // 8
    columns = TaskColumns(label, prediction, np.ones(4000), user, user)
    resampled = resample(["ece"], columns, num_replicates=200, seed=SEED)
    assert resampled.replicates["ece"].mean() > 1.2 * resampled.values["ece"]
    interval = resampled.intervals()["ece"]
    assert 0 < interval.low < interval.value < interval.high


def test_the_interval_of_ece_does_not_fall_below_zero() -> None:
    prediction = np.full(40, 0.5)
    label = (np.arange(40) % 2).astype(float)
    columns = TaskColumns(label, prediction, np.ones(40), np.zeros(40), np.arange(40))
    interval = bootstrap(["ece"], columns, seed=SEED)["ece"]
    assert (interval.value, interval.low) == (0, 0)
    assert interval.high > 0


def test_xauc_replicates_follow_the_copied_rows() -> None:
    columns = make_columns(8, num_users=200, num_rows=600, binary=False)
    replicates = resample(["xauc"], columns, num_replicates=NUM_REPLICATES, seed=SEED).replicates
    exact = np.array([compute(["xauc"], c)["xauc"] for c in written_out(columns, "cluster")])
    assert np.corrcoef(replicates["xauc"], exact)[0, 1] > 0.99
    assert replicates["xauc"].std() == pytest.approx(exact.std(), rel=0.1)
    np.testing.assert_allclose(replicates["xauc"], exact, atol=0.5 * exact.std())


def test_replicates_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["auc", "gauc", "spearman"]
    columns = make_columns(9)
    whole = resample(names, columns, num_replicates=NUM_REPLICATES, seed=SEED).replicates
    monkeypatch.setattr(estimation, "_ELEMENTS_PER_BLOCK", 5 * 150)
    cut = resample(names, columns, num_replicates=NUM_REPLICATES, seed=SEED).replicates
    for name in names:
        np.testing.assert_allclose(cut[name], whole[name], rtol=1e-12)


def test_the_seed_decides_the_draws() -> None:
    columns = make_columns(10)
    assert bootstrap(["auc"], columns, seed=1) == bootstrap(["auc"], columns, seed=1)
    assert bootstrap(["auc"], columns, seed=1) != bootstrap(["auc"], columns, seed=2)


@pytest.mark.parametrize("name", ["auc", "log_loss", "mae", "xauc"])
def test_intervals_by_user_are_wider_than_by_row_when_users_differ(name: str) -> None:
    rng = np.random.default_rng(11)
    user = np.repeat(np.arange(100), 30)
    taste = rng.normal(0, 2, 100)[user]
    prediction = 1 / (1 + np.exp(-rng.normal(1 + taste / 2, 1)))
    label = (taste + rng.normal(0, 1, len(user)) > 0).astype(float)
    by_user = TaskColumns(label, prediction, np.ones(len(user)), user, user)
    by_row = take(by_user, np.arange(len(user)), cluster=np.arange(len(user)))
    wide = bootstrap([name], by_user, seed=SEED)[name]
    narrow = bootstrap([name], by_row, seed=SEED)[name]
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    assert wide.value == pytest.approx(narrow.value)


def test_intervals_by_user_cover_the_truth_and_by_row_do_not() -> None:
    rng = np.random.default_rng(12)
    user = np.repeat(np.arange(80), 20)
    covered_by_user = covered_by_row = 0
    for _ in range(100):
        # The error of a row is that of its user plus noise; its mean over users is exactly 2.
        error = 2 + rng.normal(0, 0.3, 80)[user] + rng.normal(0, 0.3, len(user))
        columns = TaskColumns(np.zeros(len(user)), error, np.ones(len(user)), user, user)
        by_row = take(columns, np.arange(len(user)), cluster=np.arange(len(user)))
        interval = bootstrap(["mae"], columns, 100, seed=SEED)["mae"]
        covered_by_user += interval.low <= 2 <= interval.high
        interval = bootstrap(["mae"], by_row, 100, seed=SEED)["mae"]
        covered_by_row += interval.low <= 2 <= interval.high
    assert 85 <= covered_by_user <= 99
    assert covered_by_row < 70


def test_one_cluster_has_no_interval() -> None:
    columns = make_columns(13, num_users=1)
    interval = bootstrap(["auc"], columns, seed=SEED)["auc"]
    assert 0 < interval.value < 1
    assert math.isnan(interval.low) and math.isnan(interval.high)


def test_a_metric_that_most_resamples_leave_undefined_has_no_interval() -> None:
    columns = TaskColumns(
        label=np.array([1.0, 0, 0, 0, 0]),
        prediction=np.array([0.9, 0.5, 0.4, 0.3, 0.2]),
        weight=np.ones(5),
        group=np.zeros(5),
        cluster=np.arange(5),
    )
    interval = bootstrap(["auc"], columns, seed=SEED)["auc"]
    assert interval.value == 1.0
    assert math.isnan(interval.low)


@pytest.mark.parametrize("name", METRICS)
def test_no_rows_have_neither_value_nor_interval(name: str) -> None:
    columns = take(make_columns(14), np.arange(0))
    interval = bootstrap([name], columns, seed=SEED)[name]
    assert math.isnan(interval.value) and math.isnan(interval.low) and math.isnan(interval.high)


def test_paired_differences_use_the_same_draws() -> None:
    names = ["auc", "gauc", "log_loss", "ece"]
    a = make_columns(15, num_users=40, num_rows=600)
    noise = np.random.default_rng(15).normal(0, 0.02, len(a))
    b = take(a, np.arange(len(a)), prediction=a.prediction + noise)
    pairs = paired_bootstrap(names, a, b, seed=SEED)
    alone_a, alone_b = (resample(names, c, num_replicates=200, seed=SEED) for c in (a, b))
    for name in names:
        difference = alone_b.values[name] - alone_a.values[name]
        assert pairs[name].value == pytest.approx(difference)
        spread = alone_b.intervals()[name].high - alone_b.intervals()[name].low
        if name != "ece":  # each model has bins of its own, whose noise does not cancel
            assert 0 < pairs[name].high - pairs[name].low < 0.7 * spread
    replicates = alone_b.replicates["auc"] - alone_a.replicates["auc"]
    assert pairs["auc"].low == pytest.approx(np.quantile(replicates, 0.025))


def test_a_model_does_not_differ_from_itself() -> None:
    columns = make_columns(16)
    for interval in paired_bootstrap(["auc", "ndcg"], columns, columns, seed=SEED).values():
        assert (interval.value, interval.low, interval.high) == (0, 0, 0)


def test_models_on_different_rows_are_not_compared() -> None:
    columns = make_columns(17)
    with pytest.raises(DataError, match="differ in column 'label'"):
        paired_bootstrap(["auc"], columns, take(columns, np.arange(len(columns))[::-1]), seed=SEED)
