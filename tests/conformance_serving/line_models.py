"""Small SavedModels of plain TensorFlow that a server has to serve for the suite.

``python tests/conformance_serving/line_models.py FOLDER [FOLDER_AS_THE_SERVER_SEES_IT]`` writes
them with a model config file, for a server that is started by hand.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # when run as a script

from serving.warmup import write_warmup

VERSION = 123
SLOPE, INTERCEPT = 3.0, 1.0


def write_line(base_path: Path, version: int, *, slope: float = SLOPE) -> Path:
    """Writes ``y = slope x + 1`` with a signature of every kind, good and bad.

    The version appears only when it is whole: it is written beside its place and renamed.
    """
    base_path.mkdir(parents=True, exist_ok=True)
    staging = base_path / f".staging-{version}"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        v1 = tf.compat.v1
        serialized = v1.placeholder(tf.string, [None], "tf_example")
        features = {
            "x": tf.io.FixedLenFeature([1], tf.float32),
            "x2": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
        }
        parsed = tf.io.parse_example(serialized, features)
        weight = v1.get_variable("slope", initializer=slope)
        x = tf.identity(parsed["x"], "x")
        y = tf.identity(weight * x + INTERCEPT, "y")
        y2 = tf.identity(weight * x + INTERCEPT + 1.0, "y2")
        x2 = tf.identity(parsed["x2"], "x2")
        y3 = tf.identity(weight * x2 + INTERCEPT, "y3")
        scores = tf.concat([y, y2], axis=1)
        classes = tf.strings.as_string(tf.cast(scores, tf.int64))
        finite = tf.debugging.check_numerics(x, "x is not finite")
        fed = v1.placeholder(tf.float32, [None, 1], "fed")
        texts = v1.placeholder(tf.string, [None], "texts")
        num_steps = v1.placeholder(tf.int64, [1], "num_steps")
        slow = tf.while_loop(
            lambda step, _: step < num_steps[0],
            lambda step, total: (step + 1, total * 1.0000001),
            [tf.constant(0, tf.int64), tf.constant(1.0)],
        )[1]
        session.run(v1.global_variables_initializer())

        def signature(method: str, inputs: dict, outputs: dict) -> object:
            info = v1.saved_model.utils.build_tensor_info
            return v1.saved_model.signature_def_utils.build_signature_def(
                {name: info(tensor) for name, tensor in inputs.items()},
                {name: info(tensor) for name, tensor in outputs.items()},
                f"tensorflow/serving/{method}",
            )

        def of_examples(method: str, **outputs: object) -> object:
            return signature(method, {"inputs": serialized}, outputs)

        first_row = tf.slice(scores, [0, 0], [1, 2])
        signatures = {
            "serving_default": signature("predict", {"x": x}, {"y": y}),
            "two_inputs": signature("predict", {"x": x, "x2": x2}, {"y": y, "y3": y3}),
            "two_outputs": signature("predict", {"x": x}, {"y": y, "y2": y2}),
            "checked": signature("predict", {"x": x}, {"y": y, "finite": finite}),
            "texts": signature(
                "predict",
                {"texts": texts},
                {"lower": tf.strings.lower(texts), "raw_bytes": tf.identity(texts)},
            ),
            "scalar": signature("predict", {"x": fed}, {"total": tf.reduce_sum(fed)}),
            "slow": signature("predict", {"num_steps": num_steps}, {"total": slow}),
            "examples": of_examples("predict", y=y),
            "regress_x_to_y": of_examples("regress", outputs=y),
            "regress_x_to_y2": of_examples("regress", outputs=y2),
            "regress_flat": of_examples("regress", outputs=tf.reshape(y, [-1])),
            "regress_x2_to_y3": signature("regress", {"inputs": x2}, {"outputs": y3}),
            "regress_wide": of_examples("regress", outputs=scores),
            "regress_short": of_examples("regress", outputs=tf.slice(y, [0, 0], [1, 1])),
            "regress_texts": of_examples("regress", outputs=tf.strings.as_string(y)),
            "regress_misnamed": of_examples("regress", y=y),
            "classify_x_to_y": of_examples("classify", classes=classes, scores=scores),
            "classify_scores": of_examples("classify", scores=scores),
            "classify_classes": of_examples("classify", classes=classes),
            "classify_flat": of_examples("classify", scores=tf.reshape(y, [-1])),
            "classify_short": of_examples("classify", scores=first_row),
            "classify_numbers": of_examples("classify", classes=scores),
            "classify_texts": of_examples("classify", scores=classes),
            "classify_uneven": of_examples("classify", classes=classes, scores=y),
            "classify_misnamed": of_examples("classify", y=y),
        }
        with_default = signature("predict", {"x": fed, "x2": x2}, {"sum": fed + x2})
        with_default.defaults["x2"].CopyFrom(tf.make_tensor_proto([[7.0]]))
        signatures["with_default"] = with_default
        builder = v1.saved_model.builder.SavedModelBuilder(str(staging))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()
    write_warmup(staging, {"serving_default": {"x": np.ones((1, 1), np.float32)}})
    return staging.rename(base_path / str(version))


class _Tf2Line(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = tf.Variable(SLOPE)

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, "x")])
    def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": self.slope * x + INTERCEPT}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def regress(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([1], tf.float32)})
        return {"outputs": self.slope * parsed["x"] + INTERCEPT}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([1], tf.float32)})
        return {"scores": self.slope * parsed["x"] + INTERCEPT}


def write_tf2_line(base_path: Path, version: int) -> Path:
    """Writes the same line with `tf.saved_model.save`, as TF2 exports are."""
    base_path.mkdir(parents=True, exist_ok=True)
    staging = base_path / f".staging-{version}"
    line = _Tf2Line()
    signatures = {
        "serving_default": line.predict,
        "regress": line.regress,
        "classify": line.classify,
    }
    tf.saved_model.save(line, str(staging), signatures=signatures)
    return staging.rename(base_path / str(version))


def write_all(folder: Path, folder_of_server: Path) -> None:
    """Writes the models that are there from the start, and a model config file for them."""
    for name, write in (("line", write_line), ("tf2_line", write_tf2_line)):
        if not (folder / name / str(VERSION)).exists():
            write(folder / name, VERSION)
    configs = "".join(
        f"  config {{\n    name: '{name}'\n    base_path: '{folder_of_server / name}'\n"
        "    model_platform: 'tensorflow'\n  }\n"
        for name in ("line", "tf2_line")
    )
    (folder / "models.config").write_text(f"model_config_list {{\n{configs}}}\n")


if __name__ == "__main__":
    written = Path(sys.argv[1])
    write_all(written, Path(sys.argv[2]) if len(sys.argv) > 2 else written)
