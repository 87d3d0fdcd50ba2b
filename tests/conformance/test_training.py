"""Training runs: what they write, when they stop, and that a killed one ends the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.export import DESCRIPTION
from models.ranking_model import RankingModel
from models.spec.errors import ConfigError, DataError
from models.trainer_settings import TrainerSettings
from models.training_loop import TrainingLoop
from models.validation import Validation
from tests.conformance.synthetic_ranking import Transformed
from tests.conformance.trainer_run import Run, train

pytestmark = pytest.mark.slow

NOISY = {
    "dropout": 0.2,
    "gate_dropout": 0.1,
    "gate": "noisy_top_k",
    "top_k": 3,
    "importance_weight": 0.01,
}
"""Everything that draws: a killed training must draw the same after it resumes."""


@pytest.fixture(scope="module")
def mmoe(transformed: Transformed, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(
        transformed,
        tmp_path_factory.mktemp("mmoe"),
        "mmoe",
        model=NOISY,
        epochs=3,
        embedding_learning_rate=0.02,
    )


def weights_of(run: Run) -> dict[str, np.ndarray]:
    path = str(run.model / "variables" / "variables")
    return {
        name: tf.train.load_variable(path, name)
        for name, shape in tf.train.list_variables(path)
        if name.startswith("weights/")
    }


def assert_identical(a: Run, b: Run) -> None:
    expected, received = weights_of(a), weights_of(b)
    assert expected.keys() == received.keys() and len(expected) > 10
    for name, value in expected.items():
        np.testing.assert_array_equal(received[name], value, err_msg=name)


def test_training_record(mmoe: Run, transformed: Transformed) -> None:
    record = mmoe.training
    assert set(record) == {
        "candidate",
        "architecture",
        "auxiliary",
        "balancer",
        "parameters",
        "train_seconds",
        "examples_per_second",
        "best_epoch",
        "epochs",
    }
    assert (record["candidate"], record["architecture"]) == ("candidate_a", "mmoe")
    assert record["auxiliary"] is True
    assert record["parameters"] > 10_000
    assert record["train_seconds"] > 0 and record["examples_per_second"] > 0
    assert [e["epoch"] for e in record["epochs"]] == [1, 2, 3]
    outputs = transformed.ranking.all_outputs
    for epoch in record["epochs"]:
        assert set(epoch["train_loss"]) == {*transformed.ranking.tasks, "total"}
        assert epoch["task_weights"] == {
            name: pytest.approx(task.weight) for name, task in transformed.ranking.tasks.items()
        }
        assert set(epoch["validation"]) == {o.name for o in outputs}
        for output in outputs:
            assert set(epoch["validation"][output.name]) == set(output.metrics)
    best = max(record["epochs"], key=lambda e: e["objective"])
    assert record["best_epoch"] == best["epoch"]


def test_it_learns(mmoe: Run) -> None:
    first, last = mmoe.training["epochs"][0], mmoe.training["epochs"][-1]
    assert last["train_loss"]["total"] < first["train_loss"]["total"]
    assert max(e["validation"]["click"]["auc"] for e in mmoe.training["epochs"]) > 0.6


def test_total_is_the_weighted_sum(mmoe: Run, transformed: Transformed) -> None:
    for epoch in mmoe.training["epochs"]:
        losses = epoch["train_loss"]
        weighted = sum(t.weight * losses[name] for name, t in transformed.ranking.tasks.items())
        assert losses["total"] == pytest.approx(weighted, rel=1e-4)


def test_objective_is_the_declared_sum(mmoe: Run) -> None:
    for epoch in mmoe.training["epochs"]:
        values = epoch["validation"]
        expected = values["click"]["auc"] - 0.001 * values["watch_seconds"]["mae"]
        assert epoch["objective"] == pytest.approx(expected)


def test_insights(mmoe: Run, transformed: Transformed) -> None:
    assert mmoe.insights["matrices"] == []
    (gates,) = mmoe.insights["mixtures"]
    assert gates["name"] == "gates" and len(gates["sources"]) == 4
    assert set(gates["weights"]) == set(transformed.ranking.tasks)
    for shares in gates["weights"].values():
        assert sum(shares) == pytest.approx(1.0)
    assert all(0 < entropy <= math.log(4) + 1e-6 for entropy in gates["entropy"].values())
    assert set(gates["slices"]) == {"device"}
    devices = gates["slices"]["device"]
    assert {"phone", "tülk", "tv"} <= set(devices) <= {"phone", "tülk", "tv", "(missing)"}
    num_rows = sum(part["num_rows"] for part in devices.values())
    for task, shares in gates["weights"].items():
        for i, share in enumerate(shares):
            parts = sum(p["num_rows"] * p["weights"][task][i] for p in devices.values())
            assert parts / num_rows == pytest.approx(share, abs=1e-6)


def test_penalties_are_recorded_apart(mmoe: Run) -> None:
    for epoch in mmoe.training["epochs"]:
        assert set(epoch["penalties"]) == {"importance"}
        assert epoch["penalties"]["importance"] > 0


def test_tensorboard_scalars(mmoe: Run) -> None:
    found: dict[str, list[tuple[int, float]]] = {}
    for file in mmoe.logs.iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                scalar = float(tf.make_ndarray(value.tensor))
                found.setdefault(value.tag, []).append((event.step, scalar))
    epochs = mmoe.training["epochs"]
    assert found["validation/click/auc"] == [
        (e["epoch"], pytest.approx(e["validation"]["click"]["auc"])) for e in epochs
    ]
    assert len(found["penalty/importance"]) == 3
    assert len(found["train_loss/total"]) == len(found["validation/objective"]) == 3


def test_checkpoints_are_removed_on_success(mmoe: Run) -> None:
    assert not mmoe.checkpoints.exists()


def test_description(mmoe: Run, transformed: Transformed) -> None:
    description = json.loads((mmoe.model / DESCRIPTION).read_text())
    assert description["ranking"] == transformed.ranking.model_dump(mode="json")
    assert description["candidate"]["model"]["architecture"] == "mmoe"
    assert description["name"] == "candidate_a"


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("moment", ["measure", "save", "saved", "export"])
def test_a_killed_training_ends_with_the_same_weights(
    moment: str,
    mmoe: Run,
    transformed: Transformed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: dict[str, Any] = {
        "architecture": "mmoe",
        "model": NOISY,
        "epochs": 3,
        "embedding_learning_rate": 0.02,
    }
    calls = {"measure": 0, "save": 0}
    save, measure = tf.train.CheckpointManager.save, Validation.measure

    def dying_measure(self: Validation) -> Any:
        calls["measure"] += 1
        if moment == "measure" and calls["measure"] == 3:
            raise Killed
        return measure(self)

    def dying_save(self: tf.train.CheckpointManager, *args: Any, **kwargs: Any) -> Any:
        calls["save"] += 1
        if moment == "save" and calls["save"] == 2:
            raise Killed
        path = save(self, *args, **kwargs)
        if moment == "saved" and calls["save"] == 2:
            raise Killed
        return path

    def dying_export(*args: Any, **kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Validation, "measure", dying_measure)
        patch.setattr(tf.train.CheckpointManager, "save", dying_save)
        if moment == "export":
            patch.setattr("models.trainer.export_model", dying_export)
        with pytest.raises(Killed):
            train(transformed, tmp_path, **options)
    steps = 0
    epoch = TrainingLoop._one_epoch

    def counted(self: TrainingLoop) -> None:
        nonlocal steps
        steps += 1
        epoch(self)

    monkeypatch.setattr(TrainingLoop, "_one_epoch", counted)
    resumed = train(transformed, tmp_path, **options)
    assert steps == {"measure": 1, "save": 2, "saved": 1, "export": 0}[moment]
    assert_identical(mmoe, resumed)
    assert resumed.training["epochs"] == mmoe.training["epochs"]
    assert not resumed.checkpoints.exists()


def test_a_foreign_checkpoint_is_refused(
    transformed: Transformed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying_export(*args: Any, **kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("models.trainer.export_model", dying_export)
        with pytest.raises(Killed):
            train(transformed, tmp_path, epochs=1)
    with pytest.raises(DataError, match="remove .*checkpoints"):
        train(transformed, tmp_path, epochs=1, model={"bottom_units": [7]})


def test_early_stopping_keeps_the_best_epoch(
    transformed: Transformed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = Validation.measure

    def run(name: str, epochs: int, *declared: float) -> Run:
        aucs = iter(declared)
        with monkeypatch.context() as patch:
            patch.setattr(
                Validation, "measure", lambda self: measure(self) | {"click": {"auc": next(aucs)}}
            )
            return train(
                transformed,
                tmp_path / name,
                epochs=epochs,
                patience=2,
                objective={"click.auc": 1.0},
            )

    stopped = run("stopped", 5, 0.6, 0.8, 0.7, float("nan"), 0.9)
    assert [e["objective"] for e in stopped.training["epochs"]] == [0.6, 0.8, 0.7, None]
    assert stopped.training["epochs"][3]["validation"]["click"]["auc"] is None
    assert stopped.training["best_epoch"] == 2
    assert_identical(stopped, run("two", 2, 0.6, 0.8))
    with pytest.raises(AssertionError):
        assert_identical(stopped, run("one", 1, 0.6))


def test_streamed_rows_train_as_well(transformed: Transformed, tmp_path: Path) -> None:
    cached = train(transformed, tmp_path / "a", epochs=2)
    streamed = train(transformed, tmp_path / "b", epochs=2, cache_bytes=0, shuffle_buffer=500)
    a, b = (r.training["epochs"][-1]["train_loss"]["total"] for r in (cached, streamed))
    assert a == pytest.approx(b, rel=0.2) and a != b


def test_without_auxiliary_tasks(transformed: Transformed, tmp_path: Path) -> None:
    run = train(transformed, tmp_path, auxiliary=False, epochs=1)
    (epoch,) = run.training["epochs"]
    assert run.training["auxiliary"] is False
    assert "scroll" not in epoch["train_loss"] and "scroll" not in epoch["validation"]


def test_seed_and_options_change_the_weights(transformed: Transformed, tmp_path: Path) -> None:
    base = train(transformed, tmp_path / "base", epochs=1)
    assert_identical(base, train(transformed, tmp_path / "again", epochs=1))
    for i, option in enumerate(
        [
            {"seed": 1},
            {"embedding_l2": 1.0},
            {"embedding_learning_rate": 0.5},
            {"optimizers": {"task_learning_rates": {"click": 0.1}}},
        ]
    ):
        other = train(transformed, tmp_path / str(i), epochs=1, **option)
        with pytest.raises(AssertionError):
            assert_identical(base, other)


def test_tuned_weights_are_searched_once_and_then_fixed(
    transformed: Transformed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        "epochs": 2,
        "balancer": {"kind": "tuned", "trials": 3, "epochs": 1, "spread": 10.0},
    }

    def dying_export(*args: Any, **kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("models.trainer.export_model", dying_export)
        with pytest.raises(Killed):
            train(transformed, tmp_path, **options)
    trained: list[int] = []
    epoch = TrainingLoop._one_epoch

    def counted(self: TrainingLoop) -> None:
        trained.append(1)
        epoch(self)

    monkeypatch.setattr(TrainingLoop, "_one_epoch", counted)
    run = train(transformed, tmp_path, **options)
    assert trained == []
    record = run.training["balancer"]
    assert record["kind"] == "tuned" and len(record["trials"]) == 3
    best = max(record["trials"], key=lambda trial: trial["objective"])
    for epoch_record in run.training["epochs"]:
        assert epoch_record["task_weights"] == {
            task: pytest.approx(weight, rel=1e-6) for task, weight in best["weights"].items()
        }
    weights = {"kind": "fixed", "weights": best["weights"]}
    assert_identical(run, train(transformed, tmp_path / "fixed", epochs=2, balancer=weights))


def test_a_killed_balanced_training_ends_with_the_same_weights(
    transformed: Transformed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"epochs": 4, "patience": 4, "balancer": {"kind": "dwa"}}
    whole = train(transformed, tmp_path / "whole", **options)
    measure, calls = Validation.measure, []

    def dying(self: Validation) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return measure(self)

    with monkeypatch.context() as patch:
        patch.setattr(Validation, "measure", dying)
        with pytest.raises(Killed):
            train(transformed, tmp_path / "killed", **options)
    resumed = train(transformed, tmp_path / "killed", **options)
    assert_identical(whole, resumed)
    assert resumed.training["epochs"] == whole.training["epochs"]


def test_a_task_without_any_positive_trains(
    transformed: Transformed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = RankingModel.task_losses

    def masked(self: RankingModel, batch: Any, training: bool = False) -> Any:
        spoiled = dict(batch)
        for output in self.ranking.outputs_of("purchase"):
            spoiled[output.label_key] = tf.zeros_like(batch[output.label_key])
            spoiled[output.weight_key] = tf.zeros_like(batch[output.weight_key])
        return losses(self, spoiled, training)

    monkeypatch.setattr(RankingModel, "task_losses", masked)
    run = train(transformed, tmp_path, epochs=1)
    (epoch,) = run.training["epochs"]
    assert epoch["train_loss"]["purchase"] == 0.0
    assert all(np.isfinite(w).all() for w in weights_of(run).values())


def test_incomplete_settings() -> None:
    with pytest.raises(ConfigError, match="no training, candidate"):
        TrainerSettings.parse({"name": "a", "ranking": "", "objective": "", "checkpoint_dir": ""})
