"""Labels that arrive late: how they fill in, and learning from them without waiting."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import polars as pl
import pytest
import tensorflow as tf

from components.leakage_gate.raw_world import ROW, RawWorld
from components.leakage_gate.recomputed_labels import label_query
from components.log_example_gen.build import BuiltExamples, build_examples, read_logs
from components.log_example_gen.spec import DatasetSpec
from models.losses.fake_negative_weighted import FakeNegativeWeightedLoss
from models.spec.errors import ConfigError
from models.spec.task import FakeNegativeWeighted
from pipeline.load import load_config
from pipeline.plan import make_dataset
from simulator.behaviour import CONVERSION_DELAY
from simulator.simulate import SimulationConfig, simulate
from simulator.time_units import HOUR_MS

CONFIG = Path(__file__).resolve().parents[2] / "examples" / "simulated" / "config.yaml"
AS_THEY_ARRIVE = [
    "tasks.conversion={kind: binary, target: converted, immature: fake_negative, "
    "gates: {auc: {min: 0.5}}}",
    # An early look at conversions, as a team that retrains daily takes it.
    "splits={validation: 1d, test: 1d}",
]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    config = SimulationConfig(impressions=80_000, seed=6, malformed_rate=0, late_rate=0)
    simulate(config, folder)
    return folder


@pytest.fixture(scope="module")
def built(logs: Path) -> tuple[DatasetSpec, BuiltExamples]:
    config = load_config(CONFIG, [f"logs.root={logs}", "features={}", *AS_THEY_ARRIVE])
    spec = make_dataset(config, None)
    return spec, build_examples(spec, read_logs(spec))


# Maturity --------------------------------------------------------------------------------------


def test_the_curve_is_that_of_the_simulated_delays(
    built: tuple[DatasetSpec, BuiltExamples],
) -> None:
    found = built[1].accounts["maturity"]["conversion"]
    assert found["window_ms"] == 48 * HOUR_MS
    ages = np.array([each["age_ms"] for each in found["ages"]])
    known = np.array([each["known"] for each in found["ages"]])
    assert ages[-1] == 48 * HOUR_MS and len(ages) == 11 and (np.diff(known) >= 0).all()
    share = known / known[-1]
    # Conversions lag the click, which lags the impression by half a minute.
    expected = CONVERSION_DELAY.share_below(ages.astype(float))
    expected = expected / expected[-1]
    # 48 h / 2^7 is 22 minutes: from there on the click's own delay is small.
    chance = 4 * np.sqrt(0.25 / known[-1])
    assert np.abs(share - expected)[3:].max() < 0.01 + chance
    assert 0.2 < share[3] < 0.8


def test_rows_per_age_are_those_old_enough_at_the_cutoff(
    built: tuple[DatasetSpec, BuiltExamples],
) -> None:
    spec, examples = built
    times = examples.examples["train"]["impression__timestamp"].to_numpy()
    for each in examples.accounts["maturity"]["conversion"]["ages"]:
        assert each["rows"] == (times + each["age_ms"] <= spec.window.train_cutoff).sum()


# Fake negatives --------------------------------------------------------------------------------


def test_every_impression_is_a_negative_and_every_arrival_a_positive(
    logs: Path, built: tuple[DatasetSpec, BuiltExamples]
) -> None:
    spec, examples = built
    window = spec.window
    start, end = window.train_start + 48 * HOUR_MS, window.validation_start
    train = examples.examples["train"]
    label, weight = train["conversion__label"].to_numpy(), train["conversion__weight"].to_numpy()
    times = train["impression__timestamp"].to_numpy()
    events = pl.read_parquet(f"{logs}/conversions/*/*.parquet")
    conversions = events.group_by("request_id", "item_id").agg(
        pl.col("timestamp").min().alias("arrival")
    )
    keys = {"request_id": "request_id__key", "item_id": "item_id__key"}
    joined = train.join(
        conversions.rename(keys), on=list(keys.values()), how="left", maintain_order="left"
    )
    arrival = joined["arrival"].fill_null(2**62).to_numpy()
    positive = (arrival >= start) & (arrival < end) & (arrival < times + 48 * HOUR_MS)
    assert weight.sum() == (times >= start).sum() + positive.sum()
    assert np.isclose((label * weight).sum(), positive.sum())
    assert positive[times < start].any() and (arrival >= end)[times < end].any()
    test = examples.examples["test"]
    assert set(test["conversion__label"].unique()) == {0.0, 1.0}


@pytest.mark.slow
def test_the_audit_recomputes_them(built: tuple[DatasetSpec, BuiltExamples]) -> None:
    spec, examples = built
    world = RawWorld(spec)
    some = f"impression__timestamp < {spec.window.validation_start} AND {ROW} % 7 = 0"
    world.add("some__rows", world.fetch(f"SELECT {ROW} FROM impressions WHERE {some}"))
    labels = label_query(world, "some__rows")
    found = pl.DataFrame(
        world.fetch(
            "SELECT i.request_id AS request_id__key, i.item_id AS item_id__key, "
            "conversion__label AS label, conversion__mask AS mask "
            f"FROM ({labels}) JOIN impressions i USING ({ROW})"
        )
    )
    world.close()
    train = examples.examples["train"]
    joined = found.join(train, on=["request_id__key", "item_id__key"], how="inner")
    assert len(joined) == len(found) > 5000
    assert (joined["label"] == joined["conversion__label"].cast(pl.Float64)).all()
    assert (joined["mask"] == joined["conversion__mask"].cast(pl.Float64)).all()
    assert set(joined["label"].unique()) == {0.0, 0.5, 1.0}


def _learnt_rate(label: np.ndarray, weight: np.ndarray) -> float:
    """The probability that a model without features learns with the loss."""
    loss = FakeNegativeWeightedLoss(FakeNegativeWeighted())
    logit = tf.Variable(loss.initial_bias(label, weight))
    optimizer = tf.keras.optimizers.legacy.Adam(0.05)
    for _ in range(300):
        with tf.GradientTape() as tape:
            rows = loss.per_row(tf.fill([len(label), 1], logit[0]), tf.constant(label, tf.float32))
            value = tf.reduce_sum(rows * weight) / weight.sum()
        optimizer.apply_gradients([(tape.gradient(value, logit), logit)])
    return float(tf.sigmoid(logit)[0])


@pytest.mark.slow
def test_the_truth_is_learnt_from_labels_that_are_still_arriving(
    logs: Path, built: tuple[DatasetSpec, BuiltExamples]
) -> None:
    spec, examples = built
    truth = pl.read_parquet(logs / "_truth" / "truth.parquet")
    start, end = spec.window.train_start + 48 * HOUR_MS, spec.window.validation_start
    recent = truth.filter((pl.col("timestamp") >= start) & (pl.col("timestamp") < end))
    rate = float(recent["converted"].mean())
    train = examples.examples["train"].filter(pl.col("conversion__mask") == 1)
    label = train["conversion__label"].to_numpy().astype(np.float64)
    weight = train["conversion__weight"].to_numpy().astype(np.float64)
    learnt = _learnt_rate(label, weight)
    positives = (label * weight).sum()
    # What arrived by the end of the window, everything else taken for a negative.
    own = train.filter(pl.col("impression__timestamp") >= start)
    naive = float((own["conversion__label"] > 0).sum() / len(own))
    print(f"truth {rate:.5f}, weighted {learnt:.5f}, unfinished as negatives {naive:.5f}")
    error = 3 * rate / np.sqrt(positives)
    assert abs(learnt - rate) < error
    assert rate - naive > 1.5 * abs(learnt - rate)
    # Without the weights the fake negatives stay in: p / (1 + p).
    assert np.average(label, weights=weight) == pytest.approx(learnt / (1 + learnt), rel=1e-3)


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.8])
def test_the_gradient_vanishes_at_the_truth(rate: float) -> None:
    """Of 1 / (1 + p) negatives and p / (1 + p) positives."""
    loss = FakeNegativeWeightedLoss(FakeNegativeWeighted())
    logit = tf.Variable([[np.log(rate / (1 - rate))]] * 2, dtype=tf.float32)
    with tf.GradientTape() as tape:
        rows = loss.per_row(logit, tf.constant([0.0, 1.0]))
        value = rows[0] + rate * rows[1]
    assert abs(tf.reduce_sum(tape.gradient(value, logit)).numpy()) < 1e-6


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("immature: fake_negative, conditioned_on: click", "does not go with conditioned_on"),
        ("immature: fake_negative, negative_rate: 0.5", "does not go with a negative_rate"),
        ("immature: fake_negative, loss: {kind: binary_cross_entropy}", "need each other"),
        ("loss: {kind: fake_negative_weighted}", "need each other"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(task: str, expected: str) -> None:
    gates = "gates: {auc: {min: 0.5}}"
    text = f"tasks.conversion={{kind: binary, target: converted, {gates}, {task}}}"
    with pytest.raises(ConfigError, match=expected):
        load_config(CONFIG, [text])
    with pytest.raises(ConfigError, match="must join a stream"):
        load_config(CONFIG, [
            "columns.converted={type: bool, availability: future, role: target}",
            "tasks.conversion={kind: binary, target: converted, gates: {auc: {min: 0.5}}, "
            "immature: fake_negative}",
        ])  # fmt: skip
