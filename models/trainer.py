"""TFX Trainer: trains one candidate and exports it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from models.export import export_model
from models.feature_layout import FeatureLayout
from models.insights import measure_insights, slice_features
from models.losses.registry import build_loss
from models.precision import computing_in
from models.ranking_model import RankingModel, trained_tasks
from models.rows import Rows, read_rows
from models.sampled_weights import population_weights
from models.spec.balancer import Fixed, TunedScalarization
from models.spec.ranking import RankingSpec
from models.spec.training import Candidate, Training
from models.trainer_settings import TrainerSettings
from models.training_loop import Progress, TrainingLoop
from models.validation import Validation
from models.weight_search import WeightSearch


def run_fn(fn_args: Any) -> None:
    """Trains a candidate on transformed examples and exports its served part.

    Writes the SavedModel to `fn_args.serving_model_dir`; `training.json`, `insights.json` and
    TensorBoard scalars to `fn_args.model_run_dir`.

    Args:
        fn_args: TFX's `FnArgs`: train_files, eval_files, transform_graph_path,
            serving_model_dir, model_run_dir and custom_config (see `TrainerSettings.parse`).

    Raises:
        DataError: A split is empty, or a checkpoint of something else is in the way.
    """
    settings = TrainerSettings.parse(fn_args.custom_config)
    # A repeated or resumed training must end with the same weights; on CPUs it costs nothing.
    tf.keras.utils.set_random_seed(settings.training.seed)
    tf.config.experimental.enable_op_determinism()
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    train = _rows(settings, transform, fn_args.train_files, "train")
    validation = _rows(settings, transform, fn_args.eval_files, "validation")
    run_dir = Path(fn_args.model_run_dir)

    def prepared(settings: TrainerSettings, log_dir: Path) -> tuple[RankingModel, TrainingLoop]:
        model = build_model(
            settings.ranking, settings.training, settings.candidate, transform, train
        )
        return model, TrainingLoop(
            model,
            train,
            Validation(model, validation),
            settings.training,
            settings.objective,
            checkpoint_dir=settings.checkpoint_dir,
            log_dir=log_dir,
        )

    def trial(weights: Fixed, index: int) -> float | None:
        _, loop = prepared(settings.trial(weights, index), run_dir / "trials" / str(index))
        objective = loop.run().best_objective
        loop.discard_checkpoints()
        return objective

    declared = settings.balancer
    trials: list[dict[str, Any]] = []
    if isinstance(declared, TunedScalarization):
        weights, trials = _weight_search(settings, declared).run(trial)
        settings = settings.with_balancer(weights)
    model, loop = prepared(settings, run_dir / "logs")
    progress = loop.run()
    summary = _summary(settings, model, progress, train.num_rows)
    summary["balancer"] = {"kind": declared.kind} | ({"trials": trials} if trials else {})
    _write_json(run_dir / "training.json", summary)
    _write_json(
        run_dir / "insights.json",
        measure_insights(model, validation, slice_features(settings.ranking, transform)),
    )
    export_model(
        model,
        fn_args.transform_graph_path,
        fn_args.serving_model_dir,
        candidate=settings.candidate,
        name=settings.name,
        xla=settings.training.xla,
    )
    loop.discard_checkpoints()


def _rows(
    settings: TrainerSettings, transform: tft.TFTransformOutput, patterns: list[str], split: str
) -> Rows:
    tasks = trained_tasks(settings.ranking, settings.candidate)
    outputs = [output for task in tasks for output in settings.ranking.outputs_of(task)]
    return read_rows(
        patterns,
        transform.transformed_feature_spec(),
        [key for output in outputs for key in (output.label_key, output.weight_key)],
        split=split,
        # What no task learns from need not be stepped over: masked rows, negatives sampled away.
        useful_keys=[settings.ranking.training_output(task).weight_key for task in tasks]
        if split == "train"
        else [],
        cache_bytes=settings.training.cache_bytes,
        shuffle_buffer=settings.training.shuffle_buffer,
    )


def _weight_search(settings: TrainerSettings, declared: TunedScalarization) -> WeightSearch:
    tasks = trained_tasks(settings.ranking, settings.candidate)
    return WeightSearch(
        declared,
        {task: settings.ranking.tasks[task].weight for task in tasks},
        settings.training.seed,
        settings.checkpoint_dir / "trials.json",
    )


def build_model(
    ranking: RankingSpec,
    training: Training,
    candidate: Candidate,
    transform: tft.TFTransformOutput,
    train: Rows,
) -> RankingModel:
    """Builds a model for the train labels, with all its variables.

    Args:
        ranking: Features and tasks.
        training: Settings shared by the candidates.
        candidate: The candidate.
        transform: Gives the sizes of vocabularies.
        train: Train rows, with label and weight of every trained task.
    """
    losses, biases = {}, {}
    for task in trained_tasks(ranking, candidate):
        # Heads of conditioned tasks learn the conditional.
        output = ranking.outputs_of(task)[-1]
        labels, weights = train.column(output.label_key), train.column(output.weight_key)
        weights = population_weights(labels, weights, ranking.tasks[task].negative_rate)
        losses[task] = build_loss(ranking.tasks[task], labels, weights)
        biases[task] = losses[task].initial_bias(labels, weights)
    tables = FeatureLayout.of(ranking).tables
    with computing_in(training.precision):
        model = RankingModel(
            ranking,
            training,
            candidate,
            {name: t.num_rows(transform.vocabulary_size_by_name) for name, t in tables.items()},
            losses,
            biases,
        )
        model.prepare(next(train.in_order(1)))
    return model


def _summary(
    settings: TrainerSettings, model: RankingModel, progress: Progress, num_rows: int
) -> dict[str, Any]:
    return {
        "candidate": settings.name,
        "architecture": settings.candidate.model.architecture,
        "auxiliary": settings.candidate.auxiliary,
        "parameters": model.num_parameters,
        "train_seconds": progress.train_seconds,
        "examples_per_second": num_rows * progress.num_epochs / max(progress.step_seconds, 1e-9),
        "best_epoch": progress.best_epoch,
        "epochs": progress.epochs,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
