"""What a floor predicts for the test split."""

from __future__ import annotations

from dataclasses import dataclass

from models.metrics.columns import FloatArray

POPULARITY = "popularity"
LINEAR = "linear"
FLOORS = (POPULARITY, LINEAR)


@dataclass(frozen=True)
class FloorScores:
    """Predictions of one floor for the test split.

    Attributes:
        predictions: Output name to [test rows], in natural units.
        absent: Output name to the reason why there is none.
    """

    predictions: dict[str, FloatArray]
    absent: dict[str, str]
