"""The same MMoE here and in DeepCTR: ``python -m benchmarks.peers.run``; see README.md.

Both train on Census-Income examples that the pipeline made once: ours from its files, DeepCTR from
arrays in memory. They take turns, an epoch each. Writes `docs/benchmarks/peers.json` and
`peers.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.page import page
from benchmarks.peers.setting import CONFIG, MODEL, NUM_EPOCHS, TASKS, TRAINING
from benchmarks.prepared import OVERRIDES, PreparedExamples
from models.feature_layout import FeatureLayout
from models.metrics.columns import TaskColumns
from models.metrics.estimation import compute
from models.rows import Rows
from models.spec.errors import ConfigError
from models.spec.keys import TRANSFORMED_CATEGORICAL, TRANSFORMED_NUMERIC
from pipeline.load import load_config

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "benchmarks"
_PEER = Path(__file__).resolve().parent / "deepctr_worker.py"


class Side:
    """A worker process that answers one command at a time.

    Args:
        name: For messages.
        command: What starts it; the descriptor of the pipe for its answers is appended.
    """

    def __init__(self, name: str, command: list[str]) -> None:
        """Starts the process."""
        self._name = name
        reading, writing = os.pipe()
        self._process = subprocess.Popen(
            [*command, str(writing)], cwd=ROOT, text=True, stdin=subprocess.PIPE, pass_fds=[writing]
        )
        os.close(writing)
        self._answers = os.fdopen(reading)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._answers.readline()
        if not line:
            raise RuntimeError(f"the process of {self._name} ended; its errors stand above")
        return dict(json.loads(line))

    def close(self) -> None:
        """Lets the process end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._answers.close()


def hand_over(examples: PreparedExamples, folder: Path) -> None:
    """Writes the train and test rows as arrays for a peer, with what it must know of them.

    `<split>.npz` holds ids by feature, [rows], numbers by feature, [rows, width] (with their
    piecewise-linear codes written out), and ``label/<task>``; `setting.json` the sizes.

    Raises:
        ConfigError: The configuration has a feature that is neither.
    """
    layout = FeatureLayout.of(examples.ranking)
    if layout.sequences or any(str(s.table) != s.feature.name for s in layout.categorical):
        raise ConfigError(
            "a feature that peers are not given",
            constraint="scalar features with tables of their own",
            remedy=f"remove sequences and shared tables from {CONFIG}",
        )
    sizes = {
        name: (table.num_rows(examples.transform.vocabulary_size_by_name), table.dimension)
        for name, table in layout.tables.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    widths: dict[str, int] = {}
    for split in ("train", "test"):
        columns = _arrays(examples.rows(split), layout)
        widths = {name: v.shape[1] for name, v in columns.items() if v.ndim == 2}
        for task in TASKS:
            columns[f"label/{task}"] = examples.rows(split).column(f"{task}__label")
        np.savez(folder / f"{split}.npz", **columns)
    setting = {
        "tasks": TASKS,
        "tables": sizes,
        "numbers": widths,
        "num_experts": MODEL.num_experts,
        "expert_units": MODEL.expert_units,
        "tower_units": MODEL.tower_units,
        "batch_size": TRAINING.batch_size,
        "learning_rate": TRAINING.learning_rate,
    }
    (folder / "setting.json").write_text(json.dumps(setting))


def _arrays(rows: Rows, layout: FeatureLayout) -> dict[str, NDArray[Any]]:
    batches = list(rows.in_order(8192))
    packed = {
        name: np.concatenate([batch[name].numpy() for batch in batches])
        for name in (TRANSFORMED_CATEGORICAL, TRANSFORMED_NUMERIC)
        if name in rows.batch_spec
    }
    columns: dict[str, NDArray[Any]] = {}
    for slot in layout.categorical:
        columns[slot.feature.name] = packed[TRANSFORMED_CATEGORICAL][:, slot.start]
    for slot in layout.numeric:
        values = packed[TRANSFORMED_NUMERIC][:, slot.start : slot.start + slot.width]
        if slot.pieces:
            codes = np.clip(values[:, -1:] - np.arange(slot.pieces), 0, 1)
            values = np.concatenate([values[:, :-1], codes], axis=1)
        columns[slot.feature.name] = values.astype(np.float32)
    return columns


def compete(sides: dict[str, Side], folder: Path, num_seeds: int, test: Rows) -> dict[str, Any]:
    """Trains every side under every seed, an epoch each in turns.

    Returns:
        By side: ``parameters``, ``auc`` (task to one per seed), ``epochs`` (per seed the ``wall``
        and ``cpu`` seconds of each epoch); and ``reading``, the seconds of ours per seed.
    """
    found: dict[str, Any] = {
        name: {"auc": {task: [] for task in TASKS}, "epochs": []} for name in sides
    }
    for seed in range(num_seeds):
        for name, side in sides.items():
            started = side.ask("start", seed=seed)
            found[name]["parameters"] = started["parameters"]
            if "reading" in started:
                found[name].setdefault("reading", []).append(started["reading"])
            found[name]["epochs"].append([])
        for epoch in range(NUM_EPOCHS):
            # Who goes first changes: the second finds a warmer, or a busier, machine.
            order = list(sides) if epoch % 2 == 0 else list(sides)[::-1]
            for name in order:
                found[name]["epochs"][-1].append(sides[name].ask("epoch"))
        for name, side in sides.items():
            file = folder / f"{name}.npz"
            side.ask("predict", file=str(file))
            with np.load(file) as predictions:
                for task in TASKS:
                    auc = _auc(test, task, predictions[task])
                    found[name]["auc"][task].append(auc)
            last = {task: round(found[name]["auc"][task][-1], 4) for task in TASKS}
            print(f"seed {seed}, {name}: {last}", flush=True)
    return found


def _auc(test: Rows, task: str, predictions: NDArray[Any]) -> float:
    everybody = np.arange(test.num_rows)
    columns = TaskColumns(
        label=test.column(f"{task}__label"),
        prediction=predictions,
        weight=test.column(f"{task}__weight"),
        group=everybody,
        cluster=everybody,
    )
    return compute(["auc"], columns)["auc"]


def main() -> None:
    """Prepares, lets both train, and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the two data files")
    parser.add_argument("--peer-python", required=True, help="interpreter of requirements.txt")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "peers", help="work folder")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each (default 5)")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where the results go")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds must be at least 2: an interval over seeds needs two")
    logs = options.out / "logs"
    if not (logs / "people.parquet").exists():
        from examples.census.convert import convert

        convert(options.data, logs)
    config = load_config(CONFIG, [f"logs.root={logs}", *OVERRIDES])
    examples = PreparedExamples.prepare(config, options.out / "work")
    folder = (options.out / "arrays").resolve()
    hand_over(examples, folder)
    workdir = str((options.out / "work").resolve())
    sides = {
        "polyrank": Side("polyrank", [sys.executable, "-m", "benchmarks.peers.worker", workdir]),
        "deepctr": Side("deepctr", [options.peer_python, str(_PEER), str(folder)]),
    }
    try:
        measured = compete(sides, folder, options.seeds, examples.rows("test"))
        profile = sides["polyrank"].ask("profile")
    finally:
        for side in sides.values():
            side.close()
    result = {
        "setting": {
            "rows": {split: examples.rows(split).num_rows for split in ("train", "test")},
            "num_seeds": options.seeds,
            "num_epochs": NUM_EPOCHS,
            "batch_size": TRAINING.batch_size,
            "model": MODEL.model_dump(mode="json"),
            "machine": f"{os.uname().machine}, {os.cpu_count()} cores",
        },
        "sides": measured,
        "profile": profile["seconds"],
    }
    options.docs.mkdir(parents=True, exist_ok=True)
    (options.docs / "peers.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.docs / "peers.md").write_text(page(result))


if __name__ == "__main__":
    main()
