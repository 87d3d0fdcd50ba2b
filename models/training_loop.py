"""Epochs, early stopping and checkpoints."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from models.metrics.objective import objective_value
from models.ranking_model import PENALTY, TOTAL, RankingModel
from models.rows import Rows
from models.scalar_log import ScalarLog
from models.spec.errors import DataError
from models.spec.training import Training
from models.validation import Validation, as_json


@dataclass
class Progress:
    """How far a training is; saved in every checkpoint.

    Attributes:
        epochs: One record per finished epoch: ``epoch`` (from 1), ``train_loss`` by task and
            total, ``task_weights``, ``penalties`` of the architecture by name, ``validation`` by
            output and metric, ``objective``.
        best_epoch: The epoch with the best objective; 0 before the first.
        best_objective: Its objective; None where it was undefined.
        train_seconds: Time spent in finished epochs, validation included.
        step_seconds: Time spent stepping.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_objective: float | None = None
    train_seconds: float = 0.0
    step_seconds: float = 0.0

    @property
    def num_epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.epochs)


class _ProgressState(tf.train.experimental.PythonState):
    """Carries `Progress` inside a TensorFlow checkpoint."""

    def __init__(self) -> None:
        self.progress = Progress()

    def serialize(self) -> str:
        return json.dumps(asdict(self.progress))

    def deserialize(self, string_value: str) -> None:
        self.progress = Progress(**json.loads(string_value))


class TrainingLoop:
    """Trains a model until its objective on validation stops rising.

    After every epoch the state is checkpointed: a training that was killed goes on after its last
    finished epoch and ends with the same weights as one that was not.

    Args:
        model: The model, with its variables made.
        train: Train rows.
        validation: Measures the model.
        training: Batch size, epochs, patience and seed.
        objective: Weight by ``<output>.<metric>``.
        checkpoint_dir: Folder of this training's checkpoints.
        log_dir: Folder of TensorBoard scalars.
    """

    def __init__(
        self,
        model: RankingModel,
        train: Rows,
        validation: Validation,
        training: Training,
        objective: dict[str, float],
        checkpoint_dir: Path,
        log_dir: Path,
    ) -> None:
        """Prepares, and restores the last checkpoint if there is one."""
        self._model = model
        self._train = train
        self._validation = validation
        self._training = training
        self._objective = objective
        self._checkpoint_dir = checkpoint_dir
        self._log_dir = log_dir
        self._state = _ProgressState()
        self._step = tf.function(model.train_step, input_signature=[train.batch_spec])
        self._checkpoints = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=model, progress=self._state),
            str(checkpoint_dir),
            # Training stops `patience` epochs after the best one: it is among those kept.
            max_to_keep=training.patience + 1,
        )
        self._restore()

    @property
    def progress(self) -> Progress:
        """How far the training is."""
        return self._state.progress

    def run(self) -> Progress:
        """Trains, and leaves the model with the weights of its best epoch."""
        log = ScalarLog(self._log_dir)
        for record in self.progress.epochs:
            log.write(record["epoch"], _scalars(record))
        while not self._is_done():
            self._one_epoch()
            record = self.progress.epochs[-1]
            log.write(record["epoch"], _scalars(record))
        log.close()
        self._restore_best_weights()
        return self.progress

    def discard_checkpoints(self) -> None:
        """Removes the checkpoints, once the model is exported."""
        shutil.rmtree(self._checkpoint_dir, ignore_errors=True)

    def _is_done(self) -> bool:
        progress = self.progress
        waited = progress.num_epochs - progress.best_epoch
        return progress.num_epochs >= self._training.epochs or (
            progress.num_epochs > 0 and waited >= self._training.patience
        )

    def _one_epoch(self) -> None:
        progress = self.progress
        epoch = progress.num_epochs + 1
        batches = self._train.shuffled(self._training.batch_size, self._training.seed, epoch)
        start = time.perf_counter()
        steps = [self._step(batch) for batch in batches]
        means = {name: float(np.mean([step[name] for step in steps])) for name in steps[0]}
        losses = {name: x for name, x in means.items() if not name.startswith(PENALTY)}
        penalties = {
            name.removeprefix(PENALTY): x for name, x in means.items() if name not in losses
        }
        progress.step_seconds += time.perf_counter() - start
        task_weights = self._model.balancer.end_epoch(losses)
        self._validation.settle_decisions()
        measured = self._validation.measure()
        objective = objective_value(self._objective, measured)
        progress.epochs.append(
            {
                "epoch": epoch,
                "train_loss": as_json(losses),
                "task_weights": as_json(task_weights),
                "penalties": as_json(penalties),
                "validation": {name: as_json(metrics) for name, metrics in measured.items()},
                "objective": objective,
            }
        )
        progress.train_seconds += time.perf_counter() - start
        logging.info("epoch %d: loss %.5f, objective %s", epoch, losses[TOTAL], objective)
        if self._is_better(objective):
            progress.best_epoch, progress.best_objective = epoch, objective
        self._checkpoints.save(checkpoint_number=epoch)

    def _is_better(self, objective: float | None) -> bool:
        best = self.progress.best_objective
        if self.progress.best_epoch == 0:
            return True
        return objective is not None and (best is None or objective > best)

    def _restore_best_weights(self) -> None:
        (best,) = (
            path
            for path in self._checkpoints.checkpoints
            if path.endswith(f"-{self.progress.best_epoch}")
        )
        tf.train.Checkpoint(model=self._model).restore(best).expect_partial()

    def _restore(self) -> None:
        latest = self._checkpoints.latest_checkpoint
        if latest is None:
            return
        try:
            self._checkpoints.checkpoint.restore(latest).assert_existing_objects_matched()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise DataError(
                f"the checkpoint {latest} does not fit this model",
                constraint="a checkpoint of the same configuration, data and code",
                received=str(error).splitlines()[0][:200],
                remedy=f"remove {self._checkpoint_dir} and run again",
            ) from error
        logging.info("resumed after epoch %d from %s", self.progress.num_epochs, latest)


def _scalars(record: dict[str, Any]) -> dict[str, float | None]:
    """Flattens the record of an epoch."""
    scalars = {f"train_loss/{task}": loss for task, loss in record["train_loss"].items()}
    scalars |= {f"task_weight/{task}": w for task, w in record["task_weights"].items()}
    scalars |= {PENALTY + name: value for name, value in record["penalties"].items()}
    for output, metrics in record["validation"].items():
        scalars |= {f"validation/{output}/{name}": value for name, value in metrics.items()}
    return scalars | {"validation/objective": record["objective"]}
