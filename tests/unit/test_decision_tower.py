"""The tower of decision columns takes a bias over from the ranker, and is left behind."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from models.decision_tower import DecisionTower, mean_preserving_offset
from simulator.simulate import SimulationConfig, simulate

numbers = st.floats(-8, 8)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(rows=st.lists(st.tuples(numbers, numbers, st.floats(0, 3)), min_size=1, max_size=30))
def test_the_offset_keeps_the_mean_probability(rows: list[tuple[float, float, float]]) -> None:
    main, tower, weights = np.array(rows).T
    offset = mean_preserving_offset(main, tower, weights)
    if not weights.sum():
        assert offset == 0.0
        return
    served = np.average(expit(main + offset), weights=weights)
    assert served == pytest.approx(np.average(expit(main + tower), weights=weights), abs=1e-9)


def test_a_new_tower_adds_next_to_nothing_and_touches_binary_tasks_only() -> None:
    tower = DecisionTower(["click"], units=(4,), seed=3)
    assert np.abs(tower(tf.ones([5, 2]))["click"].numpy()).max() < 0.02
    tower.settle({"click": (np.zeros(3), np.full(3, 2.0), np.ones(3))})
    served = tower.served({"click": tf.zeros([2, 1]), "watch": tf.zeros([2, 3])})
    np.testing.assert_allclose(served["click"], np.full((2, 1), 2.0), rtol=1e-6)
    assert not served["watch"].numpy().any()


# Against the simulator's truth -----------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """Impressions ordered by a ranker that believes nonsense, with clicks and their truth."""
    logs = tmp_path_factory.mktemp("logs")
    config = SimulationConfig(
        impressions=60_000, seed=4, num_items=40, position_belief=2.0,
        malformed_rate=0, duplicate_rate=0, orphan_rate=0, late_rate=0,
    )  # fmt: skip
    simulate(config, logs)
    keys = ["request_id", "item_id"]
    impressions = pl.read_parquet(f"{logs}/impressions/*/*.parquet", columns=[*keys, "position"])
    truth = pl.read_parquet(logs / "_truth" / "truth.parquet")
    return impressions.join(truth, on=keys, how="inner", maintain_order="left")


def _click_by_item(shown: pl.DataFrame, *, with_tower: bool) -> np.ndarray:
    """Fits a logit per item to the clicks; returns the probability that is served, [items]."""
    item = shown["item_id"].cast(pl.Categorical).to_physical().to_numpy().astype(np.int64)
    clicked = shown["clicked"].cast(pl.Float32).to_numpy()
    places = tf.one_hot(shown["position"].to_numpy(), int(shown["position"].max()) + 1)
    main = tf.Variable(tf.fill([item.max() + 1], tf.constant(-2.0)))
    tower = DecisionTower(["click"], units=(16,), seed=1)
    tower(places[:1])
    variables = [main, *(tower.trainable_variables if with_tower else [])]
    optimizer = tf.keras.optimizers.legacy.Adam(0.03)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            logits = tf.gather(main, item)
            if with_tower:
                logits += tower(places)["click"]
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(clicked, logits))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for _ in range(250):
        step()
    if with_tower:
        added = tower(places)["click"].numpy()
        tower.settle({"click": (main.numpy()[item], added, np.ones(len(item)))})
    served = tower.served({"click": main[:, tf.newaxis]})["click"]
    return expit(served.numpy()[:, 0].astype(np.float64))


def _spread(values: np.ndarray, weights: np.ndarray) -> float:
    mean = np.average(values, weights=weights)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))


@pytest.mark.slow
def test_items_are_worth_the_same_wherever_they_were_shown(shown: pl.DataFrame) -> None:
    item = shown["item_id"].cast(pl.Categorical).to_physical().to_numpy()
    rows = np.bincount(item)
    truth = logit(np.bincount(item, shown["click_probability"]) / rows)
    position = np.bincount(item, shown["position"]) / rows
    found = {
        with_tower: _click_by_item(shown, with_tower=with_tower) for with_tower in (False, True)
    }
    errors = {k: logit(p) - truth for k, p in found.items()}
    clicks = np.bincount(item, shown["clicked"])
    slope = {k: float(np.polyfit(position, e, 1, w=clicks**0.5)[0]) for k, e in errors.items()}
    spread = {k: _spread(e, clicks) for k, e in errors.items()}
    # Chance alone leaves 1 / sqrt(clicks of an item) on a logit.
    chance = float(np.sqrt(len(clicks) / clicks.sum()))
    print(f"slopes {slope}, spreads {spread}, chance {chance:.4f}")
    # Without the tower, items shown low are taken for bad ones.
    assert slope[False] < -0.04
    assert abs(slope[True]) < 0.2 * abs(slope[False])
    assert spread[False] > 1.5 * chance
    assert spread[True] < 1.2 * chance
    # And the served probabilities still add up to the clicks there were.
    assert np.average(found[True], weights=rows) == pytest.approx(shown["clicked"].mean(), rel=1e-3)


def test_beliefs_order_slates_and_leave_the_rest_alone(shown: pl.DataFrame, tmp_path: Path) -> None:
    by_item = shown.group_by("item_id").agg(pl.col("position").mean())["position"]
    assert by_item.std() > 1.5
    assert (
        shown.group_by("request_id")
        .agg((pl.col("position").sort() == pl.int_range(pl.len())).all())["position"]
        .all()
    )
