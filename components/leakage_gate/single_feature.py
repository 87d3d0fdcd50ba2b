"""The suspicion lock: a request column that alone predicts a served task too well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.leakage_gate import separation
from components.leakage_gate.example_rows import first_values
from components.leakage_gate.separation import Flags, Floats, View
from models.spec.feature import Feature
from models.spec.keys import key_feature
from models.spec.ranking import RankingSpec
from models.spec.task import Output


@dataclass(frozen=True)
class Suspicion:
    """How well one feature alone predicts one output.

    Attributes:
        column: The feature.
        output: The output.
        auc: The largest AUC over its readings, at least 0.5.
        reading: Which reading has it.
    """

    column: str
    output: Output
    auc: float
    reading: str


def suspicions(ranking: RankingSpec, rows: pa.Table, seed: int) -> Iterator[Suspicion]:
    """Assesses every served input against every served output.

    Args:
        ranking: Features and outputs.
        rows: A sample of train examples, as `ExampleRows` reads them.
        seed: Of the folds.
    """
    labels = {o.name: _labels(rows, o) for o in ranking.outputs}
    for feature in assessed_features(ranking):
        views = list(_views(feature, rows, key_feature(ranking.item)))
        for output in ranking.outputs:
            applies, values = labels[output.name]
            outcomes = separation.outcomes_of(values, output.kind)
            best = max(
                (
                    (separation.separation(_only(view, applies), outcomes, seed), view.reading)
                    for view in views
                ),
                default=(0.5, "value"),
            )
            yield Suspicion(feature.name, output, *best)


def assessed_features(ranking: RankingSpec) -> tuple[Feature, ...]:
    """Everything a served model is given: request features and what slate features are made of."""
    features: Mapping[str, Feature] = {
        f.name: f for f in (*ranking.rank_inputs, *ranking.request_features)
    }
    return tuple(features[name] for name in sorted(features))


def unassessable_outputs(ranking: RankingSpec, rows: pa.Table) -> list[str]:
    """Names outputs with too few rows of either class in the sample to assess anything on."""
    names = []
    for output in ranking.outputs:
        outcomes = separation.outcomes_of(_labels(rows, output)[1], output.kind)
        if not any(separation.is_assessable(outcome) for outcome in outcomes):
            names.append(output.name)
    return names


def _labels(rows: pa.Table, output: Output) -> tuple[Flags, Floats]:
    """Returns where the output applies [n], and its labels there."""
    applies = _numbers(first_values(rows[output.mask_key])) > 0
    return applies, _numbers(first_values(rows[output.label_key]))[applies]


def _only(view: View, applies: Flags) -> View:
    return View(
        view.reading,
        view.values[applies] if view.values is not None else None,
        view.codes[applies] if view.codes is not None else None,
    )


def _views(feature: Feature, rows: pa.Table, item_key: str) -> Iterator[View]:
    column = rows[feature.name].combine_chunks()
    if len(column) == 0 or pc.sum(pc.list_value_length(column)).as_py() in (None, 0):
        return
    first = first_values(column)
    if feature.dtype == "float":
        yield from separation.numeric_views(_numbers(first))
    else:
        yield from _text_views(first)
    if feature.length is None:
        return
    flat, parent = _elements(column)
    num_rows = len(column)
    yield View("length", np.bincount(parent, minlength=num_rows).astype(float))
    if feature.dtype == "float":
        sums = np.bincount(parent, weights=_numbers(flat), minlength=num_rows)
        counts = np.bincount(parent, minlength=num_rows)
        with np.errstate(invalid="ignore"):
            yield View("mean", sums / counts)
    else:
        item = first_values(rows[item_key])
        held = pc.fill_null(pc.equal(flat, item.take(pa.array(parent))), False)
        hits = np.bincount(parent, weights=_numbers(held), minlength=num_rows)
        yield View("holds the item", hits.astype(float))


def _text_views(values: pa.Array) -> Iterator[View]:
    filled = pc.fill_null(values, b"")
    encoded = filled.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    missing = pc.equal(filled, b"").to_numpy(zero_copy_only=False)
    yield from separation.categorical_views(codes, missing)
    numbers = np.array([_as_number(text) for text in encoded.dictionary.to_pylist()])[codes]
    if not np.isnan(numbers).all():
        yield View("value", numbers)


def _as_number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _elements(column: pa.ListArray) -> tuple[pa.Array, separation.Codes]:
    """Returns the elements of all lists, padding left out, and the row each belongs to."""
    flat = column.flatten()
    lengths = _numbers(pc.fill_null(pc.list_value_length(column), 0)).astype(np.int64)
    parent = np.repeat(np.arange(len(column)), lengths)
    if pa.types.is_floating(flat.type):
        real = ~np.isnan(_numbers(flat))
    else:
        real = pc.not_equal(flat, b"").to_numpy(zero_copy_only=False)
    return flat.filter(pa.array(real)), parent[real]


def _numbers(values: pa.Array) -> Floats:
    numbers: Floats = values.to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers
