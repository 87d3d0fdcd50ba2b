"""Slate-relative features are the same at ingestion and inside the `rank` signature."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from components.log_example_gen.slate import slate_relative as at_ingestion
from models.request_inputs import slate_features, tensor_specs
from models.spec.feature import SMALLEST_NUMBER, SlateRelative
from models.spec.ranking import RankingSpec

RELATIONS = ("rank", "share", "ratio_to_max", "count")
RANKING = RankingSpec.model_validate(
    {
        "slate": "request",
        "user": "user",
        "item": "item",
        "columns": {
            "request": {"type": "string", "availability": "request", "scope": "context"},
            "user": {"type": "string", "availability": "request", "scope": "context"},
            "item": {"type": "string", "availability": "request"},
            "price": {"type": "float", "availability": "request"},
            "clicked": {"type": "bool", "availability": "future", "role": "target"},
        },
        "features": {f"price_{r}": {"slate": {"of": "price", "relation": r}} for r in RELATIONS},
        "tasks": {"click": {"kind": "binary", "target": "clicked", "gates": {"auc": {"min": 0.5}}}},
    }
)
GRAPH = tf.function(
    lambda **inputs: slate_features(RANKING, inputs), autograph=False
).get_concrete_function(**tensor_specs(RANKING.rank_inputs))
"""The part of the `rank` signature that computes them, traced once for slates of any size."""


def in_graph(values: list[float | None]) -> dict[str, np.ndarray]:
    price = tf.constant([np.nan if v is None else v for v in values], tf.float32)
    return {name: tensor.numpy() for name, tensor in GRAPH(price=price).items()}


def compare(slates: list[list[float | None]]) -> None:
    """All slates at once at ingestion, in mixed order; one by one in the graph."""
    values = [v for slate in slates for v in slate]
    groups = np.repeat(np.arange(len(slates)), [len(slate) for slate in slates])
    mixed = np.random.default_rng(len(values)).permutation(len(values))
    column = pl.Series("price", values, dtype=pl.Float64).gather(mixed)
    served = [in_graph(slate) for slate in slates]
    for relation in RELATIONS:
        spec = SlateRelative.model_validate({"of": "price", "relation": relation})
        found = np.empty(len(values), np.float32)
        # What examples hold is float32.
        found[mixed] = at_ingestion(column, groups[mixed], spec).to_numpy().astype(np.float32)
        expected = np.concatenate([outputs[f"price_{relation}"] for outputs in served])
        # Sums in another order differ in the 53rd bit, which float32 rarely shows; and a quotient
        # of float32's least magnitude may be flushed to 0.
        rtol = 2e-7 if relation == "share" else 0
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=SMALLEST_NUMBER)


ordinary = st.floats(0, 1e6, width=32)
signed = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0])
slates = st.one_of(
    st.lists(st.one_of(st.none(), ordinary), min_size=1, max_size=40),
    st.lists(st.one_of(st.none(), signed), min_size=1, max_size=40),
    st.lists(st.one_of(st.none(), st.floats(-1e4, 1e4)), min_size=1, max_size=15),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(found=st.lists(slates, min_size=1, max_size=4))
@example(found=[[None]])
@example(found=[[None, None, None], [0.0], [0.0, None]])
@example(found=[[0.1, 0.1 + 1e-12, 0.1 - 1e-12]])
@example(found=[[0.1, 0.2, -0.3], [1e8, 1.0, -1e8]])
@example(found=[[1e-40, 1e-45, 0.0, 3e38, 3e38]])
def test_any_slate(found: list[list[float | None]]) -> None:
    compare(found)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 127, 128, 500, 999, 1000])
@pytest.mark.parametrize("missing", [0.0, 0.3, 0.99, 1.0])
def test_slates_of_one_to_a_thousand(size: int, missing: float) -> None:
    rng = np.random.default_rng(size)
    kinds: list[Any] = [
        rng.lognormal(0, 3, size),
        rng.integers(0, 5, size).astype(float),
        rng.normal(0, 1, size),
    ]
    absent = rng.random(size) < missing
    compare([[None if a else float(v) for v, a in zip(k, absent, strict=True)] for k in kinds])
