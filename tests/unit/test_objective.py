"""The declared objective, and the choice of the champion by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.verdict import Verdict, read_verdict, write_verdict
from models.metrics.objective import objective_value, undefined_terms
from models.spec.ranking import RankingSpec

OBJECTIVE = {"click.auc": 1.0, "watch.mae": 0.01}
RANKING = RankingSpec.model_validate_json(
    """{
    "user": "user", "item": "item",
    "columns": {
        "user": {"type": "string", "availability": "request", "role": "feature"},
        "item": {"type": "string", "availability": "request", "role": "key"},
        "clicked": {"type": "bool", "availability": "future", "role": "target"},
        "watched": {"type": "float", "availability": "future", "role": "target"}
    },
    "tasks": {
        "click": {"kind": "binary", "target": "clicked"},
        "watch": {"kind": "duration", "target": "watched"}
    }}"""
)


def test_lower_is_better_counts_negatively() -> None:
    measured = {"click": {"auc": 0.7, "log_loss": 0.4}}
    weights = {"click.auc": 2.0, "click.log_loss": 0.5}
    assert objective_value(weights, measured) == pytest.approx(1.2)
    assert undefined_terms(weights, measured) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_epoch_that_diverged_is_not_better_than_one_that_did_not(bad: float) -> None:
    measured = {"click": {"auc": 0.7}, "watch": {"mae": bad}}
    assert objective_value(OBJECTIVE, measured) is None
    assert undefined_terms(OBJECTIVE, measured) == ["watch.mae"]


def _predictions(folder: Path, watch: float) -> Any:
    """Writes validation rows of 20 users; the watch time of each is predicted alike."""
    rng = np.random.default_rng(0)
    click = rng.integers(0, 2, 20).astype(np.float32)
    ones = np.ones(20, np.float32)
    columns = {"user": [f"u{i}" for i in range(20)], "split": ["validation"] * 20}
    for name, label, prediction in (
        ("click", click, 0.2 + 0.5 * click),
        ("watch", 10 * click, watch * ones),
    ):
        columns |= {f"{name}__label": label, f"{name}__weight": ones}
        columns[f"{name}__prediction"] = prediction.astype(np.float32)
    folder.mkdir()
    pq.write_table(pa.table(columns), folder / "predictions.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("healthy", [5.0, float("nan")])
def test_a_candidate_without_an_objective_is_refused_with_the_reason(
    tmp_path: Path, healthy: float
) -> None:
    from tfx.types import standard_artifacts

    from components.artifacts import Blessing, ChampionChoice, Predictions
    from components.champion.executor import Executor

    def artifact(kind: type[Any], name: str) -> list[Any]:
        made = kind()
        made.uri = str(tmp_path / name)
        return [made]

    clean = Verdict("gate", True, details={"candidates": {"broken": [], "other": []}})
    inputs = {gate: artifact(Blessing, gate) for gate in ("leakage", "serving")}
    for gate in ("leakage", "serving"):
        write_verdict(str(tmp_path / gate), clean)
    for name, watch in (("broken", float("nan")), ("other", healthy)):
        _predictions(tmp_path / f"predictions_{name}", watch)
        inputs[f"predictions_{name}"] = artifact(Predictions, f"predictions_{name}")
        inputs[f"blessing_{name}"] = artifact(standard_artifacts.ModelBlessing, f"blessing_{name}")
        (tmp_path / f"blessing_{name}").mkdir()
        (tmp_path / f"blessing_{name}" / "BLESSED").touch()
    outputs = {
        "champion": artifact(ChampionChoice, "champion"),
        "blessing": artifact(Blessing, "verdict"),
    }
    Executor().Do(
        inputs,
        outputs,
        {
            "candidates_json": '["broken", "other"]',
            "ranking_json": RANKING.model_dump_json(),
            "objective_json": json.dumps(OBJECTIVE),
        },
    )
    verdict = read_verdict(str(tmp_path / "verdict"))
    choice = json.loads((tmp_path / "champion" / "champion.json").read_text())
    assert verdict.passed == np.isfinite(healthy)
    assert choice["champion"] == ("other" if verdict.passed else None)
    assert choice["objective"]["broken"] is None
    (reason,) = choice["refusals"]["broken"]
    assert "watch.mae, undefined on the validation split" in reason and "remedy" in reason
    assert verdict.reasons[0] == f"broken: {reason}"
