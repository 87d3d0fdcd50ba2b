"""The search for fixed task weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.spec.balancer import Fixed, TunedScalarization
from models.weight_search import WeightSearch

DECLARED = {"click": 1.0, "watch": 0.5}


def search(folder: Path, trials: int = 6) -> WeightSearch:
    settings = TunedScalarization(kind="tuned", trials=trials, spread=4.0)
    return WeightSearch(settings, DECLARED, seed=3, file=folder / "trials.json")


def objective(weights: Fixed) -> float:
    return -abs(weights.weights["watch"] - 1.0)


def test_the_best_trial_wins(tmp_path: Path) -> None:
    best, trials = search(tmp_path).run(lambda weights, index: objective(weights))
    assert len(trials) == 6
    assert trials[0]["weights"] == DECLARED
    assert objective(best) == max(t["objective"] for t in trials) > trials[0]["objective"]
    for trial in trials:
        for task, weight in trial["weights"].items():
            assert DECLARED[task] / 4 <= weight <= DECLARED[task] * 4
    assert len({t["weights"]["click"] for t in trials}) == 6


def test_a_killed_search_goes_on(tmp_path: Path) -> None:
    expected = search(tmp_path / "whole").run(lambda weights, index: objective(weights))
    calls = []

    def dying(weights: Fixed, index: int) -> float:
        calls.append(index)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return objective(weights)

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "killed").run(dying)
    assert search(tmp_path / "killed").run(dying) == expected
    assert calls == [0, 1, 2, 3, 3, 4, 5]


def test_without_any_objective_the_declared_weights_stay(tmp_path: Path) -> None:
    best, _ = search(tmp_path).run(lambda weights, index: None)
    assert best.weights == DECLARED


def test_a_tie_goes_to_the_declared_weights(tmp_path: Path) -> None:
    best, _ = search(tmp_path).run(lambda weights, index: 1.0)
    assert best.weights == DECLARED
