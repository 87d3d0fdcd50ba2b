"""Trainings on examples that the pipeline made once, without running it for each of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from numpy.typing import NDArray

from models.ranking_model import RankingModel
from models.rows import Rows, read_rows
from models.spec.errors import PolyrankError
from models.spec.ranking import RankingSpec
from models.spec.training import Candidate, Training
from models.trainer import build_model
from models.training_loop import Progress, TrainingLoop
from models.validation import Validation
from pipeline.config import Config
from pipeline.run import run
from pipeline.workdir import Workdir

_ONE_CANDIDATE = "{shared_bottom: {model: {architecture: shared_bottom}}}"
OVERRIDES = (f"candidates={_ONE_CANDIDATE}", "training.epochs=1")
"""What `--set` takes to make examples with as little training as a run allows."""

_BATCH_ROWS = 8192


class PreparedExamples:
    """Examples of one work directory, transformed and raw.

    Args:
        workdir: Where `prepare` ran.
        ranking: Features and tasks, as the configuration declares them.
    """

    def __init__(self, workdir: Path, ranking: RankingSpec) -> None:
        """Finds the newest artifacts."""
        artifacts = workdir / "artifacts"
        self.transformed = _newest(artifacts / "Transform" / "transformed_examples")
        self.raw = _newest(artifacts / "LogExampleGen" / "examples")
        self.transform = tft.TFTransformOutput(
            str(_newest(artifacts / "Transform" / "transform_graph"))
        )
        self.ranking = ranking.model_view
        self._rows: dict[str, Rows] = {}

    @classmethod
    def prepare(cls, config: Config, workdir: Path) -> PreparedExamples:
        """Runs the pipeline, unless it did so here before; load `config` with `OVERRIDES`.

        What was trained on its examples stays comparable: they are not made anew when code or data
        change. Remove the folder for that.
        """
        marker = workdir / "prepared.json"
        if not marker.exists():
            summary, _ = run(config, Workdir.open(workdir, create=True))
            if not summary["examples"]:
                raise PolyrankError("the pipeline made no examples", received=summary["error"])
            made = {"run_id": summary["run_id"], "examples": summary["examples"]}
            marker.write_text(json.dumps(made))
        return cls(workdir, config.ranking)

    @cached_property
    def label_keys(self) -> list[str]:
        """Label and weight of every output."""
        return [
            k for output in self.ranking.all_outputs for k in (output.label_key, output.weight_key)
        ]

    def files(self, split: str) -> list[str]:
        """Returns the files of a split's transformed examples."""
        return sorted(str(file) for file in (self.transformed / f"Split-{split}").iterdir())

    def read(self, split: str) -> Rows:
        """Reads a split from its files, anew at each call."""
        return read_rows(
            self.files(split),
            self.transform.transformed_feature_spec(),
            self.label_keys,
            split=split,
            cache_bytes=Training().cache_bytes,
            shuffle_buffer=Training().shuffle_buffer,
        )

    def rows(self, split: str) -> Rows:
        """Returns the rows of a split, read once."""
        if split not in self._rows:
            self._rows[split] = self.read(split)
        return self._rows[split]

    def train(
        self,
        candidate: Candidate,
        training: Training,
        objective: dict[str, float],
        tasks: Sequence[str] | None = None,
    ) -> tuple[RankingModel, Progress]:
        """Trains one candidate as the Trainer does, to its best epoch on validation.

        Args:
            candidate: What to train.
            training: How, with the seed.
            objective: Weight by ``<output>.<metric>``.
            tasks: The tasks that exist; all if None.
        """
        ranking = self.ranking if tasks is None else self.ranking.restricted_to(tasks)
        tf.keras.backend.clear_session()
        tf.keras.utils.set_random_seed(training.seed)
        tf.config.experimental.enable_op_determinism()
        train = self.rows("train")
        model = build_model(ranking, training, candidate, self.transform, train)
        with tempfile.TemporaryDirectory() as folder:
            progress = TrainingLoop(
                model,
                train,
                Validation(model, self.rows("validation")),
                training,
                objective,
                checkpoint_dir=Path(folder, "checkpoints"),
                log_dir=Path(folder, "logs"),
            ).run()
        return model, progress


def predicted(
    model: RankingModel, rows: Rows, tasks: Sequence[str] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Predicts every output of the tasks, all of them if None: output name to [rows]."""
    parts: dict[str, list[NDArray[np.float32]]] = {}
    for batch in rows.in_order(_BATCH_ROWS):
        for name, values in model.predictions(batch, tasks=tasks).items():
            parts.setdefault(name, []).append(values.numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def _newest(folder: Path) -> Path:
    """Returns the artifact of the latest execution: TFX numbers them."""
    return max(folder.iterdir(), key=lambda path: int(path.name))
