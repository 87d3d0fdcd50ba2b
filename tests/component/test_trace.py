"""`polyrank trace` on simulated logs: what it tells is what the examples and the raw rows say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import tfx_pipeline
from components.log_example_gen.build import BuiltExamples, build_examples, read_logs
from components.log_example_gen.trace import Tracer
from components.log_example_gen.window import as_text
from models.spec.errors import ConfigError, DataError
from models.spec.fusion import fused
from models.spec.keys import TIMESTAMP
from models.spec.pii_key import PiiKey
from pipeline.load import load_config
from pipeline.plan import RunPlan, make_plan
from pipeline.stored_run import StoredRun, write_inputs
from pipeline.trace import nearest_ids, render, trace
from pipeline.workdir import Workdir
from simulator.simulate import SimulationConfig, simulate

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "examples" / "simulated" / "config.yaml"
KEY_ENV, SECRET = "TEST_PII_KEY", "a secret of more than sixteen bytes"
PII = [
    f"privacy={{key_env: {KEY_ENV}}}",
    "columns.user_id.pii=true",
    "logs.streams.clicks.columns.user_id.pii=true",
    "logs.streams.conversions.columns.user_id.pii=true",
]
HOUR = 3_600_000


@dataclass(frozen=True)
class World:
    logs: Path
    plan: RunPlan
    built: BuiltExamples

    def trace(self, request_id: str) -> dict[str, Any]:
        return trace(StoredRun.open(self.plan.workdir, None, None), request_id)


def _store(plan: RunPlan, built: BuiltExamples) -> None:
    """Leaves what a run leaves, with made-up predictions."""
    folder = plan.workdir.run(plan.run_id)
    write_inputs(plan)
    rng = np.random.default_rng(0)
    parts = []
    for split in ("validation", "test"):
        frame = built.examples[split]
        columns = [frame[f"{c}__key"].alias(c) for c in plan.config.ranking.key_columns]
        columns += [frame[TIMESTAMP].alias("timestamp"), pl.Series("split", [split] * len(frame))]
        for output in plan.config.ranking.outputs:
            columns += [frame[k] for k in (output.label_key, output.mask_key, output.weight_key)]
            columns.append(pl.Series(f"{output.name}__prediction", rng.random(len(frame))))
        parts.append(pl.DataFrame(columns))
    (folder / "predictions").mkdir()
    pl.concat(parts).write_parquet(folder / "predictions" / "mmoe.parquet")
    pl.DataFrame(built.dead).write_parquet(folder / "dead_letters.parquet")
    summary = {"state": "succeeded", "champion": "mmoe", "window": {}}
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    logs = tmp_path_factory.mktemp("logs")
    rates = {"duplicate_rate": 0.05, "late_rate": 0.05, "orphan_rate": 0.05}
    simulate(SimulationConfig(days=5, impressions=4000, seed=7, malformed_rate=0.02, **rates), logs)
    config = load_config(CONFIG, [f"logs.root={logs}"])
    workdir = Workdir.open(tmp_path_factory.mktemp("work"), create=True)
    plan = make_plan(config, workdir, None)
    built = build_examples(plan.dataset, read_logs(plan.dataset))
    _store(plan, built)
    return World(logs, plan, built)


@pytest.fixture(scope="module")
def tracer(world: World) -> Tracer:
    return Tracer(world.plan.dataset, read_logs(world.plan.dataset))


def _requests(world: World, split: str, count: int) -> list[str]:
    ids = world.built.examples[split]["request_id__key"].unique().sort()
    return ids.gather_every(max(len(ids) // count, 1))[:count].to_list()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_features_and_labels_are_those_of_the_examples(world: World, split: str) -> None:
    ranking = world.plan.config.ranking
    examples = world.built.examples[split]
    for request_id in _requests(world, split, 3):
        found = world.trace(request_id)
        assert found["logs_unchanged"]
        own = examples.filter(pl.col("request_id__key") == request_id)
        inside = [c for c in found["candidates"] if c["split"] == split]
        assert len(inside) == len(own) > 0
        for candidate in inside:
            row = own.row(
                by_predicate=pl.col("item_id__key") == candidate["keys"]["item_id"], named=True
            )
            assert candidate["time"] == as_text(row[TIMESTAMP])
            for output in ranking.all_outputs:
                label = candidate["labels"][output.name]
                assert label["mask"] == row[output.mask_key]
                assert (label["label"] or 0.0) == row[output.label_key]
                assert (label["masked_because"] is None) == (label["mask"] == 1)
            for feature in ranking.training_features:
                told = candidate["features"][feature.name]["value"]
                value = row[feature.name]
                if isinstance(value, list):
                    assert told == [v for v in value if v != ""]
                else:
                    assert told == value or (told is None and value != value)
            assert candidate["labels_differ_from_stored"] == []


def test_predictions_and_score_are_the_stored_ones(world: World) -> None:
    ranking = world.plan.config.ranking
    path = world.plan.workdir.run(world.plan.run_id) / "predictions" / "mmoe.parquet"
    stored = pl.read_parquet(path)
    (request_id,) = _requests(world, "test", 1)
    for candidate in world.trace(request_id)["candidates"]:
        row = stored.row(
            by_predicate=(pl.col("request_id") == request_id)
            & (pl.col("item_id") == candidate["keys"]["item_id"]),
            named=True,
        )
        said = candidate["predictions"]["mmoe"]
        outputs = {o.name: row[f"{o.name}__prediction"] for o in ranking.outputs}
        assert {name: said[name] for name in outputs} == outputs
        expected = (
            outputs["click"] + 5 * outputs["conversion"] + 0.05 * np.log1p(outputs["watch_seconds"])
        )
        assert said["score"] == pytest.approx(expected)
    (in_train,) = _requests(world, "train", 1)
    assert all(c["predictions"] == {} for c in world.trace(in_train)["candidates"])


def test_as_of_features_tell_their_interval_and_count(world: World) -> None:
    (request_id,) = _requests(world, "test", 1)
    exposures = pl.DataFrame(read_logs(world.plan.dataset)["impressions"].table).unique(
        ["request_id", "item_id", TIMESTAMP]
    )
    for candidate in world.trace(request_id)["candidates"]:
        feature = candidate["features"]["item_exposures_24h"]
        assert (feature["origin"], feature["aggregate"]) == ("as_of", "count")
        assert feature["events"] == "impressions"
        assert feature["entity"] == {"item_id": candidate["keys"]["item_id"]}
        times = exposures.filter(pl.col("item_id") == candidate["keys"]["item_id"])[TIMESTAMP]
        texts = [as_text(t) for t in times]
        inside = [t for t in texts if feature["from"] <= t < feature["before"]]
        assert feature["num_events"] == feature["value"] == len(inside)
        recent = candidate["features"]["user_recent_items"]
        assert len(recent["value"]) == min(recent["num_events"], 10)
        rate = candidate["features"]["item_click_rate_24h"]
        clicks = candidate["features"]["item_clicks_24h"]["value"]
        assert rate["value"] == pytest.approx((clicks + 2.4) / (feature["value"] + 20))


def test_every_raw_event_is_told_with_its_fate(world: World, tracer: Tracer) -> None:
    """Statuses agree with the dead letters and duplicates; places are those of the files."""
    seen: dict[str, int] = {}
    dead = {(s, f, r): why for s, f, r, why, _ in pl.DataFrame(world.built.dead).iter_rows()}
    late = pl.DataFrame(world.built.dead).filter(pl.col("reason").is_in(["late", "orphan"]))
    wanted = {json.loads(raw)["request_id"] for raw in late["raw"][:40]}
    wanted |= set(_requests(world, "test", 20))
    for request_id in sorted(wanted)[:40]:
        found = tracer.trace(request_id)
        for row in [*found.rows, *found.events]:
            place = (row["stream"], row["file"], row["row"])
            seen[row["status"]] = seen.get(row["status"], 0) + 1
            if place in dead:
                assert row["status"] == dead[place]
            else:
                assert row["status"] in ("used", "joined", "joined_other_request", "duplicate")
            frame = pl.read_parquet(world.logs / row["file"])
            assert frame["request_id"][row["row"] - 1] == request_id
    assert {"used", "joined", "duplicate", "late"} <= set(seen), seen


def test_what_counts_for_a_column_is_its_window(world: World, tracer: Tracer) -> None:
    found = [
        (event, column, how)
        for request_id in _requests(world, "train", 15)
        for event in tracer.trace(request_id).events
        for column, how in event.get("columns", {}).items()
    ]
    assert {how for _, _, how in found} >= {"counted"}
    windows = {"clicked": HOUR, "converted": 48 * HOUR, "watch_seconds": 2 * HOUR,
               "scroll_depth": 2 * HOUR, "returned": 24 * HOUR}  # fmt: skip
    for event, column, how in found:
        inside = event["seconds_after_impression"] * 1000 < windows[column]
        assert (how == "counted") == inside


def test_immature_labels_say_so(world: World) -> None:
    frame = world.built.examples["train"]
    immature = frame.filter(pl.col("conversion__mask") == 0)["request_id__key"][-1]
    labels = [c["labels"]["conversion"] for c in world.trace(immature)["candidates"]]
    reasons = [label["masked_because"] for label in labels if label["mask"] == 0]
    assert reasons and all(reason.startswith("immature: final at") for reason in reasons)


def test_a_request_is_found_where_predictions_do_not_name_it(world: World, tmp_path: Path) -> None:
    overrides = [
        f"logs.root={world.logs}",
        "slate=null",
        "features={}",
        "columns.request_id={type: string, availability: request}",
    ]
    plan = make_plan(load_config(CONFIG, overrides), Workdir.open(tmp_path, create=True), None)
    assert "request_id" not in plan.config.ranking.key_columns
    _store(plan, build_examples(plan.dataset, read_logs(plan.dataset)))
    (request_id,) = _requests(world, "test", 1)
    found = trace(StoredRun.open(plan.workdir, None, None), request_id)
    inside = [c for c in found["candidates"] if c["split"] == "test"]
    assert inside and all("mmoe" in candidate["predictions"] for candidate in inside)


@pytest.mark.parametrize(
    ("task", "column", "expected"),
    [
        ("propensity: {column: chance}", "item_quality > 0", "its propensity chance is missing"),
        ("sample_weight: chance", "item_quality > 0", "its weight chance is missing or negative"),
        ("immature: fake_negative", "true", "shown before "),
    ],
)
def test_every_other_reason_is_told(world: World, task: str, column: str, expected: str) -> None:
    config = load_config(
        CONFIG,
        [
            f"logs.root={world.logs}",
            "columns.chance={type: float, availability: request, role: weight, "
            f"expression: 'CASE WHEN {column} THEN 0.5 END'}}",
            "tasks.conversion={kind: binary, target: converted, gates: {auc: {min: 0.5}}, "
            f"{task}}}",
        ],
    )
    dataset = make_plan(config, world.plan.workdir, None).dataset
    tracer = Tracer(dataset, read_logs(dataset))
    masked = {
        label["masked_because"]
        for request_id in _requests(world, "train", 60)
        for candidate in tracer.trace(request_id).candidates
        for label in candidate["labels"].values()
        if label["mask"] == 0
    }
    assert any(reason.startswith(expected) for reason in masked)
    assert not any("is no value that" in reason for reason in masked)


def test_the_command_prints_tables_and_json(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    (request_id,) = _requests(world, "test", 1)
    command = ["trace", "--workdir", str(world.plan.workdir.root), "--request-id", request_id]
    assert tfx_pipeline.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == world.trace(request_id)
    assert set(found) == {
        "schema_version", "run_id", "state", "champion", "request", "window", "logs_unchanged",
        "impressions", "events", "candidates",
    }  # fmt: skip
    operations = (ROOT / "docs" / "operations.md").read_text()
    for key in {*found, *found["candidates"][0], *found["impressions"][0]}:
        assert key in operations, key
    assert tfx_pipeline.main(command) == 0
    text = capsys.readouterr().out
    assert text.strip() == render(found).strip()
    for part in (request_id, "item_exposures_24h", "impressions of item_id", "score", "mmoe"):
        assert part in text


def test_what_cannot_be_traced_is_told(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (request_id,) = _requests(world, "test", 1)
    command = ["trace", "--workdir", str(world.plan.workdir.root), "--request-id"]
    wrong = request_id[:-1] + ("0" if request_id[-1] != "0" else "1")
    assert tfx_pipeline.main([*command, wrong]) == 2
    error = capsys.readouterr().err
    assert f"has request_id '{wrong}'" in error and f"nearest: {request_id}" in error
    assert tfx_pipeline.main([*command, request_id, "--run", "nothing"]) == 2
    assert f"unknown run 'nothing'; allowed: {world.plan.run_id}" in capsys.readouterr().err
    moved = tmp_path / "moved"
    assert tfx_pipeline.main([*command, request_id, "--logs", str(moved)]) == 2
    assert "no longer at" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="can be explained"):
        StoredRun.open(Workdir.open(tmp_path), None, None)


def test_changed_logs_are_reported(world: World, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "logs"
    shutil.copytree(world.logs, copy)
    (request_id,) = _requests(world, "test", 1)
    same = trace(StoredRun.open(world.plan.workdir, None, copy), request_id)
    assert same == world.trace(request_id)
    for file in (copy / "clicks").glob("*/*.parquet"):
        pl.read_parquet(file).head(0).write_parquet(file)
    changed = trace(StoredRun.open(world.plan.workdir, None, copy), request_id)
    assert not changed["logs_unchanged"]
    assert "not those of the run" in render(changed)
    assert not [e for e in changed["events"] if e["stream"] == "clicks"]


def test_hidden_and_erased_people_stay_so(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, SECRET)
    (request_id, other) = _requests(world, "test", 2)
    raw = pl.read_parquet(world.logs / "impressions" / "*" / "*.parquet")
    person, erased = (
        raw.filter(pl.col("request_id") == each)["user_id"][0] for each in (request_id, other)
    )
    assert person != erased
    listed = tmp_path / "erase.txt"
    listed.write_text(erased)
    config = load_config(CONFIG, [f"logs.root={world.logs}", *PII])
    plan = make_plan(config, Workdir.open(tmp_path / "work", create=True), None, listed)
    built = build_examples(plan.dataset, read_logs(plan.dataset))
    _store(plan, built)
    listed.unlink()
    found = trace(StoredRun.open(plan.workdir, None, None), request_id)
    hashed = PiiKey(SECRET.encode(), 32).hash(person)
    assert found["candidates"][0]["keys"]["user_id"] == hashed
    assert found["candidates"][0]["labels_differ_from_stored"] == []
    assert f'"{person}"' not in json.dumps(found) and hashed in json.dumps(found)
    with pytest.raises(DataError, match="no row of run"):
        trace(StoredRun.open(plan.workdir, None, None), other)
    monkeypatch.delenv(KEY_ENV)
    with pytest.raises(ConfigError, match="is not set"):
        trace(StoredRun.open(plan.workdir, None, None), request_id)


def test_the_nearest_ids_are_named() -> None:
    ids = ["r1234", "r1299", "q9999", "r5555"]
    assert nearest_ids("r1235", ids)[0] == "r1234"
    assert len(nearest_ids("zzz", ids)) == 3


@pytest.mark.slow
def test_a_score_outside_the_graph_equals_the_graphs() -> None:
    import tensorflow as tf

    from models.fusion import fused_score
    from models.spec.ranking import Score

    ranking = load_config(CONFIG).ranking
    outputs = {"click": 0.3, "conversion": 0.0, "conversion_given_click": 0.1,
               "watch_seconds": 40.0}  # fmt: skip
    scores = [
        ranking.score,
        Score(kind="product", weights={"click": 2.0, "watch_seconds": 0.5}),
        Score(kind="product", weights={"click": 1.0, "conversion": -0.5}),
        Score(),
    ]
    for score in scores:
        own = ranking.model_copy(update={"score": score})
        own.__dict__.pop("score_weights", None)
        tensors = {name: tf.constant([value]) for name, value in outputs.items()}
        graph = float(fused_score(own, tensors)[0])
        assert fused(own, outputs) == pytest.approx(graph, rel=1e-5)
