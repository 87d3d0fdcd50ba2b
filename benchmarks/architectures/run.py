"""Trains architectures on Census-Income under one budget and tabulates them; see README.md."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.architectures.page import ARCHITECTURES, PAIRS, page
from models.seeding import derived_seed
from models.spec.training import Candidate, Training
from pipeline.load import load_config

if TYPE_CHECKING:
    from benchmarks.prepared import PreparedExamples

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
    from benchmarks.prepared import OVERRIDES, PreparedExamples
    from examples.census.convert import convert

    convert(data, out / "logs")
    config = load_config(CONFIG, [f"logs.root={out / 'logs'}", *OVERRIDES])
    PreparedExamples.prepare(config, out / "work")


def train_once(examples: PreparedExamples, job: Job, trial: int, epochs: int) -> dict[str, Any]:
    """Trains once.

    Args:
        examples: What `prepare` made.
        job: What to train.
        trial: The trial whose settings are used.
        epochs: At most this many.

    Returns:
        ``objective`` on validation, ``test`` AUC by task, and what was trained.
    """
    from models.validation import Validation

    tasks = PAIRS[job.pair]
    model_settings, training_settings = settings_of(job.architecture, trial)
    seed = 0 if job.kind == "trial" else job.number + 1
    model, progress = examples.train(
        Candidate.model_validate({"model": model_settings}),
        Training.model_validate(
            training_settings | {"epochs": epochs, "patience": 2, "seed": seed}
        ),
        {f"{task}.auc": 1.0 for task in tasks},
        tasks,
    )
    test = Validation(model, examples.rows("test")).measure()
    return {
        "key": job.key, **asdict(job), "trial": trial,
        "objective": progress.best_objective, "best_epoch": progress.best_epoch,
        "test": {task: test[task]["auc"] for task in tasks},
        "parameters": model.num_parameters,
        "step_seconds": progress.step_seconds, "epochs": progress.num_epochs,
    }  # fmt: skip


def train(options: argparse.Namespace) -> None:
    """Trains what is missing."""
    from benchmarks.prepared import PreparedExamples

    part, parts = (int(x) for x in options.part.split("/"))
    examples = PreparedExamples(options.out / "work", load_config(CONFIG).ranking)
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
        record = train_once(examples, job, trial, options.epochs)
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
