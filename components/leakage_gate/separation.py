"""How well one feature alone tells an outcome."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Codes = NDArray[np.int64]

MIN_OF_EACH_CLASS = 20
"""With fewer positives or negatives an AUC of .95 is too easily had by chance."""

_NUM_FOLDS = 5
_PRIOR_STRENGTH = 1.0
_CUTS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class View:
    """One way to read a feature.

    Attributes:
        reading: Says which, for messages: `value`, `missing`, ...
        values: Float [n]; NaN where this view has no value, and such rows are left out.
        codes: Instead of values: categories, to be replaced by their mean outcome elsewhere.
    """

    reading: str
    values: Floats | None = None
    codes: Codes | None = None


def area_under_curve(values: Floats, outcomes: Flags) -> Floats:
    """Returns the share of (positive, negative) pairs that the values order, ties counting half.

    Args:
        values: Float [n], without NaN.
        outcomes: Bool [k, n], one row per outcome.

    Returns:
        Float [k]; NaN where a class is empty.
    """
    _, run, counts = np.unique(values, return_inverse=True, return_counts=True)
    midrank = (np.cumsum(counts) - (counts - 1) / 2.0)[run]
    positives = outcomes.sum(axis=1)
    negatives = outcomes.shape[1] - positives
    above = outcomes @ midrank - positives * (positives + 1) / 2.0
    with np.errstate(invalid="ignore", divide="ignore"):
        area: Floats = above / (positives * negatives)
    return area


def separation(view: View, outcomes: Flags, seed: int) -> float:
    """Returns the largest AUC of a view over the outcomes, 0.5 where none can be assessed.

    A value counts in whichever direction it separates. A category is replaced by its mean outcome
    in the other folds, which has a direction: the reverse of it is an artefact of small groups.

    Args:
        view: The feature.
        outcomes: Bool [k, n].
        seed: Of the folds.
    """
    if view.codes is not None:
        return max([0.5, *(_category_separation(view.codes, o, seed) for o in outcomes)])
    assert view.values is not None
    present = ~np.isnan(view.values)
    outcomes = outcomes[:, present]
    outcomes = outcomes[[is_assessable(outcome) for outcome in outcomes]]
    if not len(outcomes):
        return 0.5
    area = area_under_curve(view.values[present], outcomes)
    return float(np.max(np.maximum(area, 1.0 - area)))


def _category_separation(codes: Codes, outcome: Flags, seed: int) -> float:
    if not is_assessable(outcome):
        return 0.5
    fold = np.random.default_rng(seed).integers(0, _NUM_FOLDS, len(codes))
    num_codes = int(codes.max()) + 1
    cell = codes * _NUM_FOLDS + fold
    size = np.bincount(cell, minlength=num_codes * _NUM_FOLDS).astype(float)
    positives = np.bincount(cell, weights=outcome, minlength=num_codes * _NUM_FOLDS)
    size_elsewhere = np.bincount(codes, minlength=num_codes)[codes] - size[cell]
    positives_elsewhere = (
        np.bincount(codes, weights=outcome, minlength=num_codes)[codes] - positives[cell]
    )
    mean = (positives_elsewhere + _PRIOR_STRENGTH * outcome.mean()) / (
        size_elsewhere + _PRIOR_STRENGTH
    )
    return float(area_under_curve(mean, outcome[np.newaxis])[0])


def is_assessable(outcome: Flags) -> bool:
    """Whether an outcome has enough rows of both classes."""
    positives = int(outcome.sum())
    return min(positives, len(outcome) - positives) >= MIN_OF_EACH_CLASS


def outcomes_of(labels: Floats, kind: str) -> Flags:
    """Turns labels into yes-or-no outcomes: bool [k, n].

    A binary label is one. For durations, counts and other numbers, "orders the rows" is asked as
    "separates those above a cut from those below", at the quartiles and at the smallest value: the
    best of these AUCs is on the scale of a binary task's.
    """
    if kind == "binary":
        return (labels > 0)[np.newaxis]
    if not len(labels):
        return np.zeros((0, 0), bool)
    cuts = np.unique([labels.min(), *np.quantile(labels, _CUTS)])
    return np.stack([labels > cut for cut in cuts])


def numeric_views(values: Floats) -> Iterator[View]:
    """Views of numbers: their value, their quantile bins in any order, whether they are there."""
    missing = np.isnan(values)
    yield View("value", values)
    yield View("bins", codes=_bins(values))
    if missing.any():
        yield View("missing", missing.astype(float))


def categorical_views(codes: Codes, missing: Flags) -> Iterator[View]:
    """Views of categories: their mean outcome out of fold, and whether they are there."""
    yield View("category", codes=codes)
    if missing.any():
        yield View("missing", missing.astype(float))


def _bins(values: Floats, num_bins: int = 50) -> Codes:
    missing = np.isnan(values)
    codes = np.full(len(values), num_bins, np.int64)
    if not missing.all():
        edges = np.unique(np.quantile(values[~missing], np.linspace(0, 1, num_bins + 1)[1:-1]))
        codes[~missing] = np.searchsorted(edges, values[~missing], side="left")
    return codes
