"""Weights that undo the downsampling of negatives."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def population_weights(
    labels: NDArray[Any], weights: NDArray[Any], negative_rate: float
) -> NDArray[np.float64]:
    """Lets every kept negative stand for those that were dropped.

    Args:
        labels: Labels of a binary task, [n]; 0 for a negative.
        weights: Their weights, 0 where dropped or masked, [n].
        negative_rate: Share of the negatives that was kept.

    Returns:
        The weights, those of negatives divided by the rate, float64 [n].
    """
    wide = weights.astype(np.float64)
    return np.where(labels > 0, wide, wide / negative_rate)
