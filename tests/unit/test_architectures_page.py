"""The page of the Census table: what it says of results that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.architectures.page import ARCHITECTURES, PAIRS, difference, page
from benchmarks.architectures.run import best_trial, settings_of


def record(architecture: str, kind: str, number: int, income: float, married: float) -> Any:
    return {
        "key": f"income/{architecture}/{kind}/{number}", "pair": "income",
        "architecture": architecture, "kind": kind, "number": number, "parameters": 1234,
        "objective": income + married, "test": {"income": income, "never_married": married},
        "epochs": 8,
    }  # fmt: skip


def results(means: dict[str, float], num_trials: int = 2) -> list[Any]:
    noise = 1e-4 * np.array([-2, -1, 0, 1, 2])
    found = []
    for name in ARCHITECTURES:
        mean = means.get(name, 0.95)
        found += [record(name, "trial", i, mean, 0.99) for i in range(num_trials)]
        found += [record(name, "final", i, mean + e, 0.99 + e) for i, e in enumerate(noise)]
    return found


def test_differences_are_told_where_intervals_leave_zero_out() -> None:
    text = page(results({"mmoe": 0.952, "ple": 0.948, "shared_bottom": 0.92}))
    assert "sharing helped with mmoe and hurt with shared_bottom, ple, by intervals" in text
    assert "the best mean, of mmoe, 0.9520, reaches gradient boosting's 0.9502" in text
    assert "never_married: sharing helped with none and hurt with none" in text
    assert "0.9900, is below gradient boosting's 0.9945" in text
    assert "Below the paper's mean: shared_bottom." in text
    assert "2 trials and 5 seeds each." in text


def test_an_unfinished_table_says_so() -> None:
    text = page(results({})[:-1])
    assert "**Not finished**" in text and "aitm 2 + 4" in text


def test_equals_claim_a_difference_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(0)
    for shift, expected in ((0.0, range(4)), (0.01, range(20, 21))):
        same = [
            record("shared_bottom", "same", i, rng.normal(0.95 + shift * (i // 5 % 2), 1e-3), 0.99)
            for i in range(200)
        ]
        (sentence,) = [line for line in page(same).splitlines() if "comparisons claim" in line]
        claims = int(sentence.split(": ")[1].split(" of ")[0])
        assert claims in expected


def test_difference() -> None:
    a, b = [1.0, 2.0, 4.0], [0.0, 1.0]
    low, high = difference(a, b)
    assert (low + high) / 2 == pytest.approx(np.mean(a) - np.mean(b))
    assert np.isnan(difference([1.0], b)).all()


def test_the_best_trial_waits_for_all() -> None:
    trials = {
        r["key"]: r for r in [record("mmoe", "trial", i, 0.9 + 0.01 * i, 0.9) for i in (0, 1)]
    }
    assert best_trial(trials, "income", "mmoe", 3) is None
    assert best_trial(trials, "income", "mmoe", 2) == 1


def test_a_trial_gives_every_architecture_the_same_training() -> None:
    assert set(PAIRS) == {"income", "education"}
    for trial in range(3):
        (training,) = {str(settings_of(name, trial)[1]) for name in ARCHITECTURES}
        assert training != str(settings_of("mmoe", trial + 1)[1])
