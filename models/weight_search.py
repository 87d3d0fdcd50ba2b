"""Fixed task weights found by search."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.seeding import derived_seed
from models.spec.balancer import Fixed, TunedScalarization

Train = Callable[[Fixed, int], float | None]
"""Trains with fixed weights for some epochs: the best objective, None where undefined."""


@dataclass(frozen=True)
class WeightSearch:
    """Random search of the weights of a scalarisation.

    Every finished trial is on disk, so a search that was killed goes on with the next one.

    Reference: Xin, Ghorbani, Gilmer, Garg and Firat, Do current multi-task optimization methods in
    deep learning even help?, NeurIPS 2022 (2209.11379): tuned weights are the baseline to beat.

    Attributes:
        settings: How much may be spent, and where.
        declared: Declared weight by task.
        seed: Seed of the draws.
        file: Where finished trials are kept.
    """

    settings: TunedScalarization
    declared: Mapping[str, float]
    seed: int
    file: Path

    def run(self, train: Train) -> tuple[Fixed, list[dict[str, Any]]]:
        """Searches.

        Returns:
            The best weights (the declared ones if no trial has an objective), and the record of
            every trial: ``weights`` by task and ``objective``.
        """
        trials = self._finished()
        for index in range(len(trials), self.settings.trials):
            weights = self.weights(index)
            objective = train(weights, index)
            trials.append({"weights": dict(weights.weights), "objective": objective})
            self._keep(trials)
        known = [trial for trial in trials if trial["objective"] is not None]
        # Of equals the first, so that the declared weights win a tie.
        best = max(known, key=lambda trial: float(trial["objective"]), default=trials[0])
        return Fixed(weights=best["weights"]), trials

    def weights(self, index: int) -> Fixed:
        """Returns the weights of one trial."""
        if index == 0:
            return Fixed(weights=dict(self.declared))
        bound = float(np.log(self.settings.spread))
        return Fixed(
            weights={
                task: weight * float(np.exp(self._rng(index, task).uniform(-bound, bound)))
                for task, weight in self.declared.items()
            }
        )

    def _rng(self, index: int, task: str) -> np.random.Generator:
        return np.random.default_rng(derived_seed(self.seed, "weight_search", index, task))

    def _finished(self) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        trials: list[dict[str, Any]] = json.loads(self.file.read_text(encoding="utf-8"))
        return trials[: self.settings.trials]

    def _keep(self, trials: list[dict[str, Any]]) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(trials), encoding="utf-8")
        os.replace(partial, self.file)
