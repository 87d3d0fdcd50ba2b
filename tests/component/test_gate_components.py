"""Executors of the gates, and their wiring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tfx.types import artifact_utils, channel_utils, standard_artifacts

from components.artifacts import Blessing, LogAccounts
from components.data_gate.component import DataGate
from components.data_gate.executor import Executor as DataGateExecutor
from components.leakage_gate.component import DataLeakageGate, model_leakage_gate_class
from components.leakage_gate.data_executor import Executor as DataLeakageExecutor
from components.leakage_gate.model_executor import Executor as ModelLeakageExecutor
from components.log_example_gen.build import BuiltExamples
from components.verdict import Verdict, read_verdict
from models.schema import training_schema
from tests.component.gate_site import (
    LIMITS,
    SPEC,
    Site,
    spec_for,
    write_examples,
)


def _artifact(kind: type[Any], uri: Path) -> Any:
    artifact = kind()
    artifact.uri = str(uri)
    return artifact


def _checks(**changes: float) -> str:
    return json.dumps(LIMITS.model_dump() | changes)


def _write_accounts(directory: Path, built: BuiltExamples) -> None:
    directory.mkdir()
    (directory / "accounts.json").write_text(json.dumps(built.accounts))


@pytest.mark.parametrize("blessed", [True, False])
def test_the_data_leakage_gate_blesses_or_not(site: Site, tmp_path: Path, blessed: bool) -> None:
    def leak(spec: dict[str, Any]) -> None:
        spec["ranking"]["features"]["item_shown"]["as_of"]["availability_lag"] = 0

    built = site.build() if blessed else site.build(leak)
    examples = _artifact(standard_artifacts.Examples, Path(write_examples(built, site.examples)))
    examples.split_names = artifact_utils.encode_split_names(["train", "validation", "test"])
    _write_accounts(tmp_path / "accounts", built)
    blessing = _artifact(Blessing, tmp_path / "blessing")
    DataLeakageExecutor().Do(
        {"examples": [examples], "accounts": [_artifact(LogAccounts, tmp_path / "accounts")]},
        {"blessing": [blessing]},
        {"dataset_json": spec_for(site.logs).model_dump_json(), "checks_json": _checks()},
    )
    verdict = read_verdict(blessing.uri)
    assert blessing.blessed == int(blessed)
    assert verdict.passed == blessed
    assert verdict.gate == "data_leakage_gate"


@pytest.mark.slow
def test_the_data_gate_reads_what_statistics_gen_writes(site: Site, tmp_path: Path) -> None:
    from tfx.components.statistics_gen.executor import Executor as StatisticsExecutor
    from tfx.dsl.components.base import base_beam_executor

    built = site.build()
    ranking = spec_for(site.logs).ranking
    examples = _artifact(standard_artifacts.Examples, Path(write_examples(built, site.examples)))
    examples.split_names = artifact_utils.encode_split_names(["train", "validation", "test"])
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    schema = _artifact(standard_artifacts.Schema, tmp_path / "schema")
    Path(schema.uri).mkdir()
    (Path(schema.uri) / "schema.pbtxt").write_text(str(training_schema(ranking, ())))
    statistics = _artifact(standard_artifacts.ExampleStatistics, tmp_path / "statistics")
    statistics.split_names = examples.split_names
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=FnApiRunner"], tmp_dir=str(tmp_path / "tmp"), unique_id="1"
    )
    StatisticsExecutor(context).Do(
        {"examples": [examples], "schema": [schema]}, {"statistics": [statistics]}, {}
    )
    _write_accounts(tmp_path / "accounts", built)

    def judge(**inputs: Any) -> Verdict:
        blessing = _artifact(Blessing, tmp_path / "blessing")
        DataGateExecutor().Do(
            {
                "statistics": [statistics],
                "schema": [schema],
                "accounts": [_artifact(LogAccounts, tmp_path / "accounts")],
                **inputs,
            },
            {"blessing": [blessing]},
            {
                "ranking_json": ranking.model_dump_json(),
                "checks_json": _checks(max_dead_rate=0.6),
            },
        )
        verdict = read_verdict(blessing.uri)
        assert blessing.blessed == int(verdict.passed)
        return verdict

    verdict = judge()
    assert verdict.passed, verdict.reasons
    assert verdict.details["previous_window"] is False
    assert judge(previous_statistics=[]).passed
    against_itself = judge(previous_statistics=[statistics])
    assert against_itself.passed, against_itself.reasons
    assert against_itself.details["previous_window"] is True


def test_the_model_leakage_gate_names_the_candidate(tmp_path: Path) -> None:
    models = {}
    for name in ("mmoe", "single_task"):
        models[name] = _artifact(standard_artifacts.Model, tmp_path / name)
        folder = tmp_path / name / "Format-Serving"
        folder.mkdir(parents=True)
        tf.saved_model.save(tf.Module(), str(folder))
    blessing = _artifact(Blessing, tmp_path / "blessing")
    ModelLeakageExecutor().Do(
        {f"model_{name}": [model] for name, model in models.items()},
        {"blessing": [blessing]},
        {"ranking_json": json.dumps(SPEC["ranking"])},
    )
    verdict = read_verdict(blessing.uri)
    assert blessing.blessed == 0
    assert set(verdict.details["candidates"]) == {"mmoe", "single_task"}
    assert all("absent" in r for r in verdict.details["candidates"]["mmoe"])


def test_components_can_be_wired() -> None:
    def channel(kind: type[Any]) -> Any:
        return channel_utils.as_channel([kind()])

    statistics = channel(standard_artifacts.ExampleStatistics)
    accounts = channel(LogAccounts)
    json_parameters = {"checks_json": "{}", "code_hash": "0"}
    data_gate = DataGate(
        statistics=statistics,
        schema=channel(standard_artifacts.Schema),
        accounts=accounts,
        previous_statistics=None,
        ranking_json="{}",
        **json_parameters,
    )
    leakage_gate = DataLeakageGate(
        examples=channel(standard_artifacts.Examples),
        accounts=accounts,
        dataset_json="{}",
        **json_parameters,
    )
    model_gate = model_leakage_gate_class(["mmoe"])(
        model_mmoe=channel(standard_artifacts.Model), ranking_json="{}", code_hash="0"
    )
    gates = (data_gate, leakage_gate, model_gate)
    assert [gate.id for gate in gates] == ["DataGate", "DataLeakageGate", "ModelLeakageGate"]
    assert all(gate.outputs["blessing"].type is Blessing for gate in gates)
