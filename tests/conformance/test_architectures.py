"""What every architecture must hold to; a newcomer in the registry is tested without an edit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tensorflow as tf

from models.architectures.abstract import Architecture, concatenated
from models.architectures.registry import ARCHITECTURES, build_architecture
from models.spec.architecture import ArchitectureConfig
from tests.conformance.synthetic_model import build_model, packed_batch
from tests.conformance.synthetic_ranking import synthetic_ranking

NAMES = sorted(ARCHITECTURES)
TASKS = ("click", "watch", "buy", "like")
every_architecture = pytest.mark.parametrize("name", NAMES)


def build(name: str, tasks: tuple[str, ...] = TASKS, seed: int = 3, **config: Any) -> Architecture:
    settings = ARCHITECTURES[name].config_class.model_validate({"architecture": name} | config)
    return build_architecture(settings, tasks, seed)


def features(num_rows: int = 16, seed: int = 0) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(seed)
    return {
        group: tf.constant(rng.normal(size=(num_rows, width)), tf.float32)
        for group, width in (("main", 6), ("item", 5))
    }


def total(outputs: dict[str, tf.Tensor]) -> tf.Tensor:
    return tf.add_n(
        [tf.reduce_mean(tf.square(tf.cast(y, tf.float32) - 1)) for y in outputs.values()]
    )


def assert_same(a: dict[str, tf.Tensor], b: dict[str, tf.Tensor], tolerance: float = 0.0) -> None:
    assert set(a) == set(b)
    for task in a:
        np.testing.assert_allclose(a[task].numpy(), b[task].numpy(), rtol=tolerance, atol=tolerance)


def test_registry_is_the_union_of_the_specification() -> None:
    union = get_args(get_args(ArchitectureConfig)[0])
    declared = {get_args(c.model_fields["architecture"].annotation)[0]: c for c in union}
    assert {n: a.config_class for n, a in ARCHITECTURES.items()} == declared


@every_architecture
def test_config_round_trip(name: str) -> None:
    layer = build(name)
    copy = type(layer).from_config(layer.get_config())
    assert copy.config == layer.config
    assert copy.get_config() == layer.get_config()
    assert_same(layer(features()), copy(features()))


@every_architecture
@pytest.mark.parametrize("num_tasks", [1, 2, 3, 4])
def test_shapes(name: str, num_tasks: int) -> None:
    outputs = build(name, TASKS[:num_tasks])(features())
    assert set(outputs) == set(TASKS[:num_tasks])
    widths = {tuple(y.shape) for y in outputs.values()}
    assert len(widths) == 1 and widths.pop()[0] == 16


@every_architecture
def test_save_and_load(name: str, tmp_path: Path) -> None:
    saved, loaded = build(name, seed=1), build(name, seed=2)
    expected, before = saved(features()), loaded(features())
    assert any(not np.array_equal(expected[t], before[t]) for t in TASKS)
    path = tf.train.Checkpoint(layer=saved).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(layer=loaded).restore(path).assert_existing_objects_matched()
    assert_same(expected, loaded(features()))


@pytest.fixture(params=["mixed_float16", "mixed_bfloat16"])
def half_precision(request: pytest.FixtureRequest) -> Iterator[tf.DType]:
    tf.keras.mixed_precision.set_global_policy(request.param)
    yield tf.as_dtype(request.param.removeprefix("mixed_"))
    tf.keras.mixed_precision.set_global_policy("float32")


@every_architecture
def test_mixed_precision(name: str, half_precision: tf.DType) -> None:
    layer = build(name)
    with tf.GradientTape() as tape:
        outputs = layer(features(), training=True)
        loss = total(outputs)
    gradients = tape.gradient(loss, layer.trainable_variables)
    assert {y.dtype for y in outputs.values()} == {half_precision}
    assert {v.dtype for v in layer.trainable_variables} == {tf.float32}
    assert all(np.isfinite(tf.cast(g, tf.float32)).all() for g in gradients)


@every_architecture
def test_one_step_lowers_the_loss(name: str) -> None:
    layer = build(name)
    with tf.GradientTape() as tape:
        before = total(layer(features(), training=True))
    gradients = tape.gradient(before, layer.trainable_variables)
    for variable, gradient in zip(layer.trainable_variables, gradients, strict=True):
        variable.assign_sub(0.01 * gradient)
    assert total(layer(features())) < before


@every_architecture
def test_gradients_reach_every_variable(name: str) -> None:
    layer = build(name)
    with tf.GradientTape() as tape:
        loss = total(layer(features(64), training=True))
    gradients = tape.gradient(loss, layer.trainable_variables)
    dead = [
        v.name
        for v, g in zip(layer.trainable_variables, gradients, strict=True)
        if g is None or not np.any(g.numpy())
    ]
    assert not dead


@every_architecture
def test_variables_are_shared_or_of_one_task(name: str) -> None:
    layer = build(name)
    layer(features())
    parts = [layer.shared_variables, *(layer.task_variables(task) for task in TASKS)]
    found = [id(v) for part in parts for v in part]
    assert sorted(found) == sorted(id(v) for v in layer.trainable_variables)
    assert all(layer.task_variables(task) for task in TASKS)
    assert len({v.name for v in layer.trainable_variables}) == len(layer.trainable_variables)


@every_architecture
def test_no_retrace(name: str) -> None:
    layer = build(name)
    layer(features())
    spec = {g: tf.TensorSpec([None, x.shape[1]], tf.float32) for g, x in features().items()}
    step = tf.function(lambda x: layer(x, training=True), input_signature=[spec])
    step(features(8))
    step(features(5, seed=1))
    assert step.experimental_get_tracing_count() == 1


@every_architecture
def test_task_order_does_not_matter(name: str) -> None:
    assert_same(build(name, TASKS)(features()), build(name, TASKS[::-1])(features()))


@every_architecture
def test_a_task_starts_the_same_whatever_the_others_are(name: str) -> None:
    alone, among = build(name, TASKS[:1]), build(name, TASKS)
    alone(features())
    among(features())
    for a, b in zip(alone.task_variables("click"), among.task_variables("click"), strict=True):
        if a.shape == b.shape:  # a stitch has a column for every other task
            np.testing.assert_array_equal(a.numpy(), b.numpy())


@every_architecture
def test_some_tasks_equal_all_tasks(name: str) -> None:
    layer = build(name)
    everything = layer(features())
    some = layer(features(), tasks=("watch", "click"))
    assert_same(some, {task: everything[task] for task in ("click", "watch")})


@every_architecture
def test_deterministic_under_seed(name: str) -> None:
    first, second, other = build(name, seed=1), build(name, seed=1), build(name, seed=2)
    assert_same(first(features()), second(features()))
    assert any(
        not np.array_equal(first(features())[task], other(features())[task]) for task in TASKS
    )


@every_architecture
def test_dropout_is_seeded_and_off_when_serving(name: str, tmp_path: Path) -> None:
    layer, again = build(name, dropout=0.5), build(name, dropout=0.5)
    served = layer(features())
    assert_same(served, layer(features()))
    dropped = layer(features(), training=True)
    assert any(not np.allclose(served[t], dropped[t]) for t in TASKS)
    again(features())
    assert_same(dropped, again(features(), training=True))
    # The state of the generator travels with a checkpoint.
    path = tf.train.Checkpoint(layer=layer).save(str(tmp_path / "checkpoint"))
    following = layer(features(), training=True)
    tf.train.Checkpoint(layer=again).restore(path)
    assert_same(following, again(features(), training=True))


@every_architecture
def test_masked_rows_contribute_no_gradient(name: str) -> None:
    ranking = synthetic_ranking()
    model = build_model(ranking, name)
    batch = packed_batch(ranking)
    for output in ranking.all_outputs:
        # Whole rows are masked, for every task.
        weight = tf.where(tf.range(64) < 48, batch[output.weight_key], 0.0)
        batch[output.weight_key] = weight
    changed = dict(batch)
    for output in ranking.all_outputs:
        masked = batch[output.weight_key] == 0
        changed[output.label_key] = tf.where(masked, 1e30, batch[output.label_key])
    cut = {key: value[:48] for key, value in batch.items()}

    def gradients(rows: dict[str, tf.Tensor]) -> list[np.ndarray]:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(rows)
        found = tape.gradient(loss, model.trainable_variables)
        return [tf.convert_to_tensor(g).numpy() for g in found]

    reference = gradients(cut)
    for rows in (batch, changed):
        for expected, received in zip(reference, gradients(rows), strict=True):
            np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-6)


@every_architecture
def test_training_step_lowers_every_loss_and_traces_once(name: str) -> None:
    ranking = synthetic_ranking()
    model = build_model(ranking, name)
    batch = packed_batch(ranking)
    step = tf.function(model.train_step)
    first = {task: float(loss) for task, loss in step(batch).items()}
    for _ in range(30):
        last = step(batch)
    assert set(first) == {*ranking.tasks, "total"}
    for task, loss in first.items():
        assert float(last[task]) < loss
    assert step.experimental_get_tracing_count() == 1


# What single architectures are -----------------------------------------------------------------


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def affine(x: np.ndarray, variables: list[tf.Variable]) -> np.ndarray:
    kernel, bias = (v.numpy().astype(np.float64) for v in variables)
    return x @ kernel + bias


def test_mmoe_equals_its_equations() -> None:
    layer = build("mmoe", num_experts=3, expert_units=[7, 5], tower_units=[4])
    outputs = layer(features())
    x = concatenated(features()).numpy().astype(np.float64)
    experts = []
    for i in range(3):
        weights = layer.experts.variables_of(f"expert_{i}")
        experts.append(relu(affine(relu(affine(x, weights[:2])), weights[2:])))
    for task in TASKS:
        logits = affine(x, layer.gates.variables_of(task))
        gate = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        mixed = sum(gate[:, i : i + 1] * experts[i] for i in range(3))
        expected = relu(affine(mixed, layer.towers.variables_of(task)))
        np.testing.assert_allclose(outputs[task].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_mmoe_gates_choose_among_experts_row_by_row() -> None:
    layer = build("mmoe", num_experts=3)
    layer(features())
    gates = layer.gate_weights(concatenated(features()), TASKS).numpy()
    assert gates.shape == (4, 16, 3)
    np.testing.assert_allclose(gates.sum(axis=2), 1.0, rtol=1e-6)
    assert gates.std(axis=1).max() > 0.01


def test_mmoe_with_one_expert_is_shared_bottom() -> None:
    mmoe = build("mmoe", num_experts=1, expert_units=[9, 8], tower_units=[4])
    bottom = build("shared_bottom", bottom_units=[9, 8], tower_units=[4])
    mmoe(features())
    bottom(features())
    copies = [(bottom.bottom.variables_of("shared"), mmoe.experts.variables_of("expert_0"))]
    copies += [(bottom.towers.variables_of(t), mmoe.towers.variables_of(t)) for t in TASKS]
    for to, source in copies:
        for a, b in zip(to, source, strict=True):
            a.assign(b)
    assert_same(mmoe(features()), bottom(features()), tolerance=1e-6)


def test_mmoe_gate_dropout_renormalises() -> None:
    layer = build("mmoe", num_experts=4, gate_dropout=0.5)
    layer(features())
    gates = layer.gate_weights(concatenated(features(64)), TASKS)
    dropped = layer._dropped(gates).numpy()
    np.testing.assert_allclose(dropped.sum(axis=2), 1.0, rtol=1e-5)
    assert 0.2 < (dropped == 0).mean() < 0.6


def test_mmoe_insights() -> None:
    layer = build("mmoe", num_experts=2)
    layer(features())
    for task in TASKS:
        kernel, bias = layer.gates.variables_of(task)
        kernel.assign(tf.zeros_like(kernel))
        bias.assign([0.0, np.log(3.0)])
    insights = layer.insights(lambda: [features(3), features(5)])
    assert list(insights) == ["expert_utilization", "gate_entropy"]
    for task in TASKS:
        assert insights["expert_utilization"][task] == pytest.approx([0.25, 0.75])
        entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
        assert insights["gate_entropy"][task] == pytest.approx(entropy)


@pytest.mark.parametrize("stitch", ["unit", "subspace"])
def test_identity_stitch_is_separate_networks(stitch: str) -> None:
    stitched = build("cross_stitch", hidden_units=[9, 7], stitch=stitch, own_share=1.0)
    single = build("single_task", hidden_units=[9, 7])
    stitched(features())
    single(features())
    for task in TASKS:
        layers = [v for layer in stitched.layers for v in layer.variables_of(task)]
        for a, b in zip(single.task_variables(task), layers, strict=True):
            a.assign(b)
    assert_same(stitched(features()), single(features()), tolerance=1e-6)


@pytest.mark.parametrize("stitch", ["unit", "subspace"])
def test_cross_stitch_equals_its_equation(stitch: str) -> None:
    layer = build("cross_stitch", hidden_units=[6, 5], stitch=stitch)
    layer(features())
    rng = np.random.default_rng(0)
    for s in layer.stitches:
        for task in TASKS:
            (alpha,) = s.variables_of(task)
            alpha.assign(rng.normal(size=alpha.shape))
    hidden = {t: concatenated(features()).numpy().astype(np.float64) for t in TASKS}
    for dense, s in zip(layer.layers, layer.stitches, strict=True):
        own = {t: relu(affine(hidden[t], dense.variables_of(t))) for t in TASKS}
        hidden = {
            t: sum(
                s.variables_of(t)[0].numpy()[column] * own[other]
                for column, other in enumerate(sorted(TASKS))
            )
            for t in TASKS
        }
    for task, output in layer(features()).items():
        np.testing.assert_allclose(output.numpy(), hidden[task], rtol=1e-4, atol=1e-5)


def test_cross_stitch_starts_near_its_own_task_and_shows_it() -> None:
    layer = build("cross_stitch", hidden_units=[6], own_share=0.7)
    layer(features())
    (stitch,) = layer.insights(lambda: [])["stitches"]
    assert stitch["layer"] == 0 and stitch["tasks"] == sorted(TASKS)
    np.testing.assert_allclose(stitch["matrix"], np.full((4, 4), 0.1) + 0.6 * np.eye(4), rtol=1e-6)


def test_cross_stitch_of_one_task_is_its_network() -> None:
    layer = build("cross_stitch", ("click",), hidden_units=[6])
    layer(features())
    (stitch,) = layer.insights(lambda: [])["stitches"]
    assert stitch["matrix"] == [[1.0]]
