from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.metrics import roc_auc_score

from components.report.comparisons import (
    Resampling,
    auxiliary_pairs,
    report_data,
    single_task_candidate,
)
from components.report.floor_scores import FloorScores
from components.report.row_match import example_of_prediction
from models.metrics.columns import TaskColumns
from models.metrics.estimation import paired_bootstrap
from models.spec.errors import DataError
from tests.browser.synthetic_rows import (
    Impressions,
    example_batch,
    impressions,
    predictions,
    ranking_spec,
)
from tests.browser.synthetic_run import candidates

RANKING = ranking_spec()
RESAMPLING = Resampling(num_replicates=40, seed=5)
CANDIDATES = {n: c for n, c in candidates().items() if n in ("single_task", "mmoe", "mmoe_alone")}


@pytest.fixture(scope="module")
def rows() -> Impressions:
    return impressions(12_000, seed=11)


@pytest.fixture(scope="module")
def tables(rows: Impressions) -> dict[str, pa.Table]:
    noise = {"single_task": 0.8, "mmoe": 0.2, "mmoe_alone": 0.5}
    return {
        n: predictions(rows, RANKING, noise=level, seed=i).filter(pc.field("split") == "test")
        for i, (n, level) in enumerate(noise.items())
    }


def floors(table: pa.Table) -> dict[str, FloorScores]:
    constant = {o.name: np.full(table.num_rows, 0.1) for o in RANKING.outputs}
    ordered = {o.name: np.linspace(0.1, 0.2, table.num_rows) for o in RANKING.outputs}
    return {"popularity": FloorScores(constant, {}), "linear": FloorScores(ordered, {})}


@pytest.fixture(scope="module")
def data(tables: dict[str, pa.Table]) -> dict[str, Any]:
    return report_data(RANKING, CANDIDATES, tables, floors(tables["mmoe"]), RESAMPLING)


def columns(table: pa.Table, output: str) -> TaskColumns:
    def codes(name: str) -> Any:
        return np.unique(table[name].to_pylist(), return_inverse=True)[1]

    def number(suffix: str) -> Any:
        return table[f"{output}__{suffix}"].to_numpy()

    return TaskColumns(
        number("label"),
        number("prediction"),
        number("weight"),
        codes("request_id"),
        codes("user_id"),
    )


def test_differences_are_those_of_scikit_learn(
    data: dict[str, Any], tables: dict[str, pa.Table]
) -> None:
    label = tables["mmoe"]["click__label"].to_numpy() > 0
    auc = {n: roc_auc_score(label, t["click__prediction"].to_numpy()) for n, t in tables.items()}
    found = data["comparisons"]["mmoe"]["single_task"]["click"]["auc"]
    assert found["value"] == pytest.approx(auc["mmoe"] - auc["single_task"], abs=1e-9)
    constant = data["comparisons"]["mmoe"]["popularity"]["click"]["auc"]
    assert constant["value"] == pytest.approx(auc["mmoe"] - 0.5, abs=1e-9)


def test_intervals_are_paired(data: dict[str, Any], tables: dict[str, pa.Table]) -> None:
    expected = paired_bootstrap(
        ["auc"],
        columns(tables["single_task"], "conversion"),
        columns(tables["mmoe"], "conversion"),
        RESAMPLING.num_replicates,
        seed=RESAMPLING.seed,
    )["auc"]
    found = data["comparisons"]["mmoe"]["single_task"]["conversion"]["auc"]
    assert found["value"] == pytest.approx(expected.value)
    assert found["low"] < found["value"] < found["high"]
    # Users are numbered by first appearance here, by name above: other draws, the same spread.
    width = expected.high - expected.low
    assert found["high"] - found["low"] == pytest.approx(width, rel=0.4)
    assert found["low"] > 0


def test_auxiliary_ablation_is_with_minus_without(data: dict[str, Any]) -> None:
    (pair,) = data["auxiliary"]
    assert (pair["on"], pair["off"]) == ("mmoe", "mmoe_alone")
    against = data["comparisons"]
    for metric in ("auc", "log_loss"):
        expected = (
            against["mmoe"]["single_task"]["click"][metric]["value"]
            - against["mmoe_alone"]["single_task"]["click"][metric]["value"]
        )
        assert pair["differences"]["click"][metric]["value"] == pytest.approx(expected)


def test_undefined_values_are_null(tables: dict[str, pa.Table]) -> None:
    given = floors(tables["mmoe"])
    given["linear"].predictions["click"] = np.full(tables["mmoe"].num_rows, np.nan)
    data = report_data(RANKING, CANDIDATES, tables, given, RESAMPLING)
    undefined = {"value": None, "low": None, "high": None}
    assert data["floors"]["linear"]["click"]["auc"] == undefined
    assert data["comparisons"]["mmoe"]["linear"]["click"]["auc"] == undefined


def test_a_candidate_is_not_compared_with_itself(data: dict[str, Any]) -> None:
    assert set(data["comparisons"]["single_task"]) == {"popularity", "linear"}
    assert data["single_task"] == "single_task"
    assert data["notes"] == []


def test_missing_references_are_told(tables: dict[str, pa.Table]) -> None:
    only = {"mmoe": CANDIDATES["mmoe"]}
    absent = FloorScores({}, {"click": "no train row has a label"})
    data = report_data(
        RANKING,
        only,
        {"mmoe": tables["mmoe"]},
        {"popularity": absent, "linear": absent},
        RESAMPLING,
    )
    told = " ".join(data["notes"])
    assert "No candidate is a single_task" in told
    assert "auxiliary: false" in told
    assert told.count("No floor for click: no train row has a label.") == 1
    assert data["comparisons"]["mmoe"] == {"popularity": {}, "linear": {}}


def test_candidates_on_other_rows_are_an_error(tables: dict[str, pa.Table]) -> None:
    other = {**tables, "mmoe": tables["mmoe"].slice(1)}
    with pytest.raises(DataError, match="single_task and mmoe were scored on different rows"):
        report_data(RANKING, CANDIDATES, other, floors(tables["mmoe"]), RESAMPLING)


def test_pairs_differ_in_nothing_else() -> None:
    given = candidates()
    assert auxiliary_pairs(given) == [("mmoe", "mmoe_alone")]
    faster = given["mmoe_alone"].model_copy(update={"learning_rate": 0.1})
    assert auxiliary_pairs({**given, "mmoe_alone": faster}) == []


def test_single_task_is_found_by_name_or_architecture() -> None:
    given = candidates()
    assert single_task_candidate(given) == "single_task"
    renamed = {"mmoe": given["mmoe"], "alone": given["single_task"]}
    assert single_task_candidate(renamed) == "alone"
    assert single_task_candidate({"mmoe": given["mmoe"]}) is None


def test_examples_are_matched_to_prediction_rows(
    rows: Impressions, tables: dict[str, pa.Table]
) -> None:
    kept = np.random.default_rng(2).permutation(rows.split("test"))
    examples = pa.Table.from_batches([example_batch(rows, RANKING, kept)])
    positions = example_of_prediction(RANKING, examples, tables["mmoe"])
    assert sorted(positions) == list(range(len(kept)))
    np.testing.assert_array_equal(
        rows.columns["request_id"][kept[positions]], tables["mmoe"]["request_id"].to_pylist()
    )
    np.testing.assert_array_equal(
        rows.labels["watch_seconds"][kept[positions]],
        tables["mmoe"]["watch_seconds__label"].to_numpy(),
    )


def test_predictions_of_other_examples_are_an_error(
    rows: Impressions, tables: dict[str, pa.Table]
) -> None:
    examples = pa.Table.from_batches([example_batch(rows, RANKING, rows.split("validation"))])
    with pytest.raises(DataError, match="not those of these examples"):
        example_of_prediction(RANKING, examples, tables["mmoe"])
