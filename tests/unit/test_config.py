"""The configuration: strictness, places of faults, documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from models.spec.errors import ConfigError
from models.spec.metric import METRICS
from models.spec.ranking import RankingSpec
from pipeline import reference
from pipeline.config import Beam, Config
from pipeline.load import load_config
from tests.unit.json_schema import violations

ROOT = Path(__file__).resolve().parents[2]
SIMULATED = ROOT / "examples" / "simulated" / "config.yaml"


@pytest.fixture(scope="module")
def text() -> str:
    return SIMULATED.read_text()


def _error(tmp_path: Path, text: str) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value)


@pytest.mark.parametrize("name", ["simulated", "kuairand", "ebnerd", "census"])
def test_examples_are_valid(name: str) -> None:
    config = load_config(ROOT / "examples" / name / "config.yaml")
    assert config.name == name
    assert RankingSpec.model_validate_json(config.ranking.model_dump_json()) == config.ranking


@pytest.mark.parametrize(
    ("old", "new", "key", "expected"),
    [
        ("batch_size: 512", "batch_sz: 512", "training.batch_sz", "did you mean 'batch_size'?"),
        ("epochs: 6", "epochs: eight", "training.epochs", "valid integer"),
        ("epochs: 6", "epochs: 0", "training.epochs", "greater than or equal to 1"),
        ("role: feature, scope: context}", "role: feture}", "columns.device.role", "'feature'?"),
        (
            "conditioned_on: click", "conditioned_on: clik",
            "tasks.conversion.conditioned_on", "'click'?",
        ),
        ("architecture: mmoe}", "architecture: mmo}", "candidates.mmoe.model", "'mmoe'?"),
        (
            "architecture: mmoe}", "architecture: mmoe, num_expert: 3}",
            "candidates.mmoe.model.num_expert", "'num_experts'?",
        ),
        (
            "architecture: mmoe}", "architecture: aitm, transfers: {conversion: clik}}",
            "candidates.mmoe.model", "'click'?",
        ),
        ("target: clicked", "target: clickd", "tasks.click.target", "'clicked'?"),
        ("window: 1h}", "window: 1 hour}", "columns.clicked.join.window", "'30m'"),
        (
            "kind: zero_inflated_log_normal", "kind: zero_inflated",
            "tasks.watch_seconds.loss", "'zero_inflated_log_normal'?",
        ),
        (
            "gates: {spearman: {min: 0.1}}", "",
            "tasks.watch_seconds.gates", "at least one value gate",
        ),
        (
            "events: clicks, entity: item_id", "events: click, entity: item_id",
            "features.item_clicks_24h.as_of.events", "'clicks'?",
        ),
        ("slices: [device, user_segment]", "slices: [devic]", "evaluation.slices.0", "'device'?"),
        (
            "bounds: {click: {min: 0, max: 5}", "bounds: {clik: {min: 0, max: 5}",
            "score.bounds.clik", "'click'?",
        ),
        (
            "bounds: {click: {min: 0, max: 5}", "bounds: {click: {min: 2, max: 5}",
            "score.bounds.click", "must be within its bounds",
        ),
        ("click.auc: 1.0", "click.acu: 1.0", "objective.click.acu", "click.auc"),
        (
            "training: {", "training: {optimizers: {task_learning_rates: {clik: 0.1}}, ",
            "training.optimizers.task_learning_rates.clik", "'click'?",
        ),
        (
            "mmoe: {model: {architecture: mmoe}}",
            "mmoe: {model: {architecture: mmoe}, balancer: {kind: fixed, weights: {convers: 1.0}}}",
            "candidates.mmoe.balancer.weights.convers", "'conversion'?",
        ),
        (
            "role: [target, mask]", "role: [target, feature]",
            "columns.clicked.role", "cannot be a feature",
        ),
        (
            "availability: future\n    role: auxiliary_target\n    join: {stream: scroll",
            "availability: request\n    role: feature\n    join: {stream: scroll",
            "columns.scroll_depth.availability", "known only after",
        ),
        (
            "  click:\n    kind: binary",
            "  click:\n    conditioned_on: conversion\n    kind: binary",
            "tasks.click.conditioned_on", "cyclic",
        ),
        (
            "position: {type: int, availability: decision}",
            "position: {type: int, availability: decision}\n"
            "  late: {type: bool, availability: request, role: feature, expression: clicked}",
            "columns.late.availability", "cannot be known earlier",
        ),
        ("  click:\n    kind", "  my click:\n    kind", "tasks.my click", "starting with a letter"),
        (
            "  position: {type: int,", "  Preis (EUR): {type: int, availability: request, "
            "role: feature}\n  position: {type: int,", "columns.Preis (EUR)", "under `source`",
        ),
        ("mask: clicked", "mask: device", "tasks.watch_seconds.mask", "'device' is string"),
        ("      on: [", "      true: [", "logs.streams.clicks.True", "did you mean 'on'?"),
        # A number without a unit would be taken for milliseconds.
        ("window: 1h}", "window: 1}", "columns.clicked.join.window", "'30m'"),
        ("validation: 1d", "validation: 1", "splits.validation", "'30m'"),
        (
            "validation: 1d", "validation: 10%", "splits.validation: a duration",
            "received '10%', or: expected a valid number",
        ),
        ("auc: {min: 0.65,", "auc: {min: .nan,", "tasks.click.gates.auc.min", "finite"),
        (
            "calibration: {min: 0.8, max: 1.25}", "calibration: {min: 0.8, max: 0.7}",
            "tasks.click.gates.calibration", "no value passes",
        ),
        ("auc: {min: 0.65,", "auc: {min: 65,", "tasks.click.gates.auc", "auc is at most 1"),
        (
            "spearman: {min: 0.1}", "spearman: {max: -2}",
            "tasks.watch_seconds.gates.spearman", "spearman is at least -1",
        ),
        (
            "splits: {", "push: {model_name: ../elsewhere}\nsplits: {",
            "push.model_name", "expected text to match pattern",
        ),
        (
            "objective:", "objective: {}\nunused:",
            "objective", "expected at least 1 item; received {}",
        ),
    ],
)  # fmt: skip
def test_faults_name_file_line_and_remedy(
    tmp_path: Path, text: str, old: str, new: str, key: str, expected: str
) -> None:
    assert old in text
    bad = text.replace(old, new, 1)
    message = _error(tmp_path, bad)
    assert str(tmp_path / "bad.yaml") in message
    assert key in message
    assert expected in message
    line = int(message.split("bad.yaml:")[1].split(":")[0])
    named = key.split(".")[0]
    assert 1 <= line <= len(bad.splitlines())
    assert _section_of(bad, line) == named


def _section_of(text: str, line: int) -> str:
    """The top-level key that a line of a YAML text belongs to."""
    lines = text.splitlines()[:line]
    return next(each for each in reversed(lines) if each and each[0].isalpha()).split(":")[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("name: [a", "not valid YAML"),
        ("name: a\x00", "not valid YAML"),
        ("- 1", "not a configuration.*received a list"),
        ("", "not a configuration.*received an empty file"),
        ("{}", "is required"),
    ],
)
def test_not_a_configuration(tmp_path: Path, content: str, expected: str) -> None:
    assert re.search(expected, _error(tmp_path, content))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        load_config(tmp_path / "nowhere.yaml")


def test_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(SIMULATED, ["training.epochs=3", "logs.root=mine", "splits.test=36h"])
    assert config.training.epochs == 3
    assert config.logs.root == str(tmp_path / "mine")
    assert config.splits.test == 36 * 3_600_000
    with pytest.raises(ConfigError, match=r"--set training\.epoch"):
        load_config(SIMULATED, ["training.epoch=3"])
    with pytest.raises(ConfigError, match=r"--set traning: unknown key.*'training'"):
        load_config(SIMULATED, ["traning.epochs=3"])
    with pytest.raises(ConfigError, match=r"--set training\.epochs: the value is not valid YAML"):
        load_config(SIMULATED, ["training.epochs=[3"])
    assert load_config(SIMULATED, ["push.memory_bytes=1.5GiB"]).push.memory_bytes == 3 << 29
    with pytest.raises(ConfigError, match="as in '1.5GiB'"):
        load_config(SIMULATED, ["push.memory_bytes=1.5GB"])
    with pytest.raises(ConfigError, match="key.path=value"):
        load_config(SIMULATED, ["training.epochs"])


def test_every_key_is_documented() -> None:
    missing = [
        f"{model.__name__}.{name}"
        for model in reference.models()
        for name, field in model.model_fields.items()
        if not field.description and name not in ("kind", "architecture")
    ]
    assert missing == []
    assert reference.TARGET.read_text() == reference.reference(), (
        "docs/configuration.md is stale: run python -m pipeline.reference"
    )


def test_units_and_metrics_are_documented() -> None:
    page = reference.reference()
    assert "| **`window`** | duration |" in page
    assert "| `drain` | duration | `15s` |" in page
    assert "| `memory` | size | `16GiB` |" in page
    assert all(f"\n| `{name}`" in page for name in METRICS)


def test_json_schema_is_exported() -> None:
    schema = Config.model_json_schema()
    assert schema["additionalProperties"] is False
    assert json.dumps(schema).count("did you mean") == 0
    assert "columns" in schema["required"]


@pytest.mark.parametrize("name", ["simulated", "kuairand", "ebnerd"])
def test_an_editor_accepts_the_examples(name: str) -> None:
    schema = Config.model_json_schema()
    document = YAML(typ="safe").load(ROOT / "examples" / name / "config.yaml")
    assert list(violations(schema, document, schema)) == []


def test_an_editor_marks_faults(text: str) -> None:
    schema = Config.model_json_schema()
    for old, new, told in [
        ("batch_size: 512", "batch_sz: 512", "batch_sz: unknown key"),
        ("epochs: 6", "epochs: six", "not of type integer"),
        ("kind: duration", "kind: durations", "is not"),
        ("role: auxiliary\n", "role: auxilary\n", "is not"),
        ("window: 48h", "window: 48 hours", "does not match"),
        ("name: simulated", "nam: simulated", "lacks name"),
    ]:
        assert old in text
        document = YAML(typ="safe").load(text.replace(old, new, 1))
        assert told in " ".join(violations(schema, document, schema)), new


def test_a_new_task_reaches_every_derived_place() -> None:
    from pipeline.outputs import eval_outputs

    base = load_config(SIMULATED)
    tasks = {
        "share": {
            "kind": "binary", "target": "returned", "conditioned_on": "click",
            "gates": {"auc": {"min": 0.5, "max_drop": 0.1}},
        }
    }  # fmt: skip
    config = load_config(SIMULATED, [f"tasks.share={json.dumps(tasks['share'])}"])
    ranking = config.ranking
    assert set(ranking.served_tasks) == {*base.ranking.served_tasks, "share"}
    names = [output.name for output in ranking.outputs]
    assert "share" in names and "share_given_click" in names
    gated = {output.name: output for output in eval_outputs(ranking)}
    assert [(g.metric, g.kind) for g in gated["share"].gates] == [
        ("auc", "value"), ("auc", "change"),
    ]  # fmt: skip
    assert gated["share_given_click"].gates == ()
    assert ranking.task_order.index("click") < ranking.task_order.index("share")
    assert ranking.task_maturity_ms("share") == 24 * 3_600_000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runner": "DaskRunner"}, "DaskRunner is refused: it loses rows"),
        ({"runner": "PrismRunner"}, "PrismRunner is refused: it downloads a program"),
        ({"runner": "DirectRunner"}, "DirectRunner is refused: it hands over to PrismRunner"),
        ({"runner": "FlinkRuner"}, "'FnApiRunner', 'FlinkRunner', 'SparkRunner'"),
        ({"arguments": ["--flink_master=x"]}, "arguments belong to a cluster's runner"),
        ({"runner": "FlinkRunner", "direct_num_workers": 2}, "belong to FnApiRunner"),
        ({"runner": "FlinkRunner", "arguments": ["flink_master=x"]}, "is not one: --name=value"),
        ({"runner": "FlinkRunner", "arguments": ["--runner=DaskRunner"]}, "keys of their own"),
    ],
)
def test_runners_that_cannot_be_used_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Beam.model_validate(settings)


def test_arguments_of_a_cluster_reach_beam_as_they_are() -> None:
    given = ["--flink_master=localhost:8081", "--parallelism=4"]
    beam = Beam.model_validate({"runner": "FlinkRunner", "arguments": given})
    assert beam.pipeline_arguments == ("--runner=FlinkRunner", *given)
    workers = Beam(direct_num_workers=2, direct_running_mode="multi_processing")
    assert "--direct_running_mode=multi_processing" in workers.pipeline_arguments
