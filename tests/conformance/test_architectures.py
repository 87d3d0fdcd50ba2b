"""What every architecture must hold to; a newcomer in the registry is tested without an edit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tensorflow as tf

from models.architectures.registry import ARCHITECTURES
from models.ranking_model import PENALTY, TOTAL
from models.spec.architecture import ArchitectureConfig
from tests.conformance.architecture_cases import (
    CASES,
    TASKS,
    Case,
    assert_same,
    every_case,
    features,
    total,
)
from tests.conformance.synthetic_model import build_model, packed_batch
from tests.conformance.synthetic_ranking import synthetic_ranking


def test_registry_is_the_union_of_the_specification() -> None:
    union = get_args(get_args(ArchitectureConfig)[0])
    declared = {get_args(c.model_fields["architecture"].annotation)[0]: c for c in union}
    assert {n: a.config_class for n, a in ARCHITECTURES.items()} == declared
    assert {case.name for case in CASES} == set(ARCHITECTURES)


@every_case
def test_config_round_trip(case: Case) -> None:
    layer = case.build()
    copy = type(layer).from_config(layer.get_config())
    assert copy.config == layer.config
    assert copy.get_config() == layer.get_config()
    assert_same(layer(features()), copy(features()))


@every_case
@pytest.mark.parametrize("num_tasks", range(1, len(TASKS) + 1))
def test_shapes(case: Case, num_tasks: int) -> None:
    outputs = case.build(TASKS[:num_tasks])(features(), training=True)
    assert set(outputs) == set(TASKS[:num_tasks])
    widths = {tuple(y.shape) for y in outputs.values()}
    assert len(widths) == 1 and widths.pop()[0] == 16
    assert all(np.isfinite(y).all() for y in outputs.values())


@every_case
def test_save_and_load(case: Case, tmp_path: Path) -> None:
    saved, loaded = case.build(seed=1), case.build(seed=2)
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


@every_case
def test_mixed_precision(case: Case, half_precision: tf.DType) -> None:
    layer = case.build()
    with tf.GradientTape() as tape:
        outputs = layer(features(), training=True)
        loss = tf.add_n([total(outputs), *layer.losses])
    gradients = tape.gradient(loss, layer.trainable_variables)
    assert {y.dtype for y in outputs.values()} == {half_precision}
    assert {v.dtype for v in layer.trainable_variables} == {tf.float32}
    assert {value.dtype for value in layer.losses} <= {tf.float32}
    assert all(np.isfinite(tf.cast(g, tf.float32)).all() for g in gradients)


@every_case
def test_one_step_lowers_the_loss(case: Case) -> None:
    layer = case.build()
    before = total(layer(features()))
    with tf.GradientTape() as tape:
        loss = total(layer(features(), training=True))
    gradients = tape.gradient(loss, layer.trainable_variables)
    for variable, gradient in zip(layer.trainable_variables, gradients, strict=True):
        variable.assign_sub(0.01 * gradient)
    assert total(layer(features())) < before


@every_case
def test_gradients_reach_every_variable(case: Case) -> None:
    layer = case.build()
    with tf.GradientTape() as tape:
        loss = total(layer(features(64), training=True))
    gradients = tape.gradient(loss, layer.trainable_variables)
    dead = [
        v.name
        for v, g in zip(layer.trainable_variables, gradients, strict=True)
        if g is None or not np.any(g.numpy())
    ]
    assert not dead


@every_case
def test_units_start_unlike_each_other(case: Case) -> None:
    layer = case.build()
    layer(features())
    kernels = [v.numpy() for v in layer.trainable_variables if "kernel" in v.name]
    assert kernels
    for kernel in kernels:
        columns = kernel.T.round(6)
        assert len(np.unique(columns, axis=0)) == len(columns)
    same = [k for k in kernels if k.shape == kernels[0].shape]
    assert len({k.tobytes() for k in same}) == len(same)


@every_case
def test_variables_are_shared_or_of_one_task(case: Case) -> None:
    layer = case.build()
    layer(features())
    parts = [layer.shared_variables, *(layer.task_variables(task) for task in TASKS)]
    found = [id(v) for part in parts for v in part]
    assert sorted(found) == sorted(id(v) for v in layer.trainable_variables)
    assert all(layer.task_variables(task) for task in TASKS)
    assert len({v.name for v in layer.trainable_variables}) == len(layer.trainable_variables)


@every_case
def test_no_retrace(case: Case) -> None:
    layer = case.build()
    layer(features())
    spec = {g: tf.TensorSpec([None, x.shape[1]], tf.float32) for g, x in features().items()}
    step = tf.function(lambda x: layer(x, training=True), input_signature=[spec])
    step(features(8))
    step(features(5, seed=1))
    assert step.experimental_get_tracing_count() == 1


@every_case
def test_task_order_does_not_matter(case: Case) -> None:
    forward, backward = case.build(TASKS), case.build(TASKS[::-1])
    assert_same(forward(features()), backward(features()))
    assert_same(forward(features(), training=True), backward(features(), training=True))


@every_case
def test_a_task_starts_the_same_whatever_the_others_are(case: Case) -> None:
    alone, among = case.build(TASKS[:1]), case.build(TASKS)
    alone(features())
    among(features())
    for a, b in zip(alone.task_variables("click"), among.task_variables("click"), strict=True):
        if a.shape == b.shape:  # a stitch has a column for every other task
            np.testing.assert_array_equal(a.numpy(), b.numpy())


@every_case
def test_some_tasks_equal_all_tasks(case: Case) -> None:
    layer = case.build()
    everything = layer(features())
    for some in (("watch", "click"), ("share",)):
        assert_same(layer(features(), tasks=some), {task: everything[task] for task in some}, 1e-6)


@every_case
def test_deterministic_under_seed(case: Case) -> None:
    first, second, other = case.build(seed=1), case.build(seed=1), case.build(seed=2)
    assert_same(first(features()), second(features()))
    assert_same(first(features(), training=True), second(features(), training=True))
    assert any(
        not np.array_equal(first(features())[task], other(features())[task]) for task in TASKS
    )


@every_case
def test_dropout_is_seeded_and_off_when_serving(case: Case, tmp_path: Path) -> None:
    layer, again = case.build(dropout=0.5), case.build(dropout=0.5)
    served = layer(features())
    assert_same(served, layer(features()))
    dropped = layer(features(), training=True)
    assert any(not np.allclose(served[t], dropped[t]) for t in TASKS)
    again(features())
    assert_same(dropped, again(features(), training=True))
    # The state of the generators travels with a checkpoint.
    path = tf.train.Checkpoint(layer=layer).save(str(tmp_path / "checkpoint"))
    following = layer(features(), training=True)
    tf.train.Checkpoint(layer=again).restore(path)
    assert_same(following, again(features(), training=True))


@every_case
def test_penalties_have_names_weights_and_gradients(case: Case) -> None:
    layer = case.build()
    weights = {n: w for n, w in layer.config.model_dump().items() if n.endswith("_weight") and w}
    layer(features())
    assert layer.losses == [] and layer.penalties == {}
    rng = np.random.default_rng(0)
    probabilities = {t: tf.constant(rng.random(16), tf.float32) for t in TASKS}
    with tf.GradientTape() as tape:
        tape.watch(probabilities)
        layer(features(), training=True)
        layer.constrain(probabilities, dict.fromkeys(TASKS, tf.ones(16)))
        penalties = layer.penalties
        objective = tf.add_n([tf.constant(0.0), *layer.losses])
    assert len(penalties) == len(weights)
    assert float(objective) == pytest.approx(sum(float(p) for p in penalties.values()))
    assert all(float(p) > 0 for p in penalties.values())
    reached = tape.gradient(objective, [*layer.trainable_variables, *probabilities.values()])
    assert any(g is not None and np.any(g.numpy()) for g in reached) == bool(weights)


@every_case
def test_mixtures_and_matrices_can_be_read(case: Case) -> None:
    layer = case.build()
    layer(features())
    for mixture in layer.mixtures(features()):
        for weights in mixture.weights.values():
            assert weights.shape == (16, len(mixture.sources))
            np.testing.assert_allclose(tf.reduce_sum(weights, axis=1), 1.0, rtol=1e-5)
    for matrix in layer.matrices():
        assert np.shape(matrix.values) == (len(matrix.rows), len(matrix.columns))
    names = [x.name for x in (*layer.mixtures(features()), *layer.matrices())]
    assert len(set(names)) == len(names)


@every_case
def test_training_a_model(case: Case, tmp_path: Path) -> None:
    """One model and one trace: masks, penalties, falling losses, no retrace, repeatability."""
    ranking = synthetic_ranking()
    model = build_model(ranking, case.name, **case.settings)
    batch = packed_batch(ranking)
    for output in ranking.all_outputs:
        # Whole rows are masked, for every task.
        batch[output.weight_key] = tf.where(tf.range(64) < 48, batch[output.weight_key], 0.0)
    changed = dict(batch)
    for output in ranking.all_outputs:
        masked = batch[output.weight_key] == 0
        changed[output.label_key] = tf.where(masked, 1e30, batch[output.label_key])
    cut = {key: value[:48] for key, value in batch.items()}

    def gradients(rows: dict[str, tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(rows)
        assert np.isfinite(loss)
        found = tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")
        return [tf.convert_to_tensor(gradient) for gradient in found]

    reference = gradients(cut)
    for rows in (batch, changed):
        for expected, received in zip(reference, gradients(rows), strict=True):
            np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-6)

    before = model.task_losses(batch)
    step = tf.function(model.train_step)
    start = tf.train.Checkpoint(model=model).save(str(tmp_path / "start"))
    first = {name: float(loss) for name, loss in step(batch).items()}
    for _ in range(30):
        step(batch)
    for task, loss in model.task_losses(batch).items():
        assert loss < before[task]
    assert {n for n in first if not n.startswith(PENALTY)} == {*ranking.tasks, TOTAL}
    expected = sum(ranking.tasks[task].weight * first[task] for task in ranking.tasks)
    assert first[TOTAL] == pytest.approx(expected, rel=1e-5)
    tf.train.Checkpoint(model=model).restore(start)
    assert {name: float(loss) for name, loss in step(batch).items()} == first
    assert step.experimental_get_tracing_count() == 1
