"""Runs of the trainer on the synthetic problem."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from models.spec.training import Candidate, Training
from models.trainer import run_fn
from tests.conformance.synthetic_ranking import Transformed

OBJECTIVE = {"click.auc": 1.0, "watch_seconds.mae": 0.001}


@dataclass(frozen=True)
class Run:
    """What a training wrote."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def logs(self) -> Path:
        return self.folder / "run" / "logs"

    @property
    def training(self) -> dict[str, Any]:
        return json.loads((self.folder / "run" / "training.json").read_text())

    @property
    def insights(self) -> dict[str, Any]:
        return json.loads((self.folder / "run" / "insights.json").read_text())


def train(
    transformed: Transformed,
    folder: Path,
    architecture: str = "shared_bottom",
    *,
    model: dict[str, Any] | None = None,
    auxiliary: bool = True,
    objective: dict[str, float] | None = None,
    eval_split: str = "validation",
    **training: Any,
) -> Run:
    """Trains; keyword arguments replace the training settings."""
    run = Run(folder)
    settings = {"batch_size": 256, "epochs": 3, "learning_rate": 0.01, "patience": 3} | training
    candidate = {
        "model": {"architecture": architecture} | (model or {}),
        "auxiliary": auxiliary,
    }
    run_fn(
        SimpleNamespace(
            train_files=transformed.files("train"),
            eval_files=transformed.files(eval_split),
            transform_graph_path=str(transformed.graph),
            serving_model_dir=str(run.model),
            model_run_dir=str(folder / "run"),
            custom_config={
                "name": "candidate_a",
                "ranking": transformed.ranking.model_dump_json(),
                "training": Training.model_validate(settings).model_dump_json(),
                "candidate": Candidate.model_validate(candidate).model_dump_json(),
                "objective": json.dumps(objective or OBJECTIVE),
                "checkpoint_dir": str(run.checkpoints),
                "code_hash": "test",
            },
        )
    )
    return run
