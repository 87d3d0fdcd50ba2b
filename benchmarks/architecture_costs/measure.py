"""Parameters and step time of every architecture, relative to shared_bottom, in one run.

``python -m benchmarks.architecture_costs.measure`` writes the numbers beside the documentation;
then ``python -m pipeline.architecture_page`` puts them into `docs/architectures.md`.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import tensorflow as tf

from models.architectures.abstract import Architecture
from models.architectures.registry import ARCHITECTURES, build_architecture
from pipeline.architecture_page import COSTS, architectures

TASKS = ("click", "conversion", "like")
PARENTS = {"conversion": "click"}
INPUT_WIDTH = 128
BATCH_SIZE = 2048
STEPS = 4
ROUNDS = 9


def main() -> None:
    """Measures and writes."""
    rng = np.random.default_rng(0)
    inputs = {"main": tf.constant(rng.normal(size=(BATCH_SIZE, INPUT_WIDTH)), tf.float32)}
    labels = tf.constant(rng.integers(0, 2, (BATCH_SIZE, len(TASKS))), tf.float32)
    layers = {name: _build(name) for name in architectures()}
    steps = {name: _step(layer, inputs, labels) for name, layer in layers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    # Interleaved, so that a busy machine slows all of them alike.
    for _ in range(ROUNDS):
        for name, step in steps.items():
            start = time.process_time()
            for _ in range(STEPS):
                step()
            seconds[name].append(time.process_time() - start)
    base = np.array(seconds["shared_bottom"])
    result: dict[str, Any] = {
        "setting": {
            "num_tasks": len(TASKS),
            "input_width": INPUT_WIDTH,
            "batch_size": BATCH_SIZE,
            "rounds": ROUNDS,
            "tensorflow": tf.__version__,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        },
        "architectures": {
            name: {
                "parameters": int(sum(np.prod(v.shape) for v in layers[name].trainable_variables)),
                "relative_step": round(float(np.median(np.array(seconds[name]) / base)), 2),
            }
            for name in steps
        },
    }
    COSTS.parent.mkdir(parents=True, exist_ok=True)
    COSTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result["architectures"], indent=2))


def _build(name: str) -> Architecture:
    config: Any = ARCHITECTURES[name].config_class.model_validate({"architecture": name})
    return build_architecture(config, TASKS, seed=0, parents=PARENTS)


def _step(
    layer: Architecture, inputs: dict[str, tf.Tensor], labels: tf.Tensor
) -> Callable[[], None]:
    """Returns one training step with a linear head per task."""
    heads = [tf.keras.layers.Dense(1) for _ in TASKS]
    optimizer = tf.keras.optimizers.legacy.Adam()

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            outputs = layer(inputs, training=True)
            logits = [head(outputs[t]) for head, t in zip(heads, TASKS, strict=True)]
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, tf.concat(logits, axis=1))
            objective = tf.add_n([tf.reduce_mean(losses), *layer.losses])
        variables = [*layer.trainable_variables, *(v for h in heads for v in h.trainable_variables)]
        optimizer.apply_gradients(zip(tape.gradient(objective, variables), variables, strict=True))
        return objective

    return lambda: step().numpy()


if __name__ == "__main__":
    main()
