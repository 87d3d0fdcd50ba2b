"""How far predictions in natural units are from the labels."""

from __future__ import annotations

from typing import final

import numpy as np

from models.metrics.columns import FloatArray, Rows
from models.metrics.family import Family, ratio, total


@final
class RegressionError(Family):
    """`mae` and `rmse`: weighted mean absolute error and root of the weighted mean square error.

    Both in the unit of the label (seconds for a duration).
    """

    names = ("mae", "rmse")

    def _prepare(self, rows: Rows) -> None:
        error = rows.prediction - rows.label
        self._absolute = self._by_unit(rows.weight * np.abs(error))
        self._square = self._by_unit(rows.weight * error**2)
        self._weight = self._by_unit(rows.weight)

    def evaluate(self, counts: FloatArray) -> dict[str, FloatArray]:
        """Computes both errors; see `Family.evaluate`."""
        weight = total(self._weight, counts)
        return {
            "mae": ratio(total(self._absolute, counts), weight),
            "rmse": np.sqrt(ratio(total(self._square, counts), weight)),
        }
