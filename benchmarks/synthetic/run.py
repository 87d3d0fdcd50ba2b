"""The synthetic experiment of the MMoE paper: ``python -m benchmarks.synthetic.run``.

Two regression tasks whose correlation is set, learnt by shared_bottom and mmoe with as many
parameters. Writes `docs/benchmarks/synthetic.json`, `synthetic.svg` and `synthetic.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy import stats

from benchmarks.synthetic.page import page, plot
from models.architectures.abstract import Architecture
from models.architectures.registry import ARCHITECTURES, build_architecture

DOCS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
TASKS = ("a", "b")
MODELS: dict[str, dict[str, Any]] = {
    "shared_bottom": {"bottom_units": [126], "tower_units": [8]},
    "mmoe": {"num_experts": 8, "expert_units": [16], "tower_units": [8]},
}
"""The paper's sizes; the width of the shared layer makes the numbers of parameters equal."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Setting:
    """What is drawn and how it is learnt."""

    correlations: tuple[float, ...] = (0.0, 0.5, 0.9, 1.0)
    num_seeds: int = 5
    num_inputs: int = 100
    num_train: int = 10_000
    num_validation: int = 2_000
    num_test: int = 5_000
    alphas: tuple[float, ...] = (1.0, 2.0, 3.0)
    betas: tuple[float, ...] = (0.0, 1.0, 2.0)
    noise: float = 0.1
    batch_size: int = 100
    epochs: int = 10
    learning_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)


def draw(setting: Setting, correlation: float, seed: int) -> tuple[Array, Array]:
    """Draws inputs [rows, d] and labels [rows, 2]: train, validation, test.

    As in section 3.2 of the MMoE paper.
    """
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(setting.num_inputs, 2)))
    first = basis[:, 0]
    second = correlation * first + np.sqrt(1 - correlation**2) * basis[:, 1]
    num_rows = setting.num_train + setting.num_validation + setting.num_test
    inputs = rng.normal(size=(num_rows, setting.num_inputs))
    projected = inputs @ np.stack([first, second], axis=1)
    waves = sum(
        np.sin(alpha * projected + beta)
        for alpha, beta in zip(setting.alphas, setting.betas, strict=True)
    )
    labels = projected + waves + setting.noise * rng.normal(size=projected.shape)
    return inputs.astype(np.float32), labels.astype(np.float32)


class Learner:
    """One model whose training is traced once and repeated from other seeds.

    Args:
        name: Architecture.
        setting: How it is learnt.
    """

    def __init__(self, name: str, setting: Setting) -> None:
        """Builds the model."""
        self._name = name
        self._setting = setting
        self._layer = self._build(0)
        self._heads = [tf.keras.layers.Dense(1) for _ in TASKS]
        self._optimizer = tf.keras.optimizers.legacy.Adam(setting.learning_rates[0])
        probe = tf.zeros([1, setting.num_inputs])
        self._predict(probe)
        self._variables = [
            *self._layer.trainable_variables,
            *(v for head in self._heads for v in head.trainable_variables),
        ]
        self._optimizer.apply_gradients([(tf.zeros_like(v), v) for v in self._variables])
        self._epoch: Callable[..., None] = tf.function(self._one_epoch)
        self._error = tf.function(self._squared_error)

    @property
    def num_parameters(self) -> int:
        """Number of trained numbers."""
        return int(sum(np.prod(v.shape) for v in self._variables))

    def learn(
        self, inputs: Array, labels: Array, seed: int, learning_rate: float
    ) -> tuple[float, float]:
        """Trains from the start of a seed; returns the mean squared errors on validation, test."""
        fresh = self._build(seed)
        fresh({"main": tf.zeros([1, self._setting.num_inputs])})
        for to, source in zip(
            self._layer.trainable_variables, fresh.trainable_variables, strict=True
        ):
            to.assign(source)
        rng = np.random.default_rng(seed)
        for head in self._heads:
            head.kernel.assign(rng.normal(size=head.kernel.shape, scale=0.3))
            head.bias.assign([0.0])
        for variable in self._optimizer.variables():
            variable.assign(tf.zeros_like(variable))
        self._optimizer.learning_rate.assign(learning_rate)
        num_train = self._setting.num_train
        x, y = tf.constant(inputs[:num_train]), tf.constant(labels[:num_train])
        for _ in range(self._setting.epochs):
            self._epoch(x, y, tf.constant(rng.permutation(num_train), tf.int32))
        cut = num_train + self._setting.num_validation
        validation, test = (
            float(self._error(tf.constant(inputs[rows]), tf.constant(labels[rows])))
            for rows in (slice(num_train, cut), slice(cut, None))
        )
        return validation, test

    def _build(self, seed: int) -> Architecture:
        config: Any = ARCHITECTURES[self._name].config_class.model_validate(
            {"architecture": self._name} | MODELS[self._name]
        )
        return build_architecture(config, TASKS, seed)

    def _predict(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        outputs = self._layer({"main": inputs}, training=training)
        return tf.concat(
            [head(outputs[task]) for head, task in zip(self._heads, TASKS, strict=True)], axis=1
        )

    def _squared_error(self, inputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.square(self._predict(inputs) - labels))

    def _one_epoch(self, inputs: tf.Tensor, labels: tf.Tensor, order: tf.Tensor) -> None:
        size = self._setting.batch_size
        for start in tf.range(0, self._setting.num_train, size):
            rows = order[start : start + size]
            with tf.GradientTape() as tape:
                error = tf.square(
                    self._predict(tf.gather(inputs, rows), training=True) - tf.gather(labels, rows)
                )
                loss = tf.reduce_mean(error)
            gradients = tape.gradient(loss, self._variables)
            self._optimizer.apply_gradients(zip(gradients, self._variables, strict=True))


def measure(setting: Setting) -> dict[str, Any]:
    """Learns every correlation with every seed and both models on the same rows."""
    start = time.process_time()
    learners = {name: Learner(name, setting) for name in MODELS}
    rows = []
    for correlation in setting.correlations:
        drawn = [draw(setting, correlation, seed) for seed in range(setting.num_seeds)]
        chosen: dict[str, float] = {}
        errors: dict[str, list[float]] = {}
        for name, learner in learners.items():
            # Errors by learning rate: [seeds, (validation, test)].
            tried = {
                rate: np.array([learner.learn(*d, seed, rate) for seed, d in enumerate(drawn)])
                for rate in setting.learning_rates
            }
            chosen[name] = min(tried, key=lambda rate: float(tried[rate][:, 0].mean()))
            errors[name] = tried[chosen[name]][:, 1].tolist()
        gap = np.array(errors["shared_bottom"]) - np.array(errors["mmoe"])
        rows.append(
            {
                "correlation": correlation,
                "label_correlation": float(np.mean([np.corrcoef(y.T)[0, 1] for _, y in drawn])),
                "learning_rates": chosen,
                "errors": errors,
                "means": {name: interval(np.array(values)) for name, values in errors.items()},
                "gap": interval(gap),
            }
        )
        print(json.dumps({k: v for k, v in rows[-1].items() if k != "errors"}), flush=True)
    return {
        "setting": asdict(setting),
        "parameters": {name: learner.num_parameters for name, learner in learners.items()},
        "cpu_seconds": round(time.process_time() - start),
        "rows": rows,
    }


def interval(values: NDArray[np.float64]) -> dict[str, float]:
    """Returns the mean and its 95 % t-interval over seeds."""
    margin = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    mean = float(values.mean())
    return {"mean": mean, "low": mean - float(margin), "high": mean + float(margin)}


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=Setting.num_seeds)
    parser.add_argument("--out", type=Path, default=DOCS)
    arguments = parser.parse_args()
    result = measure(Setting(num_seeds=arguments.seeds))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "synthetic.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.out / "synthetic.svg").write_text(plot(result))
    (arguments.out / "synthetic.md").write_text(page(result))


if __name__ == "__main__":
    main()
