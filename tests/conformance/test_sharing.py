"""What single architectures are: each against its equations, and against what it must equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.architectures.abstract import Architecture, concatenated
from models.architectures.gates import Gates, squared_variation
from models.architectures.soft_sharing import squared_distance, trace_norm
from models.insights import SliceFeature, measure_mixtures
from models.spec.architecture import Aitm, Cgc, CrossStitch, Mmoe, Sluice
from models.spec.task import Task
from tests.conformance.architecture_cases import (
    PARENTS,
    TASKS,
    assert_same,
    build,
    copy_variables,
    features,
)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def affine(x: np.ndarray, variables: list[tf.Variable]) -> np.ndarray:
    kernel, bias = (v.numpy().astype(np.float64) for v in variables)
    return x @ kernel + bias


def network(x: np.ndarray, variables: list[tf.Variable]) -> np.ndarray:
    for i in range(0, len(variables), 2):
        x = relu(affine(x, variables[i : i + 2]))
    return x


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def inputs(num_rows: int = 16) -> np.ndarray:
    return concatenated(features(num_rows)).numpy().astype(np.float64)


def assert_close(outputs: dict[str, tf.Tensor], expected: dict[str, np.ndarray]) -> None:
    assert set(outputs) == set(expected)
    for task, values in expected.items():
        np.testing.assert_allclose(outputs[task].numpy(), values, rtol=1e-4, atol=1e-5)


def built(name: str, tasks: tuple[str, ...] = TASKS, **config: Any) -> Architecture:
    layer = build(name, tasks, **config)
    layer(features())
    return layer


def as_separate_networks(layer: Architecture) -> Architecture:
    """Single-task networks with the weights of a layer's `layers`."""
    widths = [dense.units for dense in layer.layers]
    single = built("single_task", hidden_units=widths)
    for task in TASKS:
        own = [v for dense in layer.layers for v in dense.variables_of(task)]
        copy_variables(single.task_variables(task), own)
    return single


# Mixtures of experts ---------------------------------------------------------------------------


def test_mmoe_equals_its_equations() -> None:
    layer = built("mmoe", num_experts=3, expert_units=[7, 5], tower_units=[4])
    experts = [network(inputs(), layer.experts.variables_of(f"expert_{i}")) for i in range(3)]
    expected = {}
    for task in TASKS:
        gate = softmax(affine(inputs(), layer.gates.variables_of(task)))
        mixed = sum(gate[:, i : i + 1] * experts[i] for i in range(3))
        expected[task] = network(mixed, layer.towers.variables_of(task))
    assert_close(layer(features()), expected)


def test_mmoe_gates_choose_among_experts_row_by_row() -> None:
    layer = built("mmoe", num_experts=3)
    gates = layer.gates(concatenated(features())).numpy()
    assert gates.shape == (len(TASKS), 16, 3)
    np.testing.assert_allclose(gates.sum(axis=2), 1.0, rtol=1e-6)
    assert gates.std(axis=1).max() > 0.01


def test_mmoe_with_one_expert_is_shared_bottom() -> None:
    mmoe = built("mmoe", num_experts=1, expert_units=[9, 8], tower_units=[4])
    bottom = built("shared_bottom", bottom_units=[9, 8], tower_units=[4])
    copy_variables(bottom.bottom.variables_of("shared"), mmoe.experts.variables_of("expert_0"))
    for task in TASKS:
        copy_variables(bottom.towers.variables_of(task), mmoe.towers.variables_of(task))
    assert_same(mmoe(features()), bottom(features()), tolerance=1e-6)


def test_omoe_is_mmoe_with_equal_gates() -> None:
    mmoe = built("mmoe", num_experts=3, expert_units=[6], tower_units=[4])
    omoe = built("omoe", num_experts=3, expert_units=[6], tower_units=[4])
    copy_variables(omoe.experts.trainable_variables, mmoe.experts.trainable_variables)
    copy_variables(omoe.towers.trainable_variables, mmoe.towers.trainable_variables)
    for task in TASKS:
        copy_variables(mmoe.gates.variables_of(task), omoe.gates.trainable_variables)
    assert_same(mmoe(features()), omoe(features()), tolerance=1e-5)


def gates(**config: Any) -> Gates:
    layer = Gates(("a", "b"), 5, seed=1, **config)
    layer(concatenated(features()))
    return layer


def test_top_k_gate_keeps_k_and_renormalises() -> None:
    layer = gates(kind="top_k", top_k=2)
    weights = layer(concatenated(features())).numpy()
    logits = layer.logits(concatenated(features())).numpy()
    assert ((weights > 0).sum(axis=2) == 2).all()
    kept = logits >= np.sort(logits, axis=2)[:, :, -2:-1]
    expected = softmax(np.where(kept, logits.astype(np.float64), -np.inf))
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-7)


def test_top_k_gate_keeps_k_of_equal_logits() -> None:
    layer = gates(kind="top_k", top_k=2)
    for member in ("a", "b"):
        for variable in layer.variables_of(member):
            variable.assign(tf.zeros_like(variable))
    weights = layer(concatenated(features())).numpy()
    assert ((weights == 0.5).sum(axis=2) == 2).all()


def test_noise_of_gates_is_drawn_anew_and_off_when_serving() -> None:
    layer = gates(kind="noisy_top_k", top_k=2)
    x = concatenated(features())
    np.testing.assert_array_equal(layer(x), layer(x))
    first, second = layer(x, training=True).numpy(), layer(x, training=True).numpy()
    assert not np.array_equal(first, second)
    assert ((first > 0).sum(axis=2) == 2).all()
    for member in ("a", "b"):
        for variable in layer.noise.variables_of(member):
            variable.assign(tf.fill(variable.shape, -100.0 if "bias" in variable.name else 0.0))
    np.testing.assert_allclose(layer(x, training=True), layer(x), rtol=1e-5, atol=1e-7)


def test_keep_probability_is_how_often_an_expert_is_kept_when_its_noise_is_drawn_again() -> None:
    rng = np.random.default_rng(0)
    layer = gates(kind="noisy_top_k", top_k=2)
    logits, spread = rng.normal(size=(1, 3, 5)), rng.uniform(0.5, 2, size=(1, 3, 5))
    scores = logits + spread * rng.normal(size=(1, 3, 5))
    tensors = (tf.constant(x, tf.float32) for x in (logits, scores, spread))
    received = layer._keep_probability(*tensors).numpy()
    draws = 20_000
    for row in range(3):
        for expert in range(5):
            again = np.repeat(scores[0, row][np.newaxis], draws, axis=0)
            noise = spread[0, row, expert] * rng.normal(size=draws)
            again[:, expert] = logits[0, row, expert] + noise
            kept = (again > again[:, [expert]]).sum(axis=1) < 2
            assert received[0, row, expert] == pytest.approx(kept.mean(), abs=0.015)


def test_balance_losses() -> None:
    even = tf.constant([[[0.5, 0.5], [0.5, 0.5]]])
    crossed = tf.constant([[[1.0, 0.0], [0.0, 1.0]]])
    lopsided = tf.constant([[[0.9, 0.1], [0.6, 0.4]]])
    assert float(squared_variation(even)) == float(squared_variation(crossed)) == 0.0
    received = np.array([1.5, 0.5])
    expected = received.var() / received.mean() ** 2
    assert float(squared_variation(lopsided)) == pytest.approx(expected)
    both = tf.concat([lopsided, even], axis=0)
    assert float(squared_variation(both)) == pytest.approx(expected / 2)


def test_importance_loss_balances_experts() -> None:
    layer = gates(importance_weight=1.0)
    for member in ("a", "b"):
        layer.variables_of(member)[1].assign([3.0, 0.0, 0.0, 0.0, -3.0])
    x = concatenated(features(64))
    for step in range(60):
        with tf.GradientTape() as tape:
            layer(x, training=True)
            (loss,) = layer.losses
        if step == 0:
            before = float(loss)
        for v, g in zip(
            layer.trainable_variables, tape.gradient(loss, layer.trainable_variables), strict=True
        ):
            v.assign_sub(0.5 * g)
    assert before > 1.0 and float(loss) < 0.1 * before


def test_gate_dropout_renormalises() -> None:
    layer = gates(dropout=0.5)
    dropped = layer(concatenated(features(64)), training=True).numpy()
    np.testing.assert_allclose(dropped.sum(axis=2), 1.0, rtol=1e-5)
    assert 0.2 < (dropped == 0).mean() < 0.6


def test_mixtures_are_averaged_over_rows_and_slices() -> None:
    layer = built("mmoe", num_experts=3)
    for task in TASKS:
        kernel, bias = layer.gates.variables_of(task)
        kernel.assign(tf.zeros_like(kernel))
        bias.assign([0.0, np.log(3.0), -30.0])
    # For one task, rows whose first input is positive use the first expert, the others the second.
    sharp = np.zeros((11, 3))
    sharp[0] = [1000.0, -1000.0, 0.0]
    layer.gates.variables_of("watch")[0].assign(sharp)
    slices = [SliceFeature("device", 0, ("(missing)", "phone", "tv", "(other)"))]
    batches = [features(3), features(5, seed=1)]
    signs = [concatenated(b).numpy()[:, 0] > 0 for b in batches]
    ids = [np.where(positive, 1, 2) for positive in signs]
    (found,) = measure_mixtures(
        layer, lambda: [(b, {"device": i}) for b, i in zip(batches, ids, strict=True)], slices
    )
    assert found["name"] == "gates" and found["sources"] == ["expert_0", "expert_1", "expert_2"]
    assert found["unused"] == ["expert_2"]
    assert found["weights"]["click"] == pytest.approx([0.25, 0.75, 0.0], abs=1e-6)
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert found["entropy"]["click"] == pytest.approx(entropy, rel=1e-4)
    assert found["entropy"]["watch"] == pytest.approx(0.0, abs=1e-4)
    positive = np.concatenate(signs)
    share = positive.mean()
    assert 0 < share < 1
    assert found["weights"]["watch"] == pytest.approx([share, 1 - share, 0.0], abs=1e-4)
    device = found["slices"]["device"]
    assert {v: s["num_rows"] for v, s in device.items()} == {
        "phone": positive.sum(),
        "tv": (~positive).sum(),
    }
    assert device["phone"]["weights"]["watch"] == pytest.approx([1.0, 0.0, 0.0], abs=1e-4)
    assert device["tv"]["weights"]["watch"] == pytest.approx([0.0, 1.0, 0.0], abs=1e-4)
    assert device["tv"]["weights"]["click"] == pytest.approx([0.25, 0.75, 0.0], abs=1e-6)


# Soft sharing ----------------------------------------------------------------------------------


def test_trace_norm_is_the_sum_of_singular_values() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 30))
    expected = np.linalg.svd(weights, compute_uv=False).sum()
    assert float(trace_norm(tf.constant(weights))) == pytest.approx(expected, rel=1e-5)


def test_trace_norm_of_equal_networks_is_that_of_one_times_the_root_of_their_number() -> None:
    row = np.random.default_rng(0).normal(size=(1, 50))
    one = float(trace_norm(tf.constant(row)))
    assert one == pytest.approx(np.linalg.norm(row), rel=1e-5)
    four = float(trace_norm(tf.constant(np.repeat(row, 4, axis=0))))
    # Three singular values of 0 each count 1e-3: the smoothing.
    assert four == pytest.approx(2 * one, abs=0.01)


def test_trace_norm_has_finite_gradients_where_networks_are_equal() -> None:
    weights = tf.Variable(np.ones((4, 6)), dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = trace_norm(weights)
    gradient = tape.gradient(value, weights).numpy()
    np.testing.assert_allclose(gradient, np.full((4, 6), 1 / np.sqrt(24)), rtol=1e-3)


def test_squared_distance_is_that_of_all_pairs() -> None:
    w = np.random.default_rng(0).normal(size=(3, 7))
    pairs = sum(((w[i] - w[j]) ** 2).sum() for i in range(3) for j in range(i))
    assert float(squared_distance(tf.constant(w))) == pytest.approx(pairs / 3, rel=1e-5)
    assert float(squared_distance(tf.constant(np.repeat(w[:1], 5, axis=0)))) < 1e-10


@pytest.mark.parametrize("penalty", ["l2", "trace_norm"])
def test_soft_sharing_is_separate_networks_with_a_penalty_per_layer(penalty: str) -> None:
    soft = built("soft_sharing", hidden_units=[6, 5], penalty=penalty, penalty_weight=0.5)
    single = built("single_task", hidden_units=[6, 5])
    assert_same(soft(features(), training=True), single(features()), tolerance=1e-6)
    expected = 0.0
    for layer in range(2):
        rows = [
            np.concatenate(
                [v.numpy().ravel() for v in soft.task_variables(task)[2 * layer : 2 * layer + 2]]
            )
            for task in TASKS
        ]
        w = np.stack(rows).astype(np.float64)
        if penalty == "l2":
            expected += ((w - w.mean(axis=0)) ** 2).sum()
        else:
            expected += np.linalg.svd(w, compute_uv=False).sum()
    assert float(soft.penalties[penalty]) == pytest.approx(0.5 * expected, rel=1e-3)


# Stitches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{"stitch": "unit"}, {"stitch": "subspace"}], ids=str)
def test_identity_stitch_is_separate_networks(config: dict[str, Any]) -> None:
    stitched = built("cross_stitch", hidden_units=[9, 7], own_share=1.0, **config)
    assert_same(stitched(features()), as_separate_networks(stitched)(features()), tolerance=1e-6)


@pytest.mark.parametrize(
    "config",
    [{"stitch": "unit"}, {"stitch": "subspace"}, {"stitch": "subspace", "num_subspaces": 2}],
    ids=str,
)
def test_cross_stitch_equals_its_equation(config: dict[str, Any]) -> None:
    layer = built("cross_stitch", hidden_units=[6, 4], **config)
    rng = np.random.default_rng(0)
    hidden = dict.fromkeys(TASKS, inputs())
    for dense, stitch in zip(layer.layers, layer.stitches, strict=True):
        own = {t: relu(affine(hidden[t], dense.variables_of(t))) for t in TASKS}
        for task in TASKS:
            (alpha,) = stitch.variables_of(task)
            alpha.assign(rng.normal(size=alpha.shape))
            columns = np.repeat(alpha.numpy(), dense.units // alpha.shape[1], axis=1)
            hidden[task] = sum(columns[i] * own[t] for i, t in enumerate(sorted(TASKS)))
    assert_close(layer(features()), hidden)


def test_cross_stitch_starts_near_its_own_task_and_shows_it() -> None:
    layer = built("cross_stitch", TASKS[:4], hidden_units=[6], own_share=0.7)
    (matrix,) = layer.matrices()
    assert matrix.name == "stitch after layer 1"
    assert list(matrix.rows) == list(matrix.columns) == sorted(TASKS[:4])
    np.testing.assert_allclose(matrix.values, np.full((4, 4), 0.1) + 0.6 * np.eye(4), rtol=1e-6)


def test_cross_stitch_of_one_task_is_its_network() -> None:
    (matrix,) = built("cross_stitch", ("click",), hidden_units=[6]).matrices()
    assert matrix.values == [[1.0]]


def test_sluice_with_identity_alpha_and_last_layer_beta_is_separate_networks() -> None:
    sluice = built("sluice", num_layers=3, units=8, own_share=1.0)
    for task in TASKS:
        sluice.task_variables(task)[-1].assign([0.0, 0.0, 1.0])
    assert_same(sluice(features()), as_separate_networks(sluice)(features()), tolerance=1e-6)


def test_sluice_equals_its_equations() -> None:
    layer = built("sluice", num_layers=2, units=6, num_subspaces=2)
    rng = np.random.default_rng(0)
    order = sorted(TASKS)
    hidden = dict.fromkeys(TASKS, inputs())
    read: list[dict[str, np.ndarray]] = []
    for dense, stitch in zip(layer.layers, layer.stitches, strict=True):
        own = {t: relu(affine(hidden[t], dense.variables_of(t))) for t in TASKS}
        hidden = {}
        for task in TASKS:
            (alpha,) = stitch.variables_of(task)
            alpha.assign(rng.normal(size=alpha.shape))
            a = alpha.numpy()
            hidden[task] = np.concatenate(
                [
                    sum(
                        a[s, i, r] * own[t][:, 3 * r : 3 * r + 3]
                        for i, t in enumerate(order)
                        for r in range(2)
                    )
                    for s in range(2)
                ],
                axis=1,
            )
        read.append(hidden)
    expected = {}
    for task in TASKS:
        beta = layer.task_variables(task)[-1]
        beta.assign(rng.normal(size=2))
        expected[task] = sum(b * h[task] for b, h in zip(beta.numpy(), read, strict=True))
    assert_close(layer(features()), expected)
    alphas = layer.matrices()[0]
    row = list(alphas.rows).index("click 2")
    column = list(alphas.columns).index("watch 1")
    (alpha,) = layer.stitches[0].variables_of("click")
    assert alphas.values[row][column] == float(alpha[1, order.index("watch"), 0])


def test_sluice_orthogonality_is_between_subspaces_of_one_layer() -> None:
    layer = built("sluice", num_layers=2, units=6, num_subspaces=3, orthogonality_weight=2.0)
    layer(features(), training=True)
    expected = 0.0
    for dense in layer.layers:
        for task in TASKS:
            g = np.split(dense.variables_of(task)[0].numpy().astype(np.float64), 3, axis=1)
            expected += sum(((g[r].T @ g[s]) ** 2).sum() for s in range(3) for r in range(s))
    assert float(layer.penalties["orthogonality"]) == pytest.approx(2 * expected, rel=1e-4)


# Extraction ------------------------------------------------------------------------------------


def test_cgc_equals_its_equations() -> None:
    layer = built("cgc", task_experts=2, shared_experts=1, expert_units=[6], tower_units=[4])
    (level,) = layer.levels
    expected = {}
    for task in TASKS:
        names = [f"task/{task}/expert_0", f"task/{task}/expert_1", "shared/expert_0"]
        gate = softmax(affine(inputs(), level.gates.variables_of(task)))
        mixed = sum(
            gate[:, i : i + 1] * network(inputs(), level.experts.variables_of(name))
            for i, name in enumerate(names)
        )
        expected[task] = network(mixed, layer.towers.variables_of(task))
    assert_close(layer(features()), expected)


def test_ple_equals_its_equations() -> None:
    sizes = {"num_levels": 3, "task_experts": 2, "shared_experts": 2}
    layer = built("ple", expert_units=[6], tower_units=[4], **sizes)
    order = sorted(TASKS)
    own = {t: [f"task/{t}/expert_{i}" for i in range(2)] for t in TASKS}
    common = [f"shared/expert_{i}" for i in range(2)]
    reads = dict.fromkeys([*TASKS, "shared"], inputs())
    for level in layer.levels:
        experts = {
            name: network(reads[reader], level.experts.variables_of(name))
            for reader, names in (*own.items(), ("shared", common))
            for name in names
        }
        gates = {t: (level.gates.variables_of(t), [*own[t], *common]) for t in TASKS}
        if level.has_shared_gate:
            everyone = [*(name for t in order for name in own[t]), *common]
            gates["shared"] = (level.shared_gate.variables_of("shared"), everyone)
        before = dict(reads)
        for reader, (variables, names) in gates.items():
            gate = softmax(affine(before[reader], variables))
            reads[reader] = sum(gate[:, [i]] * experts[name] for i, name in enumerate(names))
    expected = {t: network(reads[t], layer.towers.variables_of(t)) for t in TASKS}
    assert_close(layer(features()), expected)


def test_ple_without_shared_experts_is_single_task() -> None:
    ple = built("ple", task_experts=1, shared_experts=0, expert_units=[9], tower_units=[5])
    single = built("single_task", hidden_units=[9, 9, 5])
    for task in TASKS:
        own = [
            *(v for lv in ple.levels for v in lv.experts.variables_of(f"task/{task}/expert_0")),
            *ple.towers.variables_of(task),
        ]
        copy_variables(single.task_variables(task), own)
    assert_same(ple(features()), single(features()), tolerance=1e-6)


def test_cgc_tasks_do_not_read_each_others_experts() -> None:
    layer = built("cgc")
    before = layer(features())
    for variable in layer.task_variables("watch"):
        variable.assign(tf.zeros_like(variable))
    after = layer(features())
    assert not np.allclose(before["watch"], after["watch"])
    others = [task for task in TASKS if task != "watch"]
    assert_same({t: before[t] for t in others}, {t: after[t] for t in others})


# Transfer --------------------------------------------------------------------------------------


def test_aitm_equals_its_equations() -> None:
    layer = built("aitm", hidden_units=[6])
    assert layer.transfers == PARENTS
    own = {t: network(inputs(), layer.towers.variables_of(t)) for t in TASKS}
    read: dict[str, np.ndarray] = {}

    def reads(task: str) -> np.ndarray:
        if task not in PARENTS:
            return own[task]
        received = relu(affine(reads(PARENTS[task]), layer.passing.variables_of(task)))
        both = np.stack([own[task], received], axis=1)
        v, q, k = (
            affine(both, part.variables_of(task))
            for part in (layer.values, layer.queries, layer.keys)
        )
        attention = softmax((q * k).sum(axis=2) / np.sqrt(6))
        read[task] = attention
        return (attention[:, :, np.newaxis] * v).sum(axis=1)

    assert_close(layer(features()), {task: reads(task) for task in TASKS})
    (mixture,) = layer.mixtures(features())
    assert set(mixture.weights) == set(PARENTS)
    for task, weights in mixture.weights.items():
        np.testing.assert_allclose(weights, read[task], rtol=1e-4, atol=1e-5)


def test_aitm_without_transfers_is_separate_networks() -> None:
    tasks = ("click", "watch", "like")
    aitm, single = (built(n, tasks, hidden_units=[9, 7]) for n in ("aitm", "single_task"))
    assert aitm.receivers == () and aitm.mixtures(features()) == []
    assert_same(aitm(features()), single(features()), tolerance=1e-6)


def test_aitm_calibrator_punishes_only_a_later_task_above_an_earlier_one() -> None:
    layer = build("aitm", transfers={"buy": "click"}, calibrator_weight=0.5)
    layer(features(4), training=True)
    probabilities = {
        "click": tf.constant([0.5, 0.2, 0.1, 0.3]),
        "buy": tf.constant([0.1, 0.3, 0.8, 0.9]),
        "like": tf.ones(4),
    }
    weights = {t: tf.ones(4) for t in probabilities} | {"click": tf.constant([1.0, 1.0, 1.0, 0.0])}
    layer.constrain(probabilities, weights)
    assert float(layer.penalties["calibrator"]) == pytest.approx(0.5 * (0.1 + 0.7) / 3)


# Settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "config", "message"),
    [
        (Mmoe, {"gate": "top_k"}, "need it"),
        (Mmoe, {"top_k": 2}, "need it"),
        (Mmoe, {"gate": "top_k", "top_k": 5}, "more than num_experts"),
        (Mmoe, {"gate": "top_k", "top_k": 2, "load_weight": 0.1}, "noisy_top_k"),
        (Mmoe, {"gate": "noisy_top_k", "top_k": 4, "load_weight": 0.1}, "below num_experts"),
        (CrossStitch, {"num_subspaces": 2}, "stitch: subspace"),
        (CrossStitch, {"stitch": "subspace", "num_subspaces": 3}, "does not divide"),
        (Sluice, {"num_subspaces": 5}, "does not divide"),
        (Sluice, {"num_subspaces": 1, "orthogonality_weight": 1.0}, "2 or more"),
        (Cgc, {"task_experts": 0}, "greater than or equal to 1"),
        (Aitm, {"hidden_units": []}, "at least 1"),
        (Aitm, {"transfers": {"a": "b", "b": "a"}}, "cyclic"),
    ],
)
def test_settings_without_meaning_are_refused(
    settings: Any, config: dict[str, Any], message: str
) -> None:
    name = settings.model_fields["architecture"].annotation.__args__[0]
    with pytest.raises(ValueError, match=message):
        settings.model_validate({"architecture": name} | config)


def test_transfers_name_trained_tasks_and_a_served_task_receives_from_served_ones() -> None:
    served = Task(kind="binary", target="x")
    tasks = {"click": served, "scroll": Task(kind="binary", target="x", role="auxiliary")}

    def problems(**transfers: str) -> list[str]:
        return list(Aitm(architecture="aitm", transfers=transfers).task_problems(tasks))

    assert problems(scroll="click") == []
    assert "unknown trained task 'clik'" in problems(scroll="clik")[0]
    assert "makes it single_task" in problems()[0]
    tasks["buy"] = Task(kind="binary", target="y", conditioned_on="click")
    assert problems() == []
    assert "not exported" in problems(click="scroll")[0]
