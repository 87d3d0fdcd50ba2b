"""Losses against closed forms in NumPy, and against what their minimisers must be."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import tensorflow as tf

from models.losses.abstract import Loss, TargetStatistics
from models.losses.registry import LOSSES, build_loss
from models.spec.task import LOSSES_BY_KIND, Task
from models.spec.task import Loss as LossConfig

CONFIGS = {
    get_args(c.model_fields["kind"].annotation)[0]: c for c in get_args(get_args(LossConfig)[0])
}
SETTINGS: dict[str, dict[str, Any]] = {"quantile": {"quantile": 0.8}, "huber": {"delta": 2.0}}
BINARY = ("binary_cross_entropy", "inverse_propensity", "doubly_robust", "fake_negative_weighted")
every_loss = pytest.mark.parametrize("kind", sorted(LOSSES))


def build(kind: str, statistics: TargetStatistics | None = None) -> Loss:
    config = CONFIGS[kind].model_validate({"kind": kind} | SETTINGS.get(kind, {}))
    return LOSSES[kind](config, statistics)


def labels_for(kind: str, num_rows: int = 50) -> np.ndarray:
    rng = np.random.default_rng(0)
    if kind in BINARY:
        return rng.integers(0, 2, num_rows).astype(np.float64)
    if kind == "poisson":
        return rng.poisson(2.0, num_rows).astype(np.float64)
    if kind in ("mse", "huber"):
        return rng.normal(3.0, 5.0, num_rows)
    return np.where(rng.random(num_rows) < 0.4, 0.0, np.exp(rng.normal(2, 1, num_rows)))


def outputs_for(kind: str, num_rows: int = 50) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(num_rows, build(kind).units))


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def closed_form(kind: str, z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loss per row and prediction, in float64."""
    if kind == "fake_negative_weighted":
        p = sigmoid(z[:, 0])
        return -(1 + p) * y * np.log(p) - (1 - p) * (1 + p) * (1 - y) * np.log(1 - p), p
    if kind in BINARY:
        p = sigmoid(z[:, 0])
        return -y * np.log(p) - (1 - y) * np.log(1 - p), p
    if kind == "log_mse":
        return (z[:, 0] - np.log1p(y)) ** 2, np.maximum(np.expm1(z[:, 0]), 0)
    if kind == "quantile":
        u = np.log1p(y) - z[:, 0]
        return np.where(u > 0, 0.8 * u, -0.2 * u), np.maximum(np.expm1(z[:, 0]), 0)
    if kind == "mse":
        return (z[:, 0] - y) ** 2, z[:, 0]
    if kind == "huber":
        e = np.abs(z[:, 0] - y)
        return np.where(e <= 2, e**2 / 2, 2 * (e - 1)), z[:, 0]
    if kind == "poisson":
        return np.exp(z[:, 0]) - y * z[:, 0], np.exp(z[:, 0])
    assert kind == "zero_inflated_log_normal"
    p, mu, sigma = sigmoid(z[:, 0]), z[:, 1], np.log1p(np.exp(z[:, 2])) + 0.01
    positive = np.where(y > 0, y, 1.0)
    density = np.exp(-((np.log(positive) - mu) ** 2) / (2 * sigma**2)) / (
        positive * sigma * np.sqrt(2 * np.pi)
    )
    return -np.log(np.where(y > 0, p * density, 1 - p)), p * np.exp(mu + sigma**2 / 2)


def test_registry_is_the_union_of_the_specification() -> None:
    assert set(LOSSES) == set(CONFIGS)
    assert {c for kinds in LOSSES_BY_KIND.values() for c in kinds} == set(CONFIGS.values())


@every_loss
def test_closed_form(kind: str) -> None:
    loss, z, y = build(kind), outputs_for(kind), labels_for(kind)
    rows, prediction = closed_form(kind, z, y)
    outputs = tf.constant(z, tf.float32)
    np.testing.assert_allclose(loss.per_row(outputs, tf.constant(y, tf.float32)), rows, rtol=2e-4)
    np.testing.assert_allclose(loss.prediction(outputs), prediction, rtol=2e-5, atol=1e-6)


@every_loss
def test_finite_at_extremes(kind: str) -> None:
    loss = build(kind)
    extreme = np.array([-1e6, -200.0, -1.0, 0.0, 1.0, 200.0, 1e6])
    outputs = tf.constant(np.repeat(extreme[:, None], loss.units, axis=1), tf.float32)
    top = 1.0 if kind in BINARY else 1e9
    for value in (0.0, 1.0, top):
        labels = tf.fill([7], tf.constant(value, tf.float32))
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            rows = loss.per_row(outputs, labels)
        assert np.isfinite(rows).all()
        assert np.isfinite(tape.gradient(rows, outputs)).all()
    assert np.isfinite(loss.prediction(outputs)).all()


@every_loss
def test_initial_bias_beats_zero_and_ignores_masked_rows(kind: str) -> None:
    y = labels_for(kind, 400)
    weights = np.where(np.arange(400) % 4 == 0, 0.0, 1.0)
    loss = build(kind, TargetStatistics.of(y, weights))
    bias = loss.initial_bias(y, weights)
    spoiled = np.where(weights > 0, y, 1e9)
    assert loss.initial_bias(spoiled, weights) == bias
    assert TargetStatistics.of(spoiled, weights) == loss.statistics
    assert len(bias) == loss.units

    def mean_loss(constant: list[float]) -> float:
        rows = loss.per_row(tf.fill([400, loss.units], 0.0) + constant, tf.constant(y, tf.float32))
        return float(np.average(rows, weights=weights))

    assert mean_loss(bias) <= mean_loss([0.0] * loss.units) + 1e-6


@every_loss
def test_no_rows(kind: str) -> None:
    loss = build(kind, TargetStatistics.of(np.ones(3), np.zeros(3)))
    assert np.isfinite(loss.initial_bias(np.ones(3), np.zeros(3))).all()
    assert loss.statistics == TargetStatistics()


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_quantile_is_what_the_pinball_loss_is_least_at(quantile: float) -> None:
    config = CONFIGS["quantile"].model_validate({"kind": "quantile", "quantile": quantile})
    y = np.exp(np.random.default_rng(0).normal(2, 1, 2001))
    loss = LOSSES["quantile"](config)
    grid = np.linspace(0, 6, 1201)
    means = [
        float(
            tf.reduce_mean(loss.per_row(tf.fill([2001, 1], float(z)), tf.constant(y, tf.float32)))
        )
        for z in grid
    ]
    best = tf.constant([[grid[int(np.argmin(means))]]], tf.float32)
    assert float(loss.prediction(best)[0]) == pytest.approx(np.quantile(y, quantile), rel=0.02)
    (bias,) = loss.initial_bias(y, np.ones(2001))
    assert np.expm1(bias) == pytest.approx(np.quantile(y, quantile), rel=0.01)


def test_zero_inflated_log_normal_serves_the_mean_of_its_samples() -> None:
    rng = np.random.default_rng(0)
    p, mu, sigma = 0.3, 1.5, 0.8
    samples = np.where(rng.random(400_000) < p, np.exp(rng.normal(mu, sigma, 400_000)), 0.0)
    z = tf.constant([[np.log(p / (1 - p)), mu, np.log(np.expm1(sigma - 0.01))]], tf.float32)
    served = float(build("zero_inflated_log_normal").prediction(z)[0])
    assert served == pytest.approx(samples.mean(), rel=0.02)


def test_predictions_stay_below_the_largest_train_label() -> None:
    y = np.array([0.0, 3.0, 70.0])
    for kind in ("log_mse", "quantile", "poisson", "zero_inflated_log_normal"):
        loss = build(kind, TargetStatistics.of(y, np.ones(3)))
        assert float(loss.prediction(tf.fill([1, loss.units], 9.0))[0]) == pytest.approx(70.0)


@pytest.mark.parametrize("kind", ["mse", "huber"])
def test_scaling_changes_units_and_not_the_optimum(kind: str) -> None:
    y = labels_for(kind) * 1e5
    statistics = TargetStatistics.of(y, np.ones(len(y)))
    assert statistics.scale == pytest.approx(y.std())
    scaled, plain = build(kind, statistics), build(kind)
    z = outputs_for(kind)
    natural = tf.constant(z * statistics.scale, tf.float32)
    labels = tf.constant(y, tf.float32)
    np.testing.assert_allclose(
        scaled.prediction(tf.constant(z, tf.float32)), natural[:, 0], rtol=1e-5
    )
    np.testing.assert_allclose(
        scaled.per_row(tf.constant(z, tf.float32), labels) * statistics.scale**2,
        plain.per_row(natural, labels),
        rtol=1e-3,
    )


def test_build_loss_takes_the_declared_or_the_default_loss() -> None:
    gates = {"mae": {"max": 1.0}}
    declared = {"kind": "duration", "target": "t", "gates": gates}
    ones = np.ones(2)
    assert type(build_loss(Task.model_validate(declared), ones, ones)) is LOSSES["log_mse"]
    declared["loss"] = {"kind": "huber", "delta": 3.0}
    built = build_loss(Task.model_validate(declared), ones, ones)
    assert type(built) is LOSSES["huber"] and built.config.delta == 3.0
