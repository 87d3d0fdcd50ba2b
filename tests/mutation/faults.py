"""Plausible mistakes in sharing architectures, each with the tests that must notice it."""

from __future__ import annotations

from dataclasses import dataclass

CONFORMANCE = "tests/conformance/test_architectures.py"
SHARING = "tests/conformance/test_sharing.py"
BALANCERS = "tests/conformance/test_balancers.py"
LINKS = "tests/unit/test_models_links.py"
TRAINING_MMOE = f"{CONFORMANCE}::test_training_a_model[mmoe]"


@dataclass(frozen=True)
class Fault:
    """One change of one file.

    Attributes:
        name: What is wrong, in a few words.
        path: The file.
        right: The text as it stands, exactly once in the file.
        wrong: What replaces it.
        tests: The smallest set of tests known to notice.
    """

    name: str
    path: str
    right: str
    wrong: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "stitches start all ones: features are summed, not mixed",
        "models/architectures/stitch.py",
        "row[i] = self.own_share if num_tasks > 1 else 1.0",
        "row[:] = 1.0",
        (f"{SHARING}::test_identity_stitch_is_separate_networks",),
    ),
    Fault(
        "gate softmax over the batch axis",
        "models/architectures/gates.py",
        "weights = tf.nn.softmax(scores, axis=-1)",
        "weights = tf.nn.softmax(scores, axis=1)",
        (f"{SHARING}::test_mmoe_gates_choose_among_experts_row_by_row",),
    ),
    Fault(
        "gate softmax over the task axis",
        "models/architectures/gates.py",
        "weights = tf.nn.softmax(scores, axis=-1)",
        "weights = tf.nn.softmax(scores, axis=0)",
        (f"{SHARING}::test_mmoe_equals_its_equations",),
    ),
    Fault(
        "the mask is ignored",
        "models/task_loss.py",
        "tf.where(counts, sample_weight * rows, 0.0)",
        "rows",
        (f"{LINKS}::test_task_loss_is_a_weighted_mean",),
    ),
    Fault(
        "labels of masked rows count",
        "models/task_loss.py",
        "counts = sample_weight > 0",
        "counts = sample_weight >= 0",
        (TRAINING_MMOE,),
    ),
    Fault(
        "sum for mean",
        "models/task_loss.py",
        "return tf.math.divide_no_nan(total, tf.reduce_sum(sample_weight))",
        "return total",
        (f"{LINKS}::test_task_loss_is_a_weighted_mean",),
    ),
    Fault(
        "mean over all rows, masked ones too",
        "models/task_loss.py",
        "return tf.math.divide_no_nan(total, tf.reduce_sum(sample_weight))",
        "return total / tf.cast(tf.size(sample_weight), total.dtype)",
        (f"{LINKS}::test_task_loss_is_a_weighted_mean",),
    ),
    Fault(
        "every task takes the first task's weight",
        "models/balancers/fixed.py",
        "config.weights.get(task, traits[task].weight)",
        "config.weights.get(task, traits[self.tasks[0]].weight)",
        (f"{BALANCERS}::test_fixed_and_equal",),
    ),
    Fault(
        "units initialised alike",
        "models/architectures/batched_dense.py",
        "initializer=tf.keras.initializers.GlorotUniform(\n"
        "                    seed=derived_seed(self.seed, member)\n"
        "                ),",
        "initializer=tf.keras.initializers.Constant(0.1),",
        (f"{CONFORMANCE}::test_units_start_unlike_each_other[mmoe]",),
    ),
    Fault(
        "experts initialised alike",
        "models/architectures/batched_dense.py",
        "seed=derived_seed(self.seed, member)",
        "seed=self.seed",
        (f"{CONFORMANCE}::test_units_start_unlike_each_other[mmoe]",),
    ),
    Fault(
        "a task's start depends on its position",
        "models/architectures/batched_dense.py",
        "seed=derived_seed(self.seed, member)",
        "seed=derived_seed(self.seed, label)",
        (f"{CONFORMANCE}::test_a_task_starts_the_same_whatever_the_others_are[cross_stitch]",),
    ),
    Fault(
        "stitch transposed: what a task gives in place of what it takes",
        "models/architectures/stitch.py",
        "alphas[:, :, tf.newaxis, :] * inputs",
        "tf.transpose(alphas, [1, 0, 2])[:, :, tf.newaxis, :] * inputs",
        (f"{SHARING}::test_cross_stitch_equals_its_equation",),
    ),
    Fault(
        "the balance loss is not added to the objective",
        "models/architectures/penalty.py",
        "self.add_loss(self.weight * value)",
        "pass",
        (f"{CONFORMANCE}::test_penalties_have_names_weights_and_gradients[mmoe]",),
    ),
    Fault(
        "the balance loss hides in the tasks' losses",
        "models/ranking_model.py",
        "weight * loss for task, loss in losses.items()])",
        "weight * loss for task, loss in losses.items()] + self.architecture.losses)",
        (TRAINING_MMOE,),
    ),
    Fault(
        "the calibrator pulls an earlier task below a later one",
        "models/architectures/aitm.py",
        "tf.nn.relu(probabilities[t] - probabilities[s])",
        "tf.nn.relu(probabilities[s] - probabilities[t])",
        (f"{SHARING}::test_aitm_calibrator_punishes_only_a_later_task_above_an_earlier_one",),
    ),
    Fault(
        "attention of AITM is not scaled",
        "models/architectures/aitm.py",
        "scale = self.config.hidden_units[-1] ** 0.5",
        "scale = 1.0",
        (f"{SHARING}::test_aitm_equals_its_equations",),
    ),
    Fault(
        "PLE's shared gate reads a task's input",
        "models/architectures/extraction.py",
        "self.shared_gate(inputs if everyone else _picked(inputs, [-1]))",
        "self.shared_gate(inputs if everyone else _picked(inputs, [0]))",
        (f"{SHARING}::test_ple_equals_its_equations",),
    ),
    Fault(
        "trace norm without the root: the squared Frobenius norm",
        "models/architectures/soft_sharing.py",
        "tf.reduce_sum(tf.sqrt(tf.maximum(eigenvalues, 0.0) + _EPSILON))",
        "tf.reduce_sum(eigenvalues)",
        (f"{SHARING}::test_trace_norm_is_the_sum_of_singular_values",),
    ),
    Fault(
        "ESMM's product takes the conditional alone",
        "models/links.py",
        "return own if parent is None else self.log_probabilities(parent, heads).then(own)",
        "return own",
        (f"{LINKS}::test_conditioned_loss_is_the_cross_entropy_of_the_product",),
    ),
    Fault(
        "the inverse propensity is a propensity",
        "models/losses/counterfactual.py",
        "return observed / tf.maximum(",
        "return observed * tf.maximum(",
        (f"{LINKS}::test_counterfactual_losses_equal_their_equations",),
    ),
    Fault(
        "the propensity is trained by the correction",
        "models/losses/counterfactual.py",
        "tf.stop_gradient(propensity)",
        "tf.identity(propensity)",
        (f"{LINKS}::test_corrections_do_not_move_the_propensity",),
    ),
    Fault(
        "dropout and noise stay on when serving",
        "models/architectures/seeded_dropout.py",
        "if not training or self.rate == 0:",
        "if self.rate == 0:",
        (f"{CONFORMANCE}::test_dropout_is_seeded_and_off_when_serving[shared_bottom]",),
    ),
)
