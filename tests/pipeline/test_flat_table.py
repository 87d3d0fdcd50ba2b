"""A flat table by YAML alone, and leaks planted in it that must be refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from components.log_example_gen import as_of, executor
from components.log_example_gen.spec import DatasetSpec
from components.log_example_gen.time_index import TimeIndex
from pipeline.load import load_config
from pipeline.run import run
from pipeline.workdir import Workdir
from simulator.simulate import SimulationConfig, simulate

CONFIG = Path(__file__).with_name("flat_table.yaml")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV made from simulated logs, `leaky` and `noisy` columns of the future included."""
    logs = tmp_path_factory.mktemp("logs")
    simulate(SimulationConfig(impressions=12_000, seed=5, malformed_rate=0.0), logs)
    folder = tmp_path_factory.mktemp("flat")
    rng = np.random.default_rng(0)
    duckdb.sql(f"""
        CREATE OR REPLACE TEMP TABLE flat AS
        SELECT DISTINCT i.request_id AS "Req#", i.user_id AS "person.id", i.item_id AS "THING",
          i.timestamp AS "When (ms)", i.user_segment AS seg, i.item_category AS cat,
          i.item_quality AS q, t.clicked::INT AS "did click?", t.converted::INT AS "$$",
          coalesce(t.watch_seconds, 0) AS "stay/s",
          coalesce((SELECT max(depth) FROM '{logs}/scroll/*/*.parquet' s
                    WHERE s.request_id = i.request_id AND s.item_id = i.item_id), 0) AS "scroll %",
          (SELECT count(DISTINCT timestamp) FROM '{logs}/returns/*/*.parquet' r
           WHERE r.request_id = i.request_id) AS "ret-24"
        FROM '{logs}/impressions/*/*.parquet' i
        JOIN '{logs}/_truth/truth.parquet' t USING (request_id, item_id)
    """)
    frame = duckdb.sql('SELECT * FROM flat ORDER BY "When (ms)", "Req#", "THING"').df()
    frame["engagement"] = frame["stay/s"]
    frame["renamed"] = frame["did click?"] + rng.normal(0.0, 0.2, len(frame))
    frame.to_csv(folder / "table.csv", index=False)
    return folder


def _run(table: Path, workdir: Path, *overrides: str) -> tuple[dict[str, Any], Workdir]:
    opened = Workdir.open(workdir, create=True)
    config = load_config(CONFIG, [f"logs.root={table}", *overrides])
    summary, _ = run(config, opened)
    return summary, opened


# Lags keep the last request's own exposures out of the snapshot that is taken right after it.
_LOOKED_UP = """features={
  item_shown: {as_of: {events: impressions, entity: item, aggregate: count, availability_lag: 1m}},
  item_clicks: {as_of: {events: impressions, where: clicked, entity: item, aggregate: count,
                        availability_lag: 1m}},
  item_rate: {rate: {numerator: item_clicks, denominator: item_shown, prior_rate: 0.1,
                     prior_strength: 5}},
  item_rate_rank: {slate: {of: item_rate, relation: rank}},
  item_age: {as_of: {events: impressions, entity: item, aggregate: age, availability_lag: 1m}},
  item_quality: {as_of: {events: impressions, entity: item, aggregate: mean, value: depth,
                         window: 3d, availability_lag: 1m}},
  person_idle: {as_of: {events: impressions, entity: person, aggregate: recency,
                        availability_lag: 1m}},
  person_items: {as_of: {events: impressions, where: clicked, entity: person, length: 5,
                         aggregate: last_values, value: item, availability_lag: 1m},
                 encoding: {kind: shared, feature: item}},
  person_category: {as_of: {events: impressions, entity: [person, category], aggregate: sum,
                            value: depth, availability_lag: 1m}},
  quality_rank: {slate: {of: quality, relation: rank}},
}"""
_FINAL_AT_ONCE = [
    f"columns.{name}.known_after=0s"
    for name in ("clicked", "bought", "stayed_seconds", "depth", "num_returns")
]
_ANY_MODEL = "tasks.click.gates={auc: {min: 0.3}}"
_LAST_REQUESTS = 6
_LAGS = "evaluation.lags=[1m, 2d]"


@pytest.fixture(scope="module")
def pushed(
    table: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Workdir, pd.DataFrame]:
    """A run whose last test rows lie at the time of its snapshot, and these rows as logged."""
    frame = pd.read_csv(table / "table.csv", dtype={"THING": str, "person.id": str})
    slates = frame[frame["Req#"].isin(frame["Req#"].unique()[100 : 100 + _LAST_REQUESTS])].copy()
    slates["When (ms)"] = frame["When (ms)"].max() + 7_200_000
    slates["Req#"] = "last-" + slates["Req#"]
    slates.iloc[0, slates.columns.get_loc("THING")] = "never-shown"
    nobody = slates["Req#"] == slates["Req#"].unique()[1]
    slates.loc[nobody, "person.id"] = "never-seen"
    folder = tmp_path_factory.mktemp("last")
    pd.concat([frame, slates]).to_csv(folder / "table.csv", index=False)
    work = tmp_path_factory.mktemp("pushed")
    summary, workdir = _run(folder, work, _LOOKED_UP, _ANY_MODEL, _LAGS, *_FINAL_AT_ONCE)
    assert summary["state"] == "succeeded", summary["error"]
    return summary, workdir, slates


@pytest.fixture(scope="module")
def target(pushed: tuple[dict[str, Any], Workdir, pd.DataFrame]) -> Iterator[str]:
    from serving.client import RankingClient
    from serving.server.options import ServerOptions
    from serving.server.server import EmbeddedServer

    _, workdir, _ = pushed
    with EmbeddedServer(ServerOptions(models={"flat": workdir.serving / "flat"})) as server:
        with RankingClient(server.target, "flat") as client:
            client.wait_until_available(timeout_seconds=60)
        yield server.target


def test_from_a_flat_table_to_a_served_model(
    pushed: tuple[dict[str, Any], Workdir, pd.DataFrame], target: str
) -> None:
    from pipeline.ranking_request import rank_file

    summary, workdir, _ = pushed
    outputs = {"click", "purchase", "purchase_given_click", "stay", "returns"}
    assert set(summary["candidates"]["shared_bottom"]["metrics"]) == outputs
    request = workdir.run(summary["run_id"]) / "request.json"
    answer = rank_file(target, "flat", request, top_k=3, timeout_seconds=10)
    assert all(name in answer for name in outputs)


def _raw_request(slate: pd.DataFrame, path: Path) -> Path:
    """What a service holds when it asks: columns of the log, and no feature computed from it."""
    slate = slate.astype(object).where(slate.notna(), None)
    first = slate.iloc[0]
    candidates = [
        {"item": row["THING"], "category": row["cat"], "quality": row["q"]}
        for _, row in slate.iterrows()
    ]
    context = {"person": first["person.id"], "segment": first["seg"]}
    content = {"id": "item", "context": context, "candidates": candidates}
    path.write_text(json.dumps(content))
    return path


def _rank(target: str, request: Path, features: Path, *more: str) -> None:
    """Ranks as a user does."""
    from pipeline.cli import parser

    arguments = ["rank", "--target", target, "--model", "flat", "--request", str(request)]
    options = parser().parse_args([*arguments, "--snapshot", str(features), *more])
    assert options.command(options) == 0


def test_raw_requests_and_the_snapshot_give_the_stored_predictions(
    pushed: tuple[dict[str, Any], Workdir, pd.DataFrame],
    target: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Training, evaluation and serving see the same features, through the command line."""
    summary, workdir, slates = pushed
    folder = workdir.run(summary["run_id"])
    stored = pq.read_table(folder / "predictions" / "shared_bottom.parquet").to_pandas()
    stored = stored[stored["split"] == "test"].set_index(["request", "item"])
    at = datetime.fromtimestamp(slates["When (ms)"].iloc[0] / 1000, tz=timezone.utc).isoformat()
    names = ["click", "purchase", "purchase_given_click", "returns", "stay"]
    compared = 0
    for request, slate in slates.groupby("Req#"):
        path = _raw_request(slate, tmp_path / "request.json")
        _rank(target, path, folder / "features", "--at", at, "--max-feature-age", "1h")
        printed = capsys.readouterr().out
        rows = [line.split("\u2502")[1:-1] for line in printed.splitlines() if "\u2502" in line]
        assert len(rows) == len(slate)
        for _, item, _, *scores in rows:
            expected = stored.loc[(request, item.strip())]
            for name, score in zip(names, scores, strict=True):
                # The table shows six digits.
                wanted = expected[f"{name}__prediction"]
                assert float(score) == pytest.approx(wanted, rel=1e-5, abs=1e-9), (item, name)
            compared += 1
        assert "8 features as of" in printed
    assert compared == len(slates) > 2 * _LAST_REQUESTS

    strangers = slate.assign(THING="a" + slate["THING"])
    path = _raw_request(strangers, tmp_path / "strangers.json")
    _rank(target, path, folder / "features", "--at", at)
    assert f"{len(slate)} without events by item" in capsys.readouterr().out


def test_a_snapshot_that_is_too_old_is_refused(
    pushed: tuple[dict[str, Any], Workdir, pd.DataFrame], target: str, tmp_path: Path
) -> None:
    from serving.snapshot_features import StaleSnapshotError

    summary, workdir, slates = pushed
    path = _raw_request(slates[slates["Req#"] == slates["Req#"].iloc[0]], tmp_path / "r.json")
    with pytest.raises(StaleSnapshotError, match="at most 129600 s"):
        features = workdir.run(summary["run_id"]) / "features"
        _rank(target, path, features, "--max-feature-age", "36h")


def test_a_snapshot_whose_features_mean_something_else_is_refused(
    pushed: tuple[dict[str, Any], Workdir, pd.DataFrame],
    target: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from serving import snapshot
    from serving.snapshot_features import OtherDefinitionError

    def other(mapped: Any, file: Path, read: Any = snapshot._header) -> Any:
        header = read(mapped, file)
        named = {f["name"]: f for entities in header["entities"] for f in entities["features"]}
        named["item_age"]["definition"] = "another"
        return header

    summary, workdir, slates = pushed
    path = _raw_request(slates[slates["Req#"] == slates["Req#"].iloc[0]], tmp_path / "r.json")
    monkeypatch.setattr(snapshot, "_header", other)
    with pytest.raises(OtherDefinitionError, match=r"'item_age'.*received definition another"):
        _rank(target, path, workdir.run(summary["run_id"]) / "features")


def test_quality_against_lag_is_measured_and_shown(
    pushed: tuple[dict[str, Any], Workdir, pd.DataFrame],
) -> None:
    summary, workdir, _ = pushed
    (path,) = workdir.artifacts.glob("LagStudy/report/*/lags.json")
    found = json.loads(path.read_text())
    assert found["champion"] == "shared_bottom"
    declared, as_declared, late = (
        found["declared"], *(each["metrics"] for each in found["lags"]),
    )  # fmt: skip
    # 1m is the declared lag of every feature: the same rows come out of another ingestion.
    assert as_declared == declared
    assert [each["lag_ms"] for each in found["lags"]] == [60_000, 172_800_000]
    assert late["click"]["auc"] != declared["click"]["auc"]
    reported = summary["candidates"]["shared_bottom"]["metrics"]["click"]["auc"]["value"]
    assert declared["click"]["auc"] == pytest.approx(reported, rel=1e-5)
    page = workdir.report(summary["run_id"]).read_text()
    assert "Quality of shared_bottom against lag" in page and ">2d<" in page


def _inclusive_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plants `<=` where as-of features need `<`."""

    class Inclusive(TimeIndex):
        def before(self, codes: Any, bounds: Any) -> Any:
            return super().before(codes, bounds + 1)

    monkeypatch.setattr(as_of, "TimeIndex", Inclusive)


def _late_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plants train labels that know everything up to the cut-off of the run."""
    real = executor.add_example_graph

    def leaking(pipeline: Any, spec: DatasetSpec, *rest: Any) -> Any:
        window = spec.window.model_copy(update={"train_cutoff": spec.window.cutoff})
        return real(pipeline, spec.model_copy(update={"window": window}), *rest)

    monkeypatch.setattr(executor, "add_example_graph", leaking)


def _nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plants nothing in the code: the leak is in the configuration."""


_FEATURE = "{{type: float, availability: request, role: feature, source: {}}}"


@pytest.mark.parametrize(
    ("plant", "overrides", "named"),
    [
        (_nothing, ["columns.engagement=" + _FEATURE.format("engagement")], "engagement"),
        (_nothing, ["columns.mood=" + _FEATURE.format("renamed")], "mood"),
        (_inclusive_before, [], "item_shown"),
        (_late_labels, [], "click"),
    ],
    ids=["future declared request", "renamed label plus noise", "as-of with <=", "late labels"],
)
def test_a_planted_leak_is_refused(
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
    overrides: list[str],
    named: str,
) -> None:
    plant(monkeypatch)
    summary, workdir = _run(table, tmp_path / "work", *overrides)
    assert (summary["state"], summary["exit_code"]) == ("refused", 3)
    assert named in summary["error"]
    assert summary["pushed"] is None
    assert not workdir.serving.exists()
    states = {c["name"]: c["state"] for c in summary["components"]}
    assert states["DataLeakageGate"] == "complete"
    assert states["Transform"] == "not_run"
    page = workdir.report(summary["run_id"]).read_text()
    assert named in page


def test_a_model_that_answers_differently_when_served_is_refused(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.scorer import executor as scorer

    real = scorer._table

    def skewed(columns: dict[str, Any], *rest: Any) -> Any:
        columns["click__prediction"] = columns["click__prediction"] * np.float32(1.0001)
        return real(columns, *rest)

    monkeypatch.setattr(scorer, "_table", skewed)
    summary, workdir = _run(table, tmp_path / "work")
    assert summary["state"] == "refused"
    assert "click: " in summary["error"] and "served values differ" in summary["error"]
    assert summary["pushed"] is None and not workdir.serving.exists()


def test_a_node_that_fails_makes_the_run_failed_and_a_retry_goes_on(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.training_loop import TrainingLoop

    def broken(loop: TrainingLoop) -> None:
        raise RuntimeError("out of ideas")

    with monkeypatch.context() as planted:
        planted.setattr(TrainingLoop, "run", broken)
        summary, workdir = _run(table, tmp_path / "work")
    assert summary["state"] == "failed"
    assert "Trainer.shared_bottom" in summary["error"] and "out of ideas" in summary["error"]
    assert workdir.report(summary["run_id"]).exists()
    states = {c["name"]: c["state"] for c in summary["components"]}
    assert states["Trainer.shared_bottom"] == "failed"
    assert states["Champion"] == "not_run"
    again, _ = _run(table, tmp_path / "work")
    assert again["run_id"] == summary["run_id"]
    assert again["state"] == "succeeded", again["error"]
    assert again["pushed"]["version"] == 1


def test_a_fault_of_the_data_inside_a_run_exits_2(table: Path, tmp_path: Path) -> None:
    lines = (table / "table.csv").read_text().splitlines()
    quality = lines[0].split(",").index("q")
    rows = [line.split(",") for line in lines[1:]]
    words = [",".join([*row[:quality], "good", *row[quality + 1 :]]) for row in rows]
    (tmp_path / "table.csv").write_text("\n".join([lines[0], *words]))
    summary, workdir = _run(tmp_path, tmp_path / "work")
    assert (summary["state"], summary["exit_code"]) == ("failed", 2)
    assert f"values that do not fit their column: {len(rows)} quality" in summary["error"]
    # What became of every row is told although the component gave up.
    told = {"read": len(rows), "used": 0, "duplicates": 0, "dead": {"malformed": len(rows)}}
    assert summary["rows"] == {"impressions": told}
    assert summary["examples"]["exploded"] == len(rows)
    assert workdir.read_summary(summary["run_id"]) == summary
    assert "fit their column" in workdir.report(summary["run_id"]).read_text()
