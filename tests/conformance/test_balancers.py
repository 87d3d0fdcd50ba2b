"""What every balancer must hold to, with every architecture, and what single ones compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tensorflow as tf

from models.architectures.registry import ARCHITECTURES
from models.balancers.abstract import Balancer, GradientBalancer, TaskTraits
from models.balancers.registry import BALANCERS, build_balancer
from models.ranking_model import RankingModel
from models.spec.balancer import BalancerConfig
from models.spec.training import Training
from tests.conformance.synthetic_model import build_model, packed_batch
from tests.conformance.synthetic_ranking import synthetic_ranking

NAMES = sorted(BALANCERS)
every_balancer = pytest.mark.parametrize("kind", NAMES)
TRAITS = {
    "buy": TaskTraits(weight=2.0),
    "click": TaskTraits(),
    "watch": TaskTraits(weight=0.5, squared_error=True),
}
"""In the order of vectors."""


def build(kind: str, traits: dict[str, TaskTraits] | None = None, **config: Any) -> Balancer:
    settings = BALANCERS[kind].config_class.model_validate({"kind": kind} | config)
    return build_balancer(settings, traits or TRAITS, seed=7)


def model_with(kind: str, architecture: str = "shared_bottom", **training: Any) -> RankingModel:
    settings = Training.model_validate({"batch_size": 32, "balancer": {"kind": kind}} | training)
    return build_model(synthetic_ranking(), architecture, training=settings)


def after_steps(model: RankingModel, batch: Any, num_steps: int = 2) -> list[np.ndarray]:
    for _ in range(num_steps):
        model.train_step(batch)
    return [v.numpy() for v in model.variables]


def products_of(gradients: np.ndarray) -> tf.Tensor:
    return tf.constant(gradients @ gradients.T, tf.float32)


def test_registry_is_the_union_of_the_specification() -> None:
    union = get_args(get_args(BalancerConfig)[0])
    declared = {get_args(c.model_fields["kind"].annotation)[0]: c for c in union}
    # A search is over before there is a model.
    declared.pop("tuned")
    assert {n: b.config_class for n, b in BALANCERS.items()} == declared


@pytest.mark.slow
@every_balancer
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_learns_with_every_balancer(kind: str, architecture: str) -> None:
    batch = packed_batch(synthetic_ranking())
    model = model_with(kind, architecture, learning_rate=0.01)
    # Not traced: tracing costs more than these steps.
    totals = [float(model.train_step(batch)["total"]) for _ in range(3)]
    assert totals[-1] < totals[0]


@every_balancer
def test_a_step_traces_once_and_weights_are_told(kind: str) -> None:
    batch = packed_batch(synthetic_ranking())
    model = model_with(kind)
    step = tf.function(model.train_step)
    losses = [step(batch) for _ in range(3)][-1]
    assert set(losses) == {*synthetic_ranking().tasks, "total"}
    assert step.experimental_get_tracing_count() == 1
    for _ in range(3):
        weights = model.balancer.end_epoch({t: float(losses[t]) for t in model.tasks})
    step(batch)
    assert step.experimental_get_tracing_count() == 1
    assert set(weights) == set(model.tasks)
    assert all(np.isfinite(w) and w >= 0 for w in weights.values())


@every_balancer
def test_state_is_in_the_checkpoint(kind: str, tmp_path: Path) -> None:
    batch, another = (packed_batch(synthetic_ranking(), seed=s) for s in (0, 1))
    model, other = model_with(kind), model_with(kind)
    losses = dict.fromkeys(model.tasks, 1.0)
    after_steps(model, batch)
    model.balancer.end_epoch(losses)
    model.balancer.end_epoch(losses | {model.tasks[0]: 3.0})
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    after_steps(other, another)
    tf.train.Checkpoint(model=other).restore(path).assert_existing_objects_matched()
    for x, y in zip(after_steps(model, batch), after_steps(other, batch), strict=True):
        np.testing.assert_array_equal(x, y)


@every_balancer
def test_table_gradients_stay_sparse_and_tables_learn(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = packed_batch(synthetic_ranking())
    model = model_with(kind, embedding_l2=0.01)
    tables = {id(t): t.numpy() for t in model.embedding.tables}
    seen = {}

    def record(gradients: Any, variables: Any) -> None:
        seen.update({id(v): g for g, v in zip(gradients, variables, strict=True)})
        type(model.optimizers).apply(model.optimizers, gradients, variables)

    monkeypatch.setattr(model.optimizers, "apply", record)
    model.train_step(batch)
    for table in model.embedding.tables:
        assert isinstance(seen[id(table)], tf.IndexedSlices)
        assert not np.array_equal(table.numpy(), tables[id(table)])


@every_balancer
def test_steps_are_deterministic_and_masked_rows_contribute_nothing(kind: str) -> None:
    ranking = synthetic_ranking()
    batch = packed_batch(ranking)
    spoiled = dict(batch)
    for output in ranking.all_outputs:
        masked = batch[output.weight_key] == 0
        spoiled[output.label_key] = tf.where(masked, 1e30, batch[output.label_key])
    tf.config.experimental.enable_op_determinism()
    a, b = (after_steps(model_with(kind), rows) for rows in (batch, spoiled))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@every_balancer
def test_a_task_without_rows_does_no_harm(kind: str) -> None:
    ranking = synthetic_ranking()
    batch = packed_batch(ranking)
    for output in ranking.outputs_of("watch_seconds"):
        batch[output.weight_key] = tf.zeros_like(batch[output.weight_key])
    assert all(np.isfinite(v).all() for v in after_steps(model_with(kind), batch))


@pytest.mark.parametrize("kind", [n for n in NAMES if issubclass(BALANCERS[n], GradientBalancer)])
def test_gradient_balancers_with_unit_factors_equal_the_declared_sum(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The split into one pass per task and one below the representation loses nothing."""
    from models.balancers.abstract import Coefficients

    batch = packed_batch(synthetic_ranking())
    options = {"optimizers": {"dense": "sgd", "embedding": "sgd"}, "embedding_l2": 0.1}
    split = model_with(kind, interaction="cross", **options)
    monkeypatch.setattr(
        type(split.balancer),
        "coefficients",
        lambda self, losses, products: Coefficients(
            tf.constant(self.declared), tf.constant(self.declared)
        ),
    )
    whole = model_with("fixed", interaction="cross", **options)
    split.train_step(batch)
    whole.train_step(batch)
    for a, b in zip(split.trainable_variables, whole.trainable_variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-6, err_msg=a.name)


def test_penalties_stay_out_of_task_losses() -> None:
    batch = packed_batch(synthetic_ranking())
    plain, penalised = (
        model_with("grad_norm", embedding_l2=l2).train_step(batch) for l2 in (0.0, 100.0)
    )
    assert {k: float(v) for k, v in plain.items()} == {k: float(v) for k, v in penalised.items()}


# What single balancers compute ------------------------------------------------------------------


def test_fixed_and_equal() -> None:
    losses = tf.constant([1.0, 10.0, 100.0])
    assert float(build("fixed").objective(losses)) == 2 + 10 + 50
    assert float(build("fixed", weights={"watch": 0.1}).objective(losses)) == pytest.approx(22)
    assert float(build("equal").objective(losses)) == 111
    assert build("equal").end_epoch({}) == {"buy": 1, "click": 1, "watch": 1}
    assert build("fixed").end_epoch({}) == {"buy": 2, "click": 1, "watch": 0.5}


def test_uncertainty_settles_where_the_paper_says() -> None:
    """The minimum of the objective: sigma^2 = L for Gaussians, 2 L for cross entropies."""
    balancer = build("uncertainty")
    losses = tf.constant([0.3, 0.05, 4.0])
    optimizer = tf.keras.optimizers.legacy.SGD(0.2)

    @tf.function
    def settle() -> None:
        for _ in tf.range(500):
            with tf.GradientTape() as tape:
                objective = balancer.objective(losses)
            (gradient,) = tape.gradient(objective, balancer.trainable_variables)
            optimizer.apply_gradients([(gradient, balancer.log_variances)])

    settle()
    variances = np.exp(balancer.log_variances.numpy())
    np.testing.assert_allclose(variances, [0.6, 0.1, 4.0], rtol=1e-2)
    weights = balancer.end_epoch({})
    assert weights["watch"] == pytest.approx(0.5 * 0.5 / 4, rel=1e-2)
    assert weights["buy"] == pytest.approx(2 / 0.6, rel=1e-2)


def test_dwa_equals_its_equation() -> None:
    balancer = build("dwa", temperature=2.0)
    epochs = ([1.0, 2.0, 3.0], [0.9, 1.0, 3.0], [0.9, 0.9, 1.5])
    used = [balancer.end_epoch(dict(zip(balancer.tasks, losses, strict=True))) for losses in epochs]
    declared = np.array([2.0, 1.0, 0.5])
    np.testing.assert_allclose(list(used[0].values()), declared)
    np.testing.assert_allclose(list(used[1].values()), declared)
    ratio = np.exp(np.array([0.9, 0.5, 1.0]) / 2)
    expected = 3 * ratio / ratio.sum()
    np.testing.assert_allclose(list(used[2].values()), declared * expected, rtol=1e-6)
    ratio = np.exp(np.array([1.0, 0.9, 0.5]) / 2)
    np.testing.assert_allclose(balancer.factors.numpy(), 3 * ratio / ratio.sum(), rtol=1e-6)


def test_dwa_ignores_ratios_of_losses_that_are_not_positive() -> None:
    balancer = build("dwa")
    for losses in ([1.0, 1.0, -1.0], [1.0, 1.0, -2.0]):
        balancer.end_epoch(dict(zip(balancer.tasks, losses, strict=True)))
    np.testing.assert_allclose(balancer.factors.numpy(), 1.0, rtol=1e-6)


def repeated(balancer: Any, losses: tf.Tensor, products: tf.Tensor, steps: int) -> np.ndarray:
    choose = tf.function(lambda: balancer.coefficients(losses, products).shared)
    return [choose() for _ in range(steps)][-1].numpy()


def test_grad_norm_equalises_gradient_sizes() -> None:
    balancer = build("grad_norm", alpha=0.0, learning_rate=0.01)
    norms = np.array([4.0, 1.0, 2.0])
    products = products_of(np.diag(norms))
    factors = repeated(balancer, tf.ones(3), products, 2000)
    sizes = factors * norms
    np.testing.assert_allclose(sizes, sizes.mean(), rtol=0.06)
    assert factors.sum() == pytest.approx(3.5, rel=1e-5)


def test_grad_norm_favours_the_task_that_learns_slowly() -> None:
    balancer = build("grad_norm", {"a": TaskTraits(), "b": TaskTraits()}, alpha=1.0)
    products = products_of(np.eye(2))
    balancer.coefficients(tf.constant([1.0, 1.0]), products)
    # Task a is at half of its first loss, task b where it was.
    factors = repeated(balancer, tf.constant([0.5, 1.0]), products, 200)
    assert factors[1] / factors[0] == pytest.approx(2.0, rel=0.1)


def test_grad_norm_leaves_the_weight_of_an_absent_task_alone() -> None:
    balancer = build("grad_norm", alpha=1.0)
    gradients = np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    losses = tf.constant([0.5, 0.7, 0.0])
    found = repeated(balancer, losses, products_of(gradients), 50)
    assert found[2] == 0.5
    assert found[:2].sum() == pytest.approx(3.0, rel=1e-5)
    # What the others do is what they would do alone.
    two = {name: TRAITS[name] for name in ("buy", "click")}
    alone = build("grad_norm", two, alpha=1.0)
    expected = repeated(alone, losses[:2], products_of(gradients[:2]), 50)
    np.testing.assert_allclose(found[:2], expected, rtol=1e-5)
    before = balancer.factors.numpy()
    repeated(balancer, tf.zeros(3), tf.zeros([3, 3]), 1)
    np.testing.assert_array_equal(balancer.factors.numpy(), before)


def projected(gradients: np.ndarray, orders: list[list[int]]) -> np.ndarray:
    """Algorithm 1 of the paper, on the vectors themselves."""
    total = np.zeros(gradients.shape[1])
    for i, order in enumerate(orders):
        g = gradients[i].copy()
        for j in order:
            if j != i and g @ gradients[j] < 0:
                g -= g @ gradients[j] / (gradients[j] @ gradients[j]) * gradients[j]
        total += g
    return total


def test_pcgrad_equals_the_algorithm_on_vectors() -> None:
    rng = np.random.default_rng(0)
    conflicts = 0
    for step in range(20):
        gradients = rng.normal(size=(3, 5)) + 0.2
        balancer = build("pcgrad", {t: TaskTraits() for t in TRAITS})
        balancer.steps.assign(step)
        draws = tf.random.stateless_uniform([3, 3], [balancer.seed, step])
        orders = tf.argsort(draws, axis=1).numpy().tolist()
        expected = projected(gradients, orders)
        factors = balancer.coefficients(tf.ones(3), products_of(gradients))
        np.testing.assert_allclose(factors.shared.numpy() @ gradients, expected, atol=1e-5)
        np.testing.assert_array_equal(factors.own.numpy(), 1.0)
        conflicts += not np.allclose(expected, gradients.sum(axis=0))
    assert conflicts > 10


def test_pcgrad_without_conflict_is_the_weighted_sum() -> None:
    gradients = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    factors = build("pcgrad").coefficients(tf.ones(3), products_of(gradients))
    np.testing.assert_allclose(factors.shared.numpy(), [2.0, 1.0, 0.5], rtol=1e-6)


def test_pcgrad_meets_tasks_in_random_order() -> None:
    balancer = build("pcgrad", {t: TaskTraits() for t in TRAITS})
    gradients = np.random.default_rng(3).normal(size=(3, 3)) - 0.5
    gradients[2] = -gradients[0] - gradients[1]
    found = {
        tuple(np.round(balancer.coefficients(tf.ones(3), products_of(gradients)).shared.numpy(), 5))
        for _ in range(20)
    }
    assert len(found) > 1


def test_a_tasks_own_rate_steps_its_own_variables_alone() -> None:
    batch = packed_batch(synthetic_ranking())
    usual, faster = (
        model_with("fixed", optimizers={"dense": "sgd", "task_learning_rates": rates})
        for rates in ({}, {"click": 0.1})
    )
    starts = [v.numpy() for v in usual.trainable_variables]
    for model in (usual, faster):
        model.train_step(batch)
    own = {
        v.name
        for v in faster.architecture.task_variables("click") + faster.heads.task_variables("click")
    }
    assert len(own) == 4
    for start, a, b in zip(
        starts, usual.trainable_variables, faster.trainable_variables, strict=True
    ):
        factor = 100 if b.name in own else 1
        moved = factor * (a.numpy() - start)
        np.testing.assert_allclose(b.numpy() - start, moved, rtol=2e-2, atol=1e-6)


@pytest.mark.parametrize("part", ["dense", "embedding"])
def test_optimizers_step_their_part_alone(part: str) -> None:
    batch = packed_batch(synthetic_ranking())
    usual, other = (
        model_with("fixed", optimizers=settings) for settings in ({}, {part: "adagrad"})
    )
    for model in (usual, other):
        model.train_step(batch)
    tables = {t.name for t in usual.embedding.tables}
    for a, b in zip(usual.trainable_variables, other.trainable_variables, strict=True):
        changed = (a.name in tables) == (part == "embedding")
        assert np.array_equal(a.numpy(), b.numpy()) != changed, a.name


def test_task_order_does_not_matter() -> None:
    shuffled = dict(reversed(TRAITS.items()))
    for kind in NAMES:
        assert build(kind, shuffled).tasks == build(kind).tasks
