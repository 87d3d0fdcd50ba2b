"""The gates before training, on examples built from raw logs: each leak planted and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from tfx.types import artifact_utils, channel_utils, standard_artifacts

from components.artifacts import Blessing, LogAccounts
from components.data_gate.component import DataGate
from components.data_gate.executor import Executor as DataGateExecutor
from components.data_gate.limits import Limits
from components.leakage_gate.component import DataLeakageGate, model_leakage_gate_class
from components.leakage_gate.data_executor import Executor as DataLeakageExecutor
from components.leakage_gate.example_gate import judge_examples
from components.leakage_gate.model_executor import Executor as ModelLeakageExecutor
from components.log_example_gen.build import BuiltExamples, build_examples, read_logs
from components.log_example_gen.example_files import write_examples as write_split
from components.log_example_gen.spec import DatasetSpec
from components.verdict import Verdict, read_verdict
from models.schema import training_schema

LIMITS = Limits(
    max_dead_rate=0.2,
    max_drift=0.3,
    max_new_category=0.01,
    max_unit_ratio=10.0,
    max_join_drop=0.1,
    max_clock_drift=0.1,
    max_volume_drop=0.5,
    waived={},
    max_single_feature_auc=0.95,
    max_skew=0.1,
    audit_rows=200,
    min_rows=20,
    min_positives=2,
)
HOUR = 3_600_000
START = 1_700_000_000_000
SPEC: dict[str, Any] = {
    "root": "",
    "logs": {
        "root": "",
        "impressions": {"path": ["impressions.parquet"], "key": ["request", "item"]},
        "streams": {
            "clicks": {
                "path": ["clicks.parquet"],
                "on": ["request", "item"],
                "columns": {c: {"type": "string"} for c in ("request", "item", "user")},
            },
            "dwell": {
                "path": ["dwell.parquet"],
                "on": ["request", "item"],
                "columns": {
                    "request": {"type": "string"},
                    "item": {"type": "string"},
                    "seconds": {"type": "float"},
                },
            },
            "returns": {
                "path": ["returns.parquet"],
                "on": ["request"],
                "columns": {"request": {"type": "string"}, "depth": {"type": "int"}},
            },
            "history": {
                "path": ["history.parquet"],
                "columns": {"user": {"type": "string"}, "topic": {"type": "int"}},
            },
        },
    },
    "splits": {"validation": "12h", "test": "12h"},
    "ranking": {
        "slate": "request",
        "user": "user",
        "item": "item",
        "columns": {
            "request": {"type": "string", "availability": "request", "role": "group"},
            "user": {"type": "string", "availability": "request", "role": "feature"},
            "item": {"type": "string", "availability": "request", "role": ["key", "feature"]},
            "category": {"type": "int", "availability": "request", "role": "feature"},
            "price": {"type": "float", "availability": "request", "role": "feature"},
            "is_cheap": {"type": "bool", "availability": "request", "expression": "price < 10",
                         "role": "feature"},
            "engagement": {"type": "float", "availability": "request", "role": "feature"},
            "clicked": {"type": "bool", "availability": "future", "role": ["target", "mask"],
                        "join": {"stream": "clicks", "aggregate": "any", "window": "1h"}},
            "watched": {"type": "float", "availability": "future", "role": "target",
                        "join": {"stream": "dwell", "aggregate": "sum", "value": "seconds",
                                 "window": "2h"}},
            "long_view": {"type": "bool", "availability": "future", "role": "target",
                          "expression": "watched > 30"},
            "first_seconds": {"type": "float", "availability": "future",
                              "role": "auxiliary_target",
                              "join": {"stream": "dwell", "aggregate": "first",
                                       "value": "seconds", "window": "1h"}},
            "return_depth": {"type": "float", "availability": "future",
                             "role": "auxiliary_target",
                             "join": {"stream": "returns", "aggregate": "max", "value": "depth",
                                      "window": "10h"}},
            "num_returns": {"type": "int", "availability": "future", "role": "auxiliary_target",
                            "join": {"stream": "returns", "aggregate": "count",
                                     "window": "10h"}},
        },
        "features": {
            "item_clicks": {"as_of": {"events": "clicks", "entity": "item", "aggregate": "count",
                                      "window": "6h", "availability_lag": "2s"}},
            "item_shown": {"as_of": {"events": "impressions", "entity": "item",
                                     "aggregate": "count", "window": "6h",
                                     "availability_lag": "2s"}},
            "item_click_rate": {"rate": {"numerator": "item_clicks", "denominator": "item_shown",
                                         "prior_rate": 0.1, "prior_strength": 5.0}},
            "item_age": {"as_of": {"events": "impressions", "entity": "item",
                                   "aggregate": "age", "availability_lag": "2s"}},
            "user_recency": {"as_of": {"events": "clicks", "entity": "user",
                                       "aggregate": "recency", "availability_lag": "2s"}},
            "user_seconds": {"as_of": {"events": "dwell", "entity": "user", "aggregate": "sum",
                                       "value": "seconds", "availability_lag": "2s"}},
            "pair_seconds": {"as_of": {"events": "dwell", "entity": ["user", "category"],
                                       "aggregate": "mean", "value": "seconds",
                                       "where": "seconds > 5", "availability_lag": "2s"}},
            "user_returns": {"as_of": {"events": "returns", "entity": "user",
                                       "aggregate": "count", "availability_lag": "2s"}},
            "user_clicked": {"as_of": {"events": "impressions", "entity": "user",
                                       "aggregate": "count", "where": "clicked and price > 5",
                                       "window": "20h", "availability_lag": "2s"}},
            "user_topics": {"as_of": {"events": "history", "entity": "user",
                                      "aggregate": "last_values", "value": "topic", "length": 4,
                                      "availability_lag": "2s"}},
            "rate_rank": {"slate": {"of": "item_click_rate", "relation": "rank"}},
            "price_share": {"slate": {"of": "price", "relation": "share"}},
            "clicks_to_max": {"slate": {"of": "item_clicks", "relation": "ratio_to_max"}},
            "rated_candidates": {"slate": {"of": "item_clicks", "relation": "count"}},
        },
        "tasks": {
            "click": {"kind": "binary", "target": "clicked"},
            "long_view": {"kind": "binary", "target": "long_view", "conditioned_on": "click"},
            "watch": {"kind": "duration", "target": "watched", "mask": "clicked"},
            "first_watch": {"kind": "duration", "target": "first_seconds", "role": "auxiliary"},
            "depth": {"kind": "regression", "target": "return_depth", "role": "auxiliary"},
            "returns": {"kind": "count", "target": "num_returns", "role": "auxiliary"},
        },
    },
    "window": {
        "train_start": START + 6 * HOUR,
        "validation_start": START + 36 * HOUR,
        "test_start": START + 48 * HOUR,
        "test_end": START + 60 * HOUR,
        "train_cutoff": START + 36 * HOUR,
        "cutoff": START + 64 * HOUR,
    },
    "slice_columns": [],
    "num_shards": 1,
}  # fmt: skip
for _task in SPEC["ranking"]["tasks"].values():
    if _task.get("role") != "auxiliary":
        metric = "auc" if _task["kind"] == "binary" else "spearman"
        _task["gates"] = {metric: {"min": 0.1}}


def _spec(root: Path, edit: Callable[[dict[str, Any]], object] = lambda spec: None) -> DatasetSpec:
    """Returns the dataset with its logs under a folder, after an edit of its JSON form."""
    content = json.loads(json.dumps(SPEC))
    content["root"] = content["logs"]["root"] = str(root)
    edit(content)
    return DatasetSpec.model_validate_json(json.dumps(content))


def write_logs(root: Path, seed: int, num_slates: int = 500) -> None:
    """Writes small logs in which nearly everything that can tie does.

    Times fall on the first seconds of some busy hours, so that events share their millisecond with
    impressions, window edges and each other; rows are duplicated or in conflict, keys missing,
    events orphaned or late.
    """
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    busy = START + rng.choice(64, 24, replace=False) * HOUR

    def times(count: int) -> np.ndarray:
        return rng.choice(busy, count) + rng.integers(0, 5, count) * 1000

    rows = []
    for slate, time in enumerate(times(num_slates)):
        user = f"u{rng.integers(0, 12)}"
        # New items appear all the time: an age is decided by an item's first impression.
        newest = 12 + (int(time) - START) // HOUR
        for item in newest - rng.choice(12, rng.integers(1, 6), replace=False):
            rows.append((int(time), f"r{slate}", user, f"i{item}", int(item) % 7))
    shown = pl.DataFrame(
        rows, schema=["timestamp", "request", "user", "item", "category"], orient="row"
    )
    num_rows = len(shown)
    chance = rng.random(num_rows)
    shown = shown.with_columns(
        pl.Series("price", np.where(chance < 0.1, np.nan, rng.integers(1, 20, num_rows))),
    )
    clicked = shown.filter(pl.Series(rng.random(num_rows) < 0.3))
    delay = rng.choice([0, 1000, 2000, HOUR - 1, HOUR, 3 * HOUR], len(clicked))
    clicks = clicked.select(
        (pl.col("timestamp") + pl.Series(delay)).alias("timestamp"), "request", "item", "user"
    )
    beats = pl.concat([clicked] * 3)
    beats = beats.select(
        (
            pl.col("timestamp")
            + pl.Series(rng.choice([0, 1000, 5000, 2 * HOUR - 1, 2 * HOUR], len(beats)))
        ).alias("timestamp"),
        "request",
        "item",
        pl.Series("seconds", np.round(rng.exponential(12, len(beats)), 1)),
    )
    slates = shown.unique("request", maintain_order=True).filter(
        pl.Series(rng.random(num_slates) < 0.5)
    )
    returns = slates.select(
        (pl.col("timestamp") + pl.Series(rng.integers(0, 12, len(slates)) * HOUR)).alias(
            "timestamp"
        ),
        "request",
        pl.Series("depth", rng.integers(1, 9, len(slates))),
    )
    history = pl.DataFrame(
        {
            "timestamp": times(400),
            "user": [f"u{u}" for u in rng.integers(0, 12, 400)],
            "topic": rng.integers(0, 5, 400),
        }
    )
    orphans = clicks.head(5).with_columns(pl.lit("nowhere").alias("request"))
    honest = {
        "impressions": shown.with_columns(pl.Series("engagement", rng.random(num_rows))),
        "clicks": pl.concat([clicks, orphans]),
        "dwell": beats,
        "returns": returns,
        "history": history,
    }
    conflicts = honest["impressions"].sample(fraction=0.03, seed=seed + 1)
    conflicts = conflicts.with_columns(
        pl.col("price") - 1, pl.col("timestamp") + pl.Series(rng.integers(-1, 2, len(conflicts)))
    )
    no_item = honest["impressions"].head(3).with_columns(pl.lit(None, pl.String).alias("item"))
    honest["impressions"] = pl.concat([honest["impressions"], conflicts, no_item])
    for name, frame in honest.items():
        copies = frame.sample(fraction=0.05, seed=seed)
        pl.concat([frame, copies]).sample(fraction=1.0, shuffle=True, seed=seed).write_parquet(
            root / f"{name}.parquet"
        )


def write_examples(built: BuiltExamples, directory: Path) -> str:
    """Writes examples as the ingestion does."""
    for split, frame in built.examples.items():
        for part in range(2):
            write_split(str(directory), split, part, 2, frame[part::2])
    return str(directory)


@dataclass(frozen=True)
class Site:
    """Logs, what they mean, and where examples go."""

    logs: Path
    examples: Path

    def build(self, edit: Callable[[dict[str, Any]], object] = lambda spec: None) -> BuiltExamples:
        """Builds examples, with a leak where the edit plants one."""
        spec = _spec(self.logs, edit)
        return build_examples(spec, read_logs(spec))

    def judge(self, built: BuiltExamples, limits: Limits = LIMITS) -> Verdict:
        """Judges examples by the honest specification."""
        return self.judge_as(_spec(self.logs), built, limits)

    def judge_as(self, spec: DatasetSpec, built: BuiltExamples, limits: Limits = LIMITS) -> Verdict:
        """Judges examples by a specification."""
        uri = write_examples(built, self.examples)
        return judge_examples(spec, limits, built.accounts, uri)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs that tests share and do not change."""
    root = tmp_path_factory.mktemp("logs")
    write_logs(root, seed=0)
    return root


@pytest.fixture
def site(logs: Path, tmp_path: Path) -> Site:
    """The shared logs with a place for examples."""
    return Site(logs, tmp_path / "examples")


def _columns_named(verdict: Verdict) -> set[str]:
    """Returns the features and outputs that the reasons name."""
    names = set()
    for reason in verdict.reasons:
        if reason.startswith("column "):
            names.add(reason.removeprefix("column ").split(":")[0])
        elif " output " in reason:
            names.add(reason.split(" output ")[1].split(":")[0])
    return names


# The audit lock ----------------------------------------------------------------------------------


def test_clean_examples_pass(site: Site) -> None:
    verdict = site.judge(site.build())
    assert verdict.passed, verdict.reasons
    ranking = _spec(site.logs).ranking
    compared = {*ranking.features, *(o.name for o in ranking.all_outputs)}
    assert set(verdict.details["audited"]) == compared
    assert verdict.details["audited_rows"] >= 150
    assert set(verdict.details["audited_by_split"]) == {"train", "validation", "test"}


@pytest.mark.parametrize("seed", range(1, 5))
def test_every_clean_example_agrees_with_the_raw_logs(tmp_path: Path, seed: int) -> None:
    """Two independent implementations, all rows: any disagreement is a defect of one of them."""
    write_logs(tmp_path / "logs", seed, num_slates=250)
    site = Site(tmp_path / "logs", tmp_path / "examples")
    built = site.build()
    verdict = site.judge(built, LIMITS.model_copy(update={"audit_rows": 10_000}))
    assert verdict.passed, verdict.reasons
    assert verdict.details["audited_rows"] == sum(map(len, built.examples.values()))


AS_OF = sorted(n for n, f in SPEC["ranking"]["features"].items() if "as_of" in f)


@pytest.mark.parametrize("feature", AS_OF)
def test_an_event_at_the_very_time_is_not_before_it(site: Site, feature: str) -> None:
    """Planted: `<=` for `<`, which is a lag of one millisecond less."""

    def leak(spec: dict[str, Any]) -> None:
        spec["ranking"]["features"][feature]["as_of"]["availability_lag"] = 1999

    verdict = site.judge(site.build(leak))
    assert feature in _columns_named(verdict)
    reason = next(r for r in verdict.reasons if r.startswith(f"column {feature}:"))
    for part in ("audited rows, limit 0", "the impression request=r", "item=i", "remedy"):
        assert part in reason
    own = SPEC["ranking"]["features"]
    depends = {"item_click_rate", "rate_rank", "clicks_to_max"}
    assert _columns_named(verdict) - {feature} <= depends & set(own)


def test_an_as_of_feature_that_sees_the_present_is_refused(site: Site) -> None:
    def leak(spec: dict[str, Any]) -> None:
        spec["ranking"]["features"]["item_clicks"]["as_of"]["availability_lag"] = 0

    assert "item_clicks" in _columns_named(site.judge(site.build(leak)))


def test_train_labels_from_after_the_cutoff_are_refused(site: Site) -> None:
    def leak(spec: dict[str, Any]) -> None:
        spec["window"]["train_cutoff"] = spec["window"]["cutoff"]

    verdict = site.judge(site.build(leak))
    assert not verdict.passed
    assert "returns" in _columns_named(verdict)
    reason = next(r for r in verdict.reasons if "output returns:" in r)
    assert reason.startswith("task returns, output returns: differs from the raw logs in ")
    assert "before the cut-off of its split" in reason


def test_labels_of_a_wider_attribution_window_are_refused(site: Site) -> None:
    def leak(spec: dict[str, Any]) -> None:
        spec["ranking"]["columns"]["clicked"]["join"]["window"] = "4h"

    assert "click" in _columns_named(site.judge(site.build(leak)))


def _changed(built: BuiltExamples, split: str, change: pl.Expr) -> BuiltExamples:
    examples = dict(built.examples)
    examples[split] = examples[split].with_columns(change)
    return BuiltExamples(examples, built.accounts, built.dead, built.snapshots)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rate_rank", pl.col("rate_rank") * 1.01 + 0.01),
        ("price_share", pl.col("price_share").shift(1, fill_value=0.5)),
        ("item_age", pl.lit(None, pl.Float32).alias("item_age")),
        ("user_topics", pl.col("user_topics").arr.to_list().list.reverse().list.to_array(4)),
        ("watch", (1 - pl.col("watch__mask")).alias("watch__mask")),
        ("long_view_given_click", pl.lit(1.0, pl.Float32).alias("long_view_given_click__label")),
    ],
)
def test_any_other_value_is_refused(site: Site, name: str, change: pl.Expr) -> None:
    verdict = site.judge(_changed(site.build(), "validation", change))
    assert _columns_named(verdict) == {name}


def test_a_value_within_single_precision_passes(site: Site) -> None:
    verdict = site.judge(_changed(site.build(), "test", pl.col("item_age") * (1 + 2e-6)))
    assert verdict.passed, verdict.reasons


def test_an_example_that_is_no_impression_is_refused(site: Site) -> None:
    built = site.build()
    verdict = site.judge(_changed(built, "test", pl.col("item__key") + "x"))
    assert any("are in no raw log" in r and "item=" in r for r in verdict.reasons)


def test_an_impression_that_is_no_example_is_refused(site: Site) -> None:
    built = site.build()
    examples = dict(built.examples)
    train = examples["train"].sort("impression__timestamp")
    examples["train"] = train.head(len(train) // 2)
    accounts = json.loads(json.dumps(built.accounts))
    accounts["examples"]["train"] = len(train) // 2
    verdict = site.judge(BuiltExamples(examples, accounts, built.dead, built.snapshots))
    assert any("are in no split" in r and "request=r" in r for r in verdict.reasons)


def test_rows_whose_kept_keys_coincide_are_still_compared(site: Site) -> None:
    """Two impressions of one moment that differ only in a key that examples do not carry."""

    def other_key(spec: dict[str, Any]) -> None:
        spec["logs"]["impressions"]["key"] = ["request", "item", "price"]

    spec = _spec(site.logs, other_key)
    built = build_examples(spec, read_logs(spec))
    assert site.judge_as(spec, built).passed


# The suspicion lock ------------------------------------------------------------------------------


@pytest.fixture
def leaking_site(tmp_path: Path) -> Callable[[pl.Expr], Site]:
    """Returns a function that overwrites the request column `engagement` of the logs.

    The expression may read the labels `click` and `watch` and standard normal `noise`.
    """

    def make(engagement: pl.Expr) -> Site:
        site = Site(tmp_path / "logs", tmp_path / "examples")
        write_logs(site.logs, seed=7, num_slates=1500)
        outcomes = pl.concat(
            frame.select(
                pl.col("request__key").alias("request"),
                pl.col("item__key").alias("item"),
                pl.col("click__label").cast(pl.Float64).alias("click"),
                pl.col("watch__label").cast(pl.Float64).alias("watch"),
            )
            for frame in site.build().examples.values()
        )
        noise = np.random.default_rng(8).normal(0, 1, len(outcomes))
        leaked = outcomes.with_columns(pl.Series("noise", noise)).select(
            "request", "item", engagement.alias("engagement")
        )
        path = site.logs / "impressions.parquet"
        shown = pl.read_parquet(path).drop("engagement")
        shown.join(leaked, on=["request", "item"], how="left").write_parquet(path)
        return site

    return make


@pytest.mark.parametrize(
    ("engagement", "task", "reading"),
    [
        (pl.col("watch"), "watch", "its value"),
        (pl.col("click") + 0.3 * pl.col("noise"), "click", "its value"),
        (pl.col("watch") * (0.2 * pl.col("noise")).exp(), "watch", "its value"),
        (pl.when(pl.col("click") > 0).then(pl.col("noise")), "click", "its missing"),
    ],
    ids=["future_column", "renamed_label", "renamed_duration", "present_only_when_clicked"],
)
def test_a_request_column_that_knows_the_outcome_is_refused(
    leaking_site: Callable[[pl.Expr], Site], engagement: pl.Expr, task: str, reading: str
) -> None:
    site = leaking_site(engagement)
    built = site.build()
    verdict = site.judge(built)
    assert _columns_named(verdict) == {"engagement"}
    reason = next(r for r in verdict.reasons if f"predicts task {task} " in r)
    for part in ("column engagement: alone", "AUC of ", reading, "auc 0.95", "remedy"):
        assert part in reason

    def waive(spec: dict[str, Any]) -> None:
        spec["ranking"]["columns"]["engagement"]["suspicion_waived"] = True

    waived = site.judge_as(_spec(site.logs, waive), built)
    assert waived.passed, waived.reasons
    assert {w["column"] for w in waived.details["waived"]} == {"engagement"}


# Executors and components ------------------------------------------------------------------------


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
        {"dataset_json": _spec(site.logs).model_dump_json(), "checks_json": _checks()},
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
    ranking = _spec(site.logs).ranking
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
