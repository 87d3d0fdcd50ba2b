"""Our side of the comparison: the pipeline's model on the pipeline's files.

Reads commands from standard input and answers on the file descriptor it is given, one JSON line
each: ``start`` (with ``seed``) builds the model anew, ``epoch`` trains one, ``predict`` writes the
test predictions to ``file``, ``profile`` says what bounds an epoch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks.peers.setting import CANDIDATE, CONFIG, TASKS, TRAINING
from benchmarks.prepared import PreparedExamples, predicted
from models.ranking_model import RankingModel
from models.rows import Rows, StreamedRows
from models.spec.training import Training
from models.trainer import build_model
from pipeline.load import load_config

_PROFILED_STEPS = 20


class Worker:
    """One model in training.

    Args:
        workdir: Where the pipeline made the examples.
    """

    def __init__(self, workdir: Path) -> None:
        """Finds the files."""
        self._examples = PreparedExamples(workdir, load_config(CONFIG).ranking.restricted_to(TASKS))
        self._training = TRAINING
        self._epoch = 0
        self._rows: Rows
        self._model: RankingModel
        self._step: Callable[..., Any]

    def start(self, seed: int) -> dict[str, Any]:
        """Reads the files and builds the model; the time it takes to read is ours to pay."""
        self._training = TRAINING.model_copy(update={"seed": seed})
        self._epoch = 0
        tf.keras.backend.clear_session()
        tf.keras.utils.set_random_seed(seed)
        wall, cpu = time.perf_counter(), time.process_time()
        self._rows = self._examples.read("train")
        reading = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        self._model = self._build(self._training)
        self._step = tf.function(self._model.train_step, input_signature=[self._rows.batch_spec])
        return {"parameters": self._model.num_parameters, "reading": reading}

    def epoch(self) -> dict[str, Any]:
        """Trains one epoch as `TrainingLoop` does."""
        self._epoch += 1
        wall, cpu = time.perf_counter(), time.process_time()
        losses = [self._step(batch) for batch in self._batches(self._rows)]
        float(losses[-1]["total"])
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    def predict(self, file: str) -> dict[str, Any]:
        """Writes test predictions by task."""
        np.savez(file, **predicted(self._model, self._examples.rows("test")))
        return {}

    def profile(self) -> dict[str, Any]:
        """Measures the parts of an epoch alone: CPU seconds for one pass over the train rows."""
        batch = next(self._rows.in_order(self._training.batch_size))
        scale = self._rows.num_rows / self._training.batch_size / _PROFILED_STEPS
        model = self._model

        def gradients(batch: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = model.compute_loss(batch, training=True)
            return [tf.convert_to_tensor(g) for g in tape.gradient(loss, model.trainable_variables)]

        spec = [self._rows.batch_spec]
        parts: dict[str, Callable[[], Any]] = {
            "forward": tf.function(lambda b: model.compute_loss(b, training=True), spec),
            "forward and backward": tf.function(gradients, spec),
            "step": self._step,
        }
        seconds = {name: scale * _seconds(part, batch) for name, part in parts.items()}
        streamed = StreamedRows(
            self._examples.files("train"),
            {n: f for n, f in self._examples.transform.transformed_feature_spec().items()
             if n in self._rows.batch_spec},
            self._training.shuffle_buffer,
        )  # fmt: skip
        for name, rows in (("input from memory", self._rows), ("input from files", streamed)):
            start = time.process_time()
            for _ in self._batches(rows):
                pass
            seconds[name] = time.process_time() - start
        return {"seconds": seconds}

    def _batches(self, rows: Rows) -> Iterator[Any]:
        return rows.shuffled(self._training.batch_size, self._training.seed, self._epoch)

    def _build(self, training: Training) -> RankingModel:
        return build_model(
            self._examples.ranking, training, CANDIDATE, self._examples.transform, self._rows
        )


def _seconds(function: Callable[..., Any], batch: Any) -> float:
    """Returns the CPU seconds of `_PROFILED_STEPS` calls, after one that traces."""
    function(batch)
    start = time.process_time()
    for _ in range(_PROFILED_STEPS):
        result = function(batch)
    tf.nest.map_structure(lambda t: t.numpy(), result)
    return time.process_time() - start


def main() -> None:
    """Answers until standard input ends."""
    # Not standard output: libraries print there what they like.
    answers = os.fdopen(int(sys.argv[2]), "w")
    worker = Worker(Path(sys.argv[1]))
    for line in sys.stdin:
        command = json.loads(line)
        answer = getattr(worker, command.pop("do"))(**command)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
