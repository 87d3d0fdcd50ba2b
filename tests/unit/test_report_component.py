"""The Report component on files, as TFX calls it. Importing TFX takes most of the time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from models.spec.errors import DataError
from tests.browser.synthetic_rows import (
    impressions,
    ranking_spec,
    write_examples,
    write_predictions,
)
from tests.browser.synthetic_run import candidates

pytestmark = pytest.mark.slow

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

NAMES = ("single_task", "mmoe", "mmoe_alone")
RANKING = ranking_spec()
CANDIDATES = {name: candidates()[name] for name in NAMES}
PROPERTIES = {
    "ranking_json": RANKING.model_dump_json(),
    "candidates_json": json.dumps({n: c.model_dump(mode="json") for n, c in CANDIDATES.items()}),
    "seed": "3",
    "num_replicates": "30",
    "code_hash": "0",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    rows = impressions(12_000, seed=4)
    write_examples(rows, RANKING, folder / "examples", seed=5)
    noise = dict.fromkeys(NAMES, 0.1) | {"single_task": 0.8}
    for name, file in write_predictions(rows, RANKING, noise, folder / "made").items():
        (folder / name).mkdir()
        file.rename(folder / name / "predictions.parquet")
    return folder


def artifacts(folder: Path) -> dict[str, list[Any]]:
    from tfx.types import standard_artifacts

    from components.artifacts import Predictions

    examples = standard_artifacts.Examples()
    examples.uri = str(folder / "examples")
    found: dict[str, list[Any]] = {"examples": [examples]}
    for name in NAMES:
        predictions = Predictions()
        predictions.uri = str(folder / name)
        found[f"predictions_{name}"] = [predictions]
    return found


def test_component_is_declared_from_the_candidates() -> None:
    from tfx.types import channel, standard_artifacts

    from components.artifacts import Predictions, ReportData
    from components.report.component import make_report_component
    from components.report.executor import Executor

    inputs = {f"predictions_{n}": channel.Channel(type=Predictions) for n in NAMES}
    component = make_report_component(NAMES)(
        examples=channel.Channel(type=standard_artifacts.Examples), **inputs, **PROPERTIES
    )
    assert set(component.inputs) == {"examples", *inputs}
    assert component.outputs["report"].type is ReportData
    assert component.exec_properties == PROPERTIES
    assert component.executor_spec.executor_class is Executor


def test_executor_writes_report_json(files: Path, tmp_path: Path) -> None:
    from components.artifacts import ReportData
    from components.report.comparisons import Resampling
    from components.report.executor import FILE_NAME, Executor, compare

    report = ReportData()
    report.uri = str(tmp_path / "report")
    Executor().Do(artifacts(files), {"report": [report]}, PROPERTIES)
    data = json.loads((tmp_path / "report" / FILE_NAME).read_text())
    assert set(data["comparisons"]) == set(NAMES)
    for floor in ("popularity", "linear"):
        for output in RANKING.outputs:
            assert set(data["floors"][floor][output.name]) == set(output.metrics)
        gain = data["comparisons"]["mmoe"][floor]["click"]["auc"]
        assert gain["low"] > 0
    assert data["comparisons"]["mmoe"]["single_task"]["click"]["auc"]["low"] > 0
    assert [(p["on"], p["off"]) for p in data["auxiliary"]] == [("mmoe", "mmoe_alone")]
    again = compare(
        RANKING,
        CANDIDATES,
        str(files / "examples"),
        {n: files / n / "predictions.parquet" for n in NAMES},
        Resampling(30, 3),
    )
    assert json.loads(json.dumps(again)) == data


def test_a_missing_split_is_a_clear_error(files: Path, tmp_path: Path) -> None:
    from components.report.example_columns import read_split

    with pytest.raises(DataError, match="the examples have no train split"):
        read_split(str(tmp_path), "train", {"click__label": "float"})
