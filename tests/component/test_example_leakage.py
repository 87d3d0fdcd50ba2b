"""The lock on examples: recomputed from raw logs, they have to agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from components.log_example_gen.build import BuiltExamples, build_examples, read_logs
from components.verdict import Verdict
from tests.component.gate_site import (
    LIMITS,
    SPEC,
    Site,
    spec_for,
    write_logs,
)


def _columns_named(verdict: Verdict) -> set[str]:
    """Returns the features and outputs that the reasons name."""
    names = set()
    for reason in verdict.reasons:
        if reason.startswith("column "):
            names.add(reason.removeprefix("column ").split(":")[0])
        elif " output " in reason:
            names.add(reason.split(" output ")[1].split(":")[0])
    return names


def test_clean_examples_pass(site: Site) -> None:
    verdict = site.judge(site.build())
    assert verdict.passed, verdict.reasons
    ranking = spec_for(site.logs).ranking
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

    spec = spec_for(site.logs, other_key)
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

    waived = site.judge_as(spec_for(site.logs, waive), built)
    assert waived.passed, waived.reasons
    assert {w["column"] for w in waived.details["waived"]} == {"engagement"}
