"""Links, score fusion and slate-relative features."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.fusion import fused_score
from models.links import OBSERVED, OUTCOME, Links, LogProbabilities
from models.losses.registry import LOSSES
from models.slate_relative import slate_relative
from models.spec.feature import SlateRelation
from models.spec.ranking import RankingSpec
from models.task_loss import TaskLoss

FUTURE = {"type": "float", "availability": "future", "role": "target"}


def ranking(score: dict[str, Any] | None = None) -> RankingSpec:
    gate = {"auc": {"min": 0.5}}
    return RankingSpec.model_validate(
        {
            "user": "user",
            "item": "item",
            "columns": {
                "user": {"type": "string", "availability": "request", "role": "feature"},
                "item": {"type": "string", "availability": "request"},
                **{name: FUTURE for name in ("c", "b", "p", "w")},
            },
            "tasks": {
                "click": {"kind": "binary", "target": "c", "gates": gate},
                "basket": {
                    "kind": "binary",
                    "target": "b",
                    "conditioned_on": "click",
                    "gates": gate,
                },
                "pay": {
                    "kind": "binary",
                    "target": "p",
                    "conditioned_on": "basket",
                    "gates": gate,
                },
                "spend": {
                    "kind": "duration",
                    "target": "w",
                    "conditioned_on": "basket",
                    "loss": {"kind": "mse"},
                    "gates": {"mae": {"max": 1.0}},
                },
            },
            "score": score or {},
        }
    )


def links(spec: RankingSpec) -> Links:
    return Links(
        spec,
        {
            name: LOSSES[task.resolved_loss.model_dump()["kind"]](task.resolved_loss)
            for name, task in spec.tasks.items()
        },
    )


def heads(scale: float = 1.0, num_rows: int = 40) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(0)
    return {
        task: tf.constant(scale * rng.normal(size=(num_rows, 1)), tf.float32)
        for task in ("click", "basket", "pay", "spend")
    }


def sigmoid(z: Any) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(z, np.float64)[:, 0]))


def test_entire_space_is_the_product_along_the_chain() -> None:
    z = heads()
    outputs = {name: value.numpy() for name, value in links(ranking()).outputs(z).items()}
    click, basket, pay = (sigmoid(z[t]) for t in ("click", "basket", "pay"))
    expected = {
        "click": click,
        "basket": click * basket,
        "basket_given_click": basket,
        "pay": click * basket * pay,
        "pay_given_basket": pay,
        "spend_given_basket": np.maximum(z["spend"].numpy()[:, 0], 0),
    }
    expected["spend"] = expected["basket"] * expected["spend_given_basket"]
    assert set(outputs) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(outputs[name], values, rtol=1e-5, err_msg=name)
    assert (outputs["pay"] <= outputs["basket"]).all()
    assert (outputs["basket"] <= outputs["click"]).all()


def test_conditioned_loss_is_the_cross_entropy_of_the_product() -> None:
    z = heads()
    labels = np.arange(40) % 2
    p = sigmoid(z["click"]) * sigmoid(z["basket"]) * sigmoid(z["pay"])
    rows = links(ranking()).row_losses("pay", z, {OUTCOME: tf.constant(labels, tf.float32)})
    expected = -labels * np.log(p) - (1 - labels) * np.log(1 - p)
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 30.0, 100.0, 1e4])
def test_conditioned_loss_is_finite_where_probabilities_round_to_0_and_1(scale: float) -> None:
    z = heads(scale)
    for label in (0.0, 1.0):
        with tf.GradientTape() as tape:
            for tensor in z.values():
                tape.watch(tensor)
            rows = links(ranking()).row_losses("pay", z, {OUTCOME: tf.fill([40], label)})
        gradients = tape.gradient(rows, [z["click"], z["basket"], z["pay"]])
        assert np.isfinite(rows).all()
        assert all(np.isfinite(g).all() for g in gradients)
        assert all(np.abs(g).max() > 0 for g in gradients)


def test_gradient_where_both_ways_to_fail_are_equally_likely() -> None:
    zero = tf.constant([0.0])
    with tf.GradientTape() as tape:
        tape.watch(zero)
        # 1 - p q with p = q = 1/2: log(3/4); its derivative by either logit is -1/6.
        fails = LogProbabilities.of_logit(zero).then(LogProbabilities.of_logit(zero)).fails
    assert float(fails[0]) == pytest.approx(np.log(0.75))
    assert float(tape.gradient(fails, zero)[0]) == pytest.approx(-1 / 3)


def test_task_loss_is_a_weighted_mean() -> None:
    z = heads()
    labels = {OUTCOME: tf.constant(np.arange(40) % 2, tf.float32)}
    weights = np.random.default_rng(1).random(40) * (np.arange(40) % 3 > 0)
    loss = TaskLoss(links(ranking()), "click")(labels, z, tf.constant(weights, tf.float32))
    rows = links(ranking()).row_losses("click", z, labels).numpy()
    assert float(loss) == pytest.approx(np.average(rows, weights=weights), rel=1e-5)


def test_task_loss_without_weight_is_zero_and_so_is_its_gradient() -> None:
    z = heads()
    with tf.GradientTape() as tape:
        tape.watch(z["click"])
        labels = {OUTCOME: tf.fill([40], 1e30)}
        loss = TaskLoss(links(ranking()), "click")(labels, z, tf.zeros(40))
    assert float(loss) == 0.0
    assert not np.any(tape.gradient(loss, z["click"]))


# Counterfactual losses -------------------------------------------------------------------------


def counterfactual(kind: str, **config: Any) -> Links:
    """Links in which pay, conditioned on basket, has a counterfactual loss."""
    spec = ranking()
    pay = spec.tasks["pay"].model_dump() | {"loss": {"kind": kind} | config}
    tasks = {n: t.model_dump() for n, t in spec.tasks.items()} | {"pay": pay}
    return links(RankingSpec.model_validate(spec.model_dump() | {"tasks": tasks}))


def seen_and_paid(num_rows: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    seen = (rng.random(num_rows) < 0.4).astype(np.float64)
    return seen, seen * (rng.random(num_rows) < 0.5)


def test_counterfactual_losses_equal_their_equations() -> None:
    z = heads() | {"pay": tf.constant(np.random.default_rng(5).normal(size=(40, 2)), tf.float32)}
    seen, paid = seen_and_paid()
    labels = {OUTCOME: tf.constant(paid, tf.float32), OBSERVED: tf.constant(seen, tf.float32)}
    propensity = sigmoid(z["click"]) * sigmoid(z["basket"])
    r = sigmoid(z["pay"])
    error = -paid * np.log(r) - (1 - paid) * np.log(1 - r)
    entire = -paid * np.log(propensity * r) - (1 - paid) * np.log(1 - propensity * r)
    imputed = np.log1p(np.exp(z["pay"].numpy()[:, 1].astype(np.float64)))
    inverse = seen / np.maximum(propensity, 0.2)
    assert 0 < (propensity < 0.2).sum() < 40
    corrections = {
        "inverse_propensity": inverse * error,
        "doubly_robust": imputed + inverse * ((error - imputed) + (error - imputed) ** 2),
    }
    for kind, expected in corrections.items():
        declared = counterfactual(kind, weight=0.3, min_propensity=0.2)
        rows = declared.row_losses("pay", z, labels)
        np.testing.assert_allclose(rows, entire + 0.3 * expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["inverse_propensity", "doubly_robust"])
def test_corrections_do_not_move_the_propensity(kind: str) -> None:
    z = heads() | {"pay": tf.zeros([40, 2])}
    seen, paid = (tf.constant(x, tf.float32) for x in seen_and_paid())
    parents = [z["click"], z["basket"]]

    def gradients(links: Links) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(parents)
            rows = links.row_losses("pay", z, {OUTCOME: paid, OBSERVED: seen})
        return tape.gradient(rows, parents)

    plain = {**z, "pay": z["pay"][:, :1]}
    with tf.GradientTape() as tape:
        tape.watch(parents)
        rows = links(ranking()).row_losses("pay", plain, {OUTCOME: paid})
    for a, b in zip(gradients(counterfactual(kind)), tape.gradient(rows, parents), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["inverse_propensity", "doubly_robust"])
def test_corrections_are_right_on_average_where_seen_rows_alone_mislead(kind: str) -> None:
    rng = np.random.default_rng(0)
    num_rows = 200_000
    # Where the parent is likely the conditional is likely too: seen rows overstate it.
    likely = rng.random(num_rows) < 0.5
    propensity = np.where(likely, 0.8, 0.2)
    paid = rng.random(num_rows) < np.where(likely, 0.7, 0.1)
    seen = rng.random(num_rows) < propensity
    outputs = tf.constant([[0.8, -0.3]] * num_rows, tf.float32)
    loss = counterfactual(kind)._losses["pay"]
    error = loss.per_row(outputs, tf.constant(paid, tf.float32)).numpy()
    corrected = loss.corrected(
        outputs,
        tf.constant(paid & seen, tf.float32),
        tf.constant(seen, tf.float32),
        tf.constant(propensity, tf.float32),
    ).numpy()
    if kind == "doubly_robust":  # without the part that teaches the imputation
        imputed = np.log1p(np.exp(-0.3))
        corrected -= seen / propensity * (error - imputed) ** 2
    assert abs(error[seen].mean() - error.mean()) > 0.1
    assert corrected.mean() == pytest.approx(error.mean(), abs=0.01)


def test_labels_say_where_the_conditional_was_seen() -> None:
    batch = {
        "pay__label": tf.constant([1.0, 0.0, 0.0]),
        "pay_given_basket__weight": tf.constant([0.5, 2.0, 0.0]),
    }
    labels = counterfactual("doubly_robust").labels("pay", batch)
    np.testing.assert_array_equal(labels[OUTCOME], [1, 0, 0])
    np.testing.assert_array_equal(labels[OBSERVED], [1, 1, 0])
    assert set(links(ranking()).labels("pay", batch)) == {OUTCOME}


def test_a_counterfactual_loss_needs_a_parent() -> None:
    spec = ranking().model_dump()
    spec["tasks"]["click"]["loss"] = {"kind": "inverse_propensity"}
    with pytest.raises(ValueError, match="needs conditioned_on"):
        RankingSpec.model_validate(spec)


# Fusion ----------------------------------------------------------------------------------------

OUTPUTS = {
    "click": np.array([0.1, 0.5, 0.0]),
    "basket": np.array([0.2, 0.1, 0.3]),
    "pay": np.array([0.3, 0.05, 0.2]),
    "spend": np.array([10.0, 0.0, -2.0]),
}


def fuse(score: dict[str, Any]) -> np.ndarray:
    tensors = {name: tf.constant(values, tf.float32) for name, values in OUTPUTS.items()}
    return fused_score(ranking(score), tensors).numpy()


def test_score_of_every_served_task_by_default() -> None:
    np.testing.assert_allclose(fuse({}), sum(OUTPUTS.values()), rtol=1e-6)


def test_weighted_sum() -> None:
    score = fuse({"weights": {"click": 2.0, "spend": 0.5}, "log": ["spend"]})
    spend = np.log1p(np.maximum(OUTPUTS["spend"], 0))
    np.testing.assert_allclose(score, 2 * OUTPUTS["click"] + 0.5 * spend, rtol=1e-6)


def test_product() -> None:
    score = fuse({"kind": "product", "weights": {"click": 2.0, "pay": 0.5}})
    np.testing.assert_allclose(score, OUTPUTS["click"] ** 2 * OUTPUTS["pay"] ** 0.5, rtol=1e-6)
    negative = fuse({"kind": "product", "weights": {"click": -1.0, "spend": 0.5}})
    assert np.isfinite(negative).all()


# Slate-relative features -----------------------------------------------------------------------


def reference(values: list[float | None], relation: str) -> list[float]:
    present = [v for v in values if v is not None]
    if relation == "rank":
        return [
            sum(o is not None and (v is None or o > v) for o in values) / len(values)
            for v in values
        ]
    if relation == "count":
        return [float(len(present))] * len(values)
    divisor = sum(present) if relation == "share" else max(present, default=0.0)
    return [0.0 if v is None or divisor == 0 else v / divisor for v in values]


slates = st.lists(
    # TensorFlow takes subnormal numbers for 0.
    st.one_of(
        st.none(),
        st.integers(-3, 3).map(float),
        st.floats(0, 100, width=32, allow_subnormal=False),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(slates, st.sampled_from(get_args(SlateRelation)))
def test_slate_relative_is_its_definition(values: list[float | None], relation: Any) -> None:
    numbers = [float("nan") if v is None else v for v in values]
    found = slate_relative(tf.constant(numbers, tf.float32), relation).numpy()
    np.testing.assert_allclose(found, reference(values, relation), rtol=1e-5, atol=1e-30)


def test_rank_counts_missing_candidates_and_ties() -> None:
    values = tf.constant([2.0, np.nan, 5.0, 2.0, np.nan])
    np.testing.assert_allclose(slate_relative(values, "rank"), [0.2, 0.6, 0.0, 0.2, 0.6])


def test_slate_relative_of_no_candidates() -> None:
    for relation in get_args(SlateRelation):
        assert slate_relative(tf.zeros([0]), relation).shape == (0,)
