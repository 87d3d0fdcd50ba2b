"""Two models that a ranker must beat: how popular the item is, and a linear one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from components.report.example_columns import FeatureType
from components.report.floor_features import FloorFeatures, scalar_numbers
from components.report.floor_scores import FLOORS, LINEAR, POPULARITY, FloorScores
from components.report.row_match import first_text
from models.metrics.columns import FloatArray, IntArray
from models.sampled_weights import population_weights
from models.spec.keys import TIMESTAMP, key_feature
from models.spec.ranking import RankingSpec
from models.spec.task import Output, TaskKind

PRIOR_ROWS = 20.0
"""How many rows the overall mean is worth in an item's smoothed mean."""

_INVERSE_L2 = 0.1
_RIDGE = 30.0
_MAX_STEPS = 50


def columns_needed(ranking: RankingSpec) -> dict[str, FeatureType]:
    """Returns the example features that the floors and the row match read, with their types."""
    needed: dict[str, FeatureType] = {TIMESTAMP: "int"}
    needed |= {key_feature(name): "bytes" for name in ranking.key_columns}
    for feature in ranking.request_features:
        needed[feature.name] = "bytes" if feature.dtype == "string" else "float"
    for output in ranking.outputs:
        needed |= {output.label_key: "float", output.weight_key: "float"}
    return needed


def score_floors(
    ranking: RankingSpec, train: pa.Table, test: pa.Table
) -> Mapping[str, FloorScores]:
    """Fits the floors on the train split and scores the test split.

    `popularity`: the item's mean target on train, weighted like the task and drawn towards the
    overall mean m by `PRIOR_ROWS` rows, `(sum w y + 20 m) / (sum w + 20)`; an unseen item gets m.
    `linear`: logistic regression for binary outputs (L-BFGS, at most 50 steps, C = 0.1); ridge
    regression (alpha = 30) for the others, on log(1 + y) for durations and counts. It sees request
    features only (`FloorFeatures`). Nothing is random.

    Args:
        ranking: What is ranked.
        train: Columns of the train split.
        test: Columns of the test split.

    Returns:
        Scores by floor name, for every output of `ranking.outputs`.
    """
    features = FloorFeatures(ranking.request_features, train)
    train_matrix, test_matrix = features.matrix(train), features.matrix(test)
    items = _item_codes(train, test, key_feature(ranking.item))
    found = {name: FloorScores({}, {}) for name in FLOORS}
    for output in ranking.outputs:
        task = ranking.tasks[output.task]
        label, weight = targets(train, output)
        if task.takes_fake_negatives:
            label, weight = _without_fake_negatives(label, weight)
        weight = population_weights(label, weight, task.negative_rate)
        reason = _why_not(output, label, weight)
        if reason:
            for floor in found.values():
                floor.absent[output.name] = reason
            continue
        found[POPULARITY].predictions[output.name] = _popularity(*items, label, weight)
        rows = np.flatnonzero(weight)
        found[LINEAR].predictions[output.name] = _linear(
            output.kind, train_matrix[rows], label[rows], weight[rows], test_matrix
        )
    return found


def targets(table: pa.Table, output: Output) -> tuple[FloatArray, FloatArray]:
    """Returns label and weight of one output, [rows] each; a missing one is 0."""
    label = np.nan_to_num(scalar_numbers(table.column(output.label_key)))
    weight = np.nan_to_num(scalar_numbers(table.column(output.weight_key)))
    return label, weight


def _without_fake_negatives(label: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Takes an impression that is a negative and a positive row (label .5) for a positive one."""
    both = label == 0.5
    return np.where(both, 1.0, label), np.where(both, weight / 2, weight)


def _why_not(output: Output, label: FloatArray, weight: FloatArray) -> str:
    present = label[weight > 0]
    if not len(present):
        return "no train row has a label"
    if output.kind == "binary" and len(np.unique(present > 0)) < 2:
        return f"all {len(present):,} labelled train rows have the same label"
    return ""


def _item_codes(train: pa.Table, test: pa.Table, key: str) -> tuple[IntArray, IntArray]:
    items = pa.chunked_array([first_text(train.column(key)), first_text(test.column(key))])
    codes: IntArray = items.combine_chunks().dictionary_encode().indices.to_numpy()
    return codes[: train.num_rows], codes[train.num_rows :]


def _popularity(
    train_items: IntArray, test_items: IntArray, label: FloatArray, weight: FloatArray
) -> FloatArray:
    size = int(max(train_items.max(initial=-1), test_items.max(initial=-1))) + 1
    total = np.bincount(train_items, weight * label, size)
    rows = np.bincount(train_items, weight, size)
    mean = float((weight * label).sum() / weight.sum())
    smoothed: FloatArray = (total + PRIOR_ROWS * mean) / (rows + PRIOR_ROWS)
    return smoothed[test_items]


def _linear(
    kind: TaskKind,
    train: sp.csr_matrix,
    label: FloatArray,
    weight: FloatArray,
    test: sp.csr_matrix,
) -> FloatArray:
    # A column that no train row uses has no weight: leaving it out changes nothing but time.
    used = np.unique(train.indices)
    train, test = train[:, used], test[:, used]
    if kind == "binary":
        classifier = LogisticRegression(C=_INVERSE_L2, max_iter=_MAX_STEPS)
        with warnings.catch_warnings():
            # A floor need not be optimal to the last digit.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(train, label > 0, sample_weight=weight)
        probability: FloatArray = classifier.predict_proba(test)[:, 1]
        return probability
    regressor = Ridge(alpha=_RIDGE, solver="sparse_cg", tol=1e-3)
    if kind == "regression":
        regressor.fit(train, label, sample_weight=weight)
        plain: FloatArray = regressor.predict(test)
        return plain
    regressor.fit(train, np.log1p(np.maximum(label, 0.0)), sample_weight=weight)
    longest = float(np.log1p(max(label.max(), 0.0)))
    scaled: FloatArray = np.expm1(np.clip(regressor.predict(test), 0.0, longest))
    return scaled
