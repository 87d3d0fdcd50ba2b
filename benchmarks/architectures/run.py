"""Trains architectures on Census-Income under one budget and tabulates them; see README.md."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.architectures.page import ARCHITECTURES, PAIRS, page
from models.seeding import derived_seed
from models.spec.ranking import RankingSpec
from models.spec.training import Candidate, Training
from pipeline.load import load_config

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "examples" / "census" / "config.yaml"
DOCS = ROOT / "docs" / "benchmarks"


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        pair: Task group.
        architecture: Name in the registry.
        kind: ``trial`` of the search, ``final`` under a seed, or ``same`` of the A/A comparison.
        number: Number of the trial, or the seed.
    """

    pair: str
    architecture: str
    kind: str
    number: int

    @property
    def key(self) -> str:
        """Identifies the job in the results."""
        return "/".join(map(str, asdict(self).values()))


def settings_of(architecture: str, trial: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draws the settings of one trial; the same numbers of one trial for every architecture.

    Args:
        architecture: Name in the registry.
        trial: Number of the trial.

    Returns:
        The architecture's own settings, and those of the training.
    """
    rng = np.random.default_rng(derived_seed(0, "census", trial))
    training = {
        "learning_rate": float(np.exp(rng.uniform(np.log(3e-4), np.log(3e-3)))),
        "embedding_learning_rate": float(np.exp(rng.uniform(np.log(3e-4), np.log(3e-3)))),
        "embedding_l2": float(rng.choice([0.0, 1e-5, 1e-4])),
        "batch_size": int(rng.choice([512, 1024, 2048])),
    }
    wide = int(rng.choice([64, 128, 256]))
    narrow = int(rng.choice([16, 32, 64]))
    dropout = float(rng.choice([0.0, 0.1, 0.3]))
    experts = int(rng.choice([2, 4]))
    own: dict[str, dict[str, Any]] = {
        "single_task": {"hidden_units": [wide, narrow]},
        "shared_bottom": {"bottom_units": [wide], "tower_units": [narrow]},
        "mmoe": {"num_experts": 2 * experts, "expert_units": [wide // 2], "tower_units": [narrow]},
        "cross_stitch": {"hidden_units": [wide, narrow]},
        "ple": {"tower_units": [narrow]},
        "aitm": {},
    }
    return {"architecture": architecture, "dropout": dropout} | own[architecture], training


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """Yields all trainings, searches first."""
    pairs = [options.pair] if options.pair else list(PAIRS)
    names = [options.architecture] if options.architecture else list(ARCHITECTURES)
    for kind, count in (("trial", options.trials), ("final", options.seeds)):
        for pair in pairs:
            for name in names:
                for number in range(count):
                    yield Job(pair, name, kind, number)
    for number in range(2 * options.same * options.seeds):
        # Seeds that no final training has.
        yield Job(pairs[0], "shared_bottom", "same", 1000 + number)


def results_in(out: Path) -> dict[str, dict[str, Any]]:
    """Reads every finished training, by `Job.key`."""
    found = {}
    for file in sorted(out.glob("results-*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            found[record["key"]] = record
    return found


def best_trial(
    results: dict[str, dict[str, Any]], pair: str, architecture: str, num_trials: int
) -> int | None:
    """Returns the trial with the largest sum of both AUCs on validation; None before the last."""
    prefix = f"{pair}/{architecture}/trial/"
    trials = [r for key, r in results.items() if key.startswith(prefix)]
    if len(trials) < num_trials:
        return None
    return int(max(trials, key=lambda r: r["objective"])["number"])


def prepare(data: Path, out: Path) -> None:
    """Makes the transformed examples: LogExampleGen and Transform of the example's pipeline."""
    from examples.census.convert import convert
    from pipeline.run import run
    from pipeline.workdir import Workdir

    convert(data, out / "logs")
    overrides = [
        f"logs.root={out / 'logs'}", "training.epochs=1",
        "candidates={shared_bottom: {model: {architecture: shared_bottom}}}",
    ]  # fmt: skip
    summary, _ = run(load_config(CONFIG, overrides), Workdir.open(out / "work", create=True))
    print(f"{summary['run_id']}: {summary['state']}, {summary['examples']}")


class Trainings:
    """Trains on the prepared examples.

    Args:
        out: Folder of `prepare`.
    """

    def __init__(self, out: Path) -> None:
        """Reads the three splits once."""
        import tensorflow_transform as tft

        from models.rows import read_rows

        self._ranking = load_config(CONFIG).ranking.model_view
        artifacts = out / "work" / "artifacts" / "Transform"
        self._transform = tft.TFTransformOutput(str(_only(artifacts / "transform_graph")))
        examples = _only(artifacts / "transformed_examples")
        keys = [k for o in self._ranking.all_outputs for k in (o.label_key, o.weight_key)]
        self._rows = {
            split: read_rows(
                [str(examples / f"Split-{split}" / "*")],
                self._transform.transformed_feature_spec(),
                keys,
                split=split,
                cache_bytes=1 << 31,
                shuffle_buffer=1,
            )
            for split in ("train", "validation", "test")
        }

    def __call__(self, job: Job, trial: int, epochs: int) -> dict[str, Any]:
        """Trains once.

        Args:
            job: What to train.
            trial: The trial whose settings are used.
            epochs: At most this many.

        Returns:
            ``objective`` on validation, ``test`` AUC by task, and what was trained.
        """
        import tensorflow as tf

        from models.trainer import build_model
        from models.training_loop import TrainingLoop
        from models.validation import Validation

        tasks = PAIRS[job.pair]
        content = self._ranking.model_dump()
        content["tasks"] = {task: content["tasks"][task] for task in tasks}
        ranking = RankingSpec.model_validate(content)
        model_settings, training_settings = settings_of(job.architecture, trial)
        seed = 0 if job.kind == "trial" else job.number + 1
        training = Training.model_validate(
            training_settings | {"epochs": epochs, "patience": 2, "seed": seed}
        )
        candidate = Candidate.model_validate({"model": model_settings})
        tf.keras.backend.clear_session()
        tf.keras.utils.set_random_seed(seed)
        model = build_model(ranking, training, candidate, self._transform, self._rows["train"])
        with tempfile.TemporaryDirectory() as folder:
            progress = TrainingLoop(
                model,
                self._rows["train"],
                Validation(model, self._rows["validation"]),
                training,
                {f"{task}.auc": 1.0 for task in tasks},
                checkpoint_dir=Path(folder, "checkpoints"),
                log_dir=Path(folder, "logs"),
            ).run()
        test = Validation(model, self._rows["test"]).measure()
        return {
            "key": job.key, **asdict(job), "trial": trial,
            "objective": progress.best_objective, "best_epoch": progress.best_epoch,
            "test": {task: test[task]["auc"] for task in tasks},
            "parameters": model.num_parameters,
            "step_seconds": progress.step_seconds, "epochs": progress.num_epochs,
        }  # fmt: skip


def _only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def train(options: argparse.Namespace) -> None:
    """Trains what is missing."""
    part, parts = (int(x) for x in options.part.split("/"))
    trainings = Trainings(options.out)
    for index, job in enumerate(jobs(options)):
        done = results_in(options.out)
        if index % parts != part or job.key in done:
            continue
        trial = job.number
        if job.kind != "trial":
            found = best_trial(done, job.pair, job.architecture, options.trials)
            if found is None:
                print(f"{job.key}: left for later, not every trial has finished", flush=True)
                continue
            trial = found
        record = trainings(job, trial, options.epochs)
        with (options.out / f"results-{part}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{job.key}: {record['objective']:.4f} {record['test']}", flush=True)


def tabulate(out: Path, *, write: bool) -> None:
    """Prints the page, or writes it with the results it is made of."""
    results = results_in(out)
    text = page(list(results.values()))
    if not write:
        print(text)
        return
    (DOCS / "census.md").write_text(text, encoding="utf-8")
    lines = [json.dumps(results[key]) + "\n" for key in sorted(results)]
    (DOCS / "census.jsonl").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Parses the command line."""
    # Read when TensorFlow is first imported, which happens inside the commands.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, dest="command")
    command = commands.add_parser("prepare", help="make the transformed examples")
    command.add_argument("--data", type=Path, required=True, help="folder of the data set")
    command.add_argument("--out", type=Path, required=True, help="folder of everything made here")
    command = commands.add_parser("train", help="train what is missing")
    command.add_argument("--out", type=Path, required=True, help="folder of `prepare`")
    command.add_argument("--part", default="0/1", help="this process's share, e.g. 0/2")
    command.add_argument("--pair", choices=sorted(PAIRS), help="one task group")
    command.add_argument("--architecture", choices=ARCHITECTURES, help="one architecture")
    command.add_argument("--trials", type=int, default=8, help="of the search, each (default 8)")
    command.add_argument("--seeds", type=int, default=5, help="of the best settings (default 5)")
    command.add_argument("--epochs", type=int, default=8, help="at most (default 8)")
    command.add_argument("--same", type=int, default=0, help="pairs of the A/A comparison")
    command = commands.add_parser("table", help="print the page")
    command.add_argument("--out", type=Path, required=True, help="folder of `prepare`")
    command.add_argument("--write", action="store_true", help="write docs/benchmarks/census.*")
    options = parser.parse_args()
    if options.command == "prepare":
        prepare(options.data, options.out)
    elif options.command == "train":
        train(options)
    else:
        tabulate(options.out, write=options.write)


if __name__ == "__main__":
    main()
