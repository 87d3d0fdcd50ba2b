"""DeepCTR's side of the comparison; runs in its own environment and imports nothing of ours.

Reads commands from standard input and answers on the file descriptor it is given, one JSON line
each, as `benchmarks.peers.worker` does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat
from deepctr.models import MMOE


def main() -> None:
    """Answers until standard input ends."""
    # Not standard output: libraries print there what they like.
    answers = os.fdopen(int(sys.argv[2]), "w")
    folder = Path(sys.argv[1])
    setting = json.loads((folder / "setting.json").read_text())
    columns = [SparseFeat(name, *size) for name, size in setting["tables"].items()]
    columns += [DenseFeat(name, width) for name, width in setting["numbers"].items()]
    train, test = (_inputs(folder / f"{split}.npz", setting) for split in ("train", "test"))
    model: Any = None
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if command["do"] == "start":
            tf.keras.backend.clear_session()
            tf.keras.utils.set_random_seed(command["seed"])
            model = _model(columns, setting, command["seed"])
            answer["parameters"] = model.count_params()
        elif command["do"] == "epoch":
            wall, cpu = time.perf_counter(), time.process_time()
            model.fit(*train, batch_size=setting["batch_size"], epochs=1, verbose=0)
            answer["wall"] = time.perf_counter() - wall
            answer["cpu"] = time.process_time() - cpu
        elif command["do"] == "predict":
            predicted = model.predict(test[0], batch_size=8192, verbose=0)
            by_task = dict(zip(setting["tasks"], predicted, strict=True))
            np.savez(command["file"], **{task: p[:, 0] for task, p in by_task.items()})
        print(json.dumps(answer), file=answers, flush=True)


def _model(columns: list[Any], setting: dict[str, Any], seed: int) -> Any:
    model = MMOE(
        columns,
        num_experts=setting["num_experts"],
        expert_dnn_hidden_units=tuple(setting["expert_units"]),
        tower_dnn_hidden_units=tuple(setting["tower_units"]),
        seed=seed,
        task_types=["binary"] * len(setting["tasks"]),
        task_names=setting["tasks"],
    )
    # The same class as ours: one fused operation a variable.
    optimizer = tf.keras.optimizers.legacy.Adam(setting["learning_rate"])
    model.compile(optimizer, ["binary_crossentropy"] * len(setting["tasks"]))
    return model


def _inputs(file: Path, setting: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    with np.load(file) as stored:
        arrays = dict(stored)
    labels = [arrays.pop(f"label/{task}") for task in setting["tasks"]]
    return arrays, labels


if __name__ == "__main__":
    main()
