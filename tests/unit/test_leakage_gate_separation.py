"""How well one feature alone tells an outcome: right values, leaks found, ids not accused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from components.leakage_gate.separation import (
    MIN_OF_EACH_CLASS,
    View,
    area_under_curve,
    numeric_views,
    outcomes_of,
    separation,
)
from components.leakage_gate.single_feature import suspicions, unassessable_outputs
from models.spec.ranking import RankingSpec

NUM_ROWS = 6000
LIMIT = 0.95


def _ranking(**columns: dict[str, Any]) -> RankingSpec:
    """Returns a ranking problem with these request features beside the keys and targets."""
    content = {
        "slate": "request", "user": "user", "item": "item",
        "columns": {
            "request": {"type": "string", "availability": "request", "role": "group"},
            "user": {"type": "string", "availability": "request", "role": "feature"},
            "item": {"type": "string", "availability": "request", "role": "key"},
            "clicked": {"type": "bool", "availability": "future", "role": ["target", "mask"]},
            "watched": {"type": "float", "availability": "future", "role": "target"},
            **{
                name: {"availability": "request", "role": "feature", **column}
                for name, column in columns.items()
            },
        },
        "tasks": {
            "click": {"kind": "binary", "target": "clicked", "gates": {"auc": {"min": 0.6}}},
            "watch": {"kind": "duration", "target": "watched", "mask": "clicked",
                      "gates": {"spearman": {"min": 0.1}}},
        },
    }  # fmt: skip
    return RankingSpec.model_validate_json(json.dumps(content))


def _rows(**features: list[Any]) -> pa.Table:
    """Builds example rows around the labels; a list is a sequence, None a missing value."""
    click, watch = _labels()
    columns: dict[str, Any] = {
        "user": [b"u%d" % (i % 400) for i in range(NUM_ROWS)],
        "request__key": [b"r%d" % (i // 10) for i in range(NUM_ROWS)],
        "item__key": [b"i%d" % (i % 97) for i in range(NUM_ROWS)],
        "user__key": [b"u%d" % (i % 400) for i in range(NUM_ROWS)],
        "click__label": click.astype(float).tolist(),
        "click__mask": [1.0] * NUM_ROWS,
        "watch__label": watch.tolist(),
        "watch__mask": click.astype(float).tolist(),
        **features,
    }
    lists = {
        name: [v if v is None or isinstance(v, list) else [v] for v in values]
        for name, values in columns.items()
    }
    return pa.table({name: pa.chunked_array([_array(v)]) for name, v in lists.items()})


def _array(lists: list[Any]) -> pa.Array:
    is_missing = all(values is None for values in lists)
    return pa.array(lists, pa.list_(pa.float32())) if is_missing else pa.array(lists)


def _labels() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    click = rng.random(NUM_ROWS) < 0.15
    return click, np.where(click, rng.lognormal(3.0, 1.0, NUM_ROWS), 0.0)


CLICK, WATCH = _labels()
RNG = np.random.default_rng(1)


def _found(kind: dict[str, Any], values: Any) -> dict[str, tuple[float, str]]:
    """Returns AUC and reading of the column `suspect`, by output."""
    ranking = _ranking(suspect=kind)
    rows = _rows(suspect=list(values))
    return {
        s.output.name: (s.auc, s.reading)
        for s in suspicions(ranking, rows, seed=3)
        if s.column == "suspect"
    }


def test_area_under_curve_is_that_of_scikit_learn() -> None:
    values = RNG.integers(0, 9, 500).astype(float)
    outcomes = RNG.random((4, 500)) < [[0.1], [0.3], [0.5], [0.02]]
    expected = [roc_auc_score(outcome, values) for outcome in outcomes]
    np.testing.assert_allclose(area_under_curve(values, outcomes), expected, rtol=1e-12)


def test_a_value_counts_in_either_direction() -> None:
    outcome = RNG.random(1000) < 0.3
    up, down = (View("value", sign * outcome.astype(float)) for sign in (1.0, -1.0))
    assert separation(up, outcome[np.newaxis], 0) == separation(down, outcome[np.newaxis], 0) == 1.0


def test_too_few_of_a_class_prove_nothing() -> None:
    outcome = np.zeros((1, 1000), bool)
    outcome[0, : MIN_OF_EACH_CLASS - 1] = True
    view = View("value", outcome[0].astype(float))
    assert separation(view, outcome, 0) == 0.5
    outcome[0, MIN_OF_EACH_CLASS - 1] = True
    assert separation(View("value", outcome[0].astype(float)), outcome, 0) == 1.0


def test_real_labels_are_cut_at_quartiles_and_at_the_smallest_value() -> None:
    labels = np.array([0.0] * 60 + list(range(1, 41)))
    outcomes = outcomes_of(labels, "duration")
    assert sorted(outcomes.sum(axis=1)) == [25, 40]


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.35])
def test_a_copy_of_a_binary_label_plus_noise_is_found(noise: float) -> None:
    auc, _ = _found({"type": "float"}, CLICK + RNG.normal(0, 1, NUM_ROWS) * noise)["click"]
    assert auc > LIMIT


@pytest.mark.parametrize("flipped", [0.0, 0.02])
def test_a_copy_of_a_binary_label_as_text_is_found(flipped: float) -> None:
    copy = CLICK ^ (RNG.random(NUM_ROWS) < flipped)
    found = _found({"type": "string"}, [b"yes" if c else b"no" for c in copy])
    assert found["click"][0] > LIMIT


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.4])
def test_a_copy_of_a_duration_plus_noise_is_found(noise: float) -> None:
    log = np.log(np.maximum(WATCH, 1e-3)) + RNG.normal(0, 1, NUM_ROWS) * noise
    auc, _ = _found({"type": "float"}, log)["watch"]
    assert auc > LIMIT


def test_the_duration_itself_gives_both_tasks_away() -> None:
    found = _found({"type": "float"}, WATCH)
    assert found["click"][0] == found["watch"][0] == 1.0


def test_a_duration_as_categories_is_found() -> None:
    kind = {"type": "int", "encoding": {"kind": "hash", "buckets": 100}}
    found = _found(kind, [b"%d" % w for w in WATCH])
    assert found["watch"][0] > LIMIT


def test_a_leak_whose_order_means_nothing_is_found() -> None:
    sign = np.where(RNG.random(NUM_ROWS) < 0.5, -1.0, 1.0)
    auc, reading = _found({"type": "float"}, CLICK * sign * 5 + RNG.normal(0, 1, NUM_ROWS))["click"]
    assert auc > LIMIT
    assert reading == "bins"


@pytest.mark.parametrize(
    ("kind", "value"), [({"type": "float"}, 1.5), ({"type": "string"}, b"seen")]
)
def test_a_column_that_exists_only_when_clicked_is_found(kind: dict[str, Any], value: Any) -> None:
    found = _found(kind, [value if c else None for c in CLICK])
    assert found["click"][0] == 1.0


def test_a_leak_in_the_few_rows_that_carry_the_column_is_found() -> None:
    carried = RNG.random(NUM_ROWS) < 0.3
    values = [float(c) if there else None for c, there in zip(CLICK, carried, strict=True)]
    assert _found({"type": "float"}, values)["click"][0] == 1.0


def test_a_list_of_what_was_clicked_is_found() -> None:
    items = [b"i%d" % (i % 97) for i in range(NUM_ROWS)]
    lists = [[b"x", items[i] if c else b"", b""] for i, c in enumerate(CLICK)]
    found = _found({"type": "list[string]", "max_length": 3}, lists)
    assert found["click"][0] == 1.0
    other = [[b"x", items[i] if c else items[i - 1]] for i, c in enumerate(CLICK)]
    found = _found({"type": "list[string]", "max_length": 2}, other)
    assert found["click"] == (1.0, "holds the item")


def test_a_sequence_as_long_as_the_session_that_follows_is_found() -> None:
    lists = [[1.0] * (3 if c else 1) for c in CLICK]
    assert _found({"type": "list[float]", "max_length": 3}, lists)["click"] == (1.0, "length")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ({"type": "float"}, RNG.normal(0, 1, NUM_ROWS)),
        ({"type": "float"}, CLICK * 0.5 + RNG.normal(0, 1, NUM_ROWS)),
        ({"type": "float"}, [None] * NUM_ROWS),
        ({"type": "float"}, [1.0] * NUM_ROWS),
        ({"type": "string"}, [b"id%d" % i for i in range(NUM_ROWS)]),
        ({"type": "string"}, [b"id%d" % (i // 2) for i in range(NUM_ROWS)]),
        ({"type": "string"}, [b"%d" % (i % 24) for i in range(NUM_ROWS)]),
        ({"type": "list[string]", "max_length": 2}, [[b"a", b"b"]] * NUM_ROWS),
    ],
)  # fmt: skip
def test_honest_columns_are_not_accused(kind: dict[str, Any], values: Any) -> None:
    for auc, _ in _found(kind, values).values():
        assert 0.5 <= auc < 0.75


def test_a_slate_of_one_winner_does_not_make_its_id_a_leak() -> None:
    """The other row of a pair tells the outcome by exclusion; that is no leak in the id."""
    winners = np.zeros(NUM_ROWS, bool)
    winners[2 * np.arange(NUM_ROWS // 2) + RNG.integers(0, 2, NUM_ROWS // 2)] = True
    codes = np.arange(NUM_ROWS) // 2
    assert separation(View("category", codes=codes), winners[np.newaxis], 0) < 0.6


def test_outputs_without_evidence_are_named() -> None:
    rows = _rows()
    assert unassessable_outputs(_ranking(), rows) == []
    assert unassessable_outputs(_ranking(), rows.slice(0, 100)) == ["click", "watch"]


def test_missing_numbers_have_a_bin_of_their_own() -> None:
    views = {view.reading: view for view in numeric_views(np.array([1.0, np.nan, 2.0]))}
    assert views["bins"].codes is not None
    assert len(set(views["bins"].codes)) == 3
