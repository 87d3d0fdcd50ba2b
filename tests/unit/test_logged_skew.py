"""Logged features are compared with our own computation, and refused when they are off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from components.data_gate.accounts import skew_reasons
from components.data_gate.limits import Limits
from components.log_example_gen.build import BuiltExamples, build_examples, read_logs
from pipeline.config import DataChecks
from pipeline.load import load_config
from pipeline.plan import make_dataset
from simulator.simulate import SimulationConfig, simulate

CONFIG = Path(__file__).resolve().parents[2] / "examples" / "simulated" / "config.yaml"
CLICKS = "{events: clicks, entity: item_id, aggregate: count, window: 24h, availability_lag: 5m}"
SHOWN = CLICKS.replace("clicks", "impressions")
RECENT = "{events: clicks, entity: user_id, aggregate: last_values, value: item_id, length: 3}"
RATE = "{numerator: clicks_24h, denominator: shown_24h, prior_rate: 0.1, prior_strength: 5}"


def _features(source: str) -> str:
    return (
        f"features={{clicks_24h: {{as_of: {CLICKS}, source: {source}}}, "
        f"shown_24h: {{as_of: {SHOWN}}}, rate_24h: {{rate: {RATE}, source: {source}}}, "
        f"recent: {{as_of: {RECENT}, source: {source}}}}}"
    )


def _build(logs: Path, source: str) -> BuiltExamples:
    spec = make_dataset(load_config(CONFIG, [f"logs.root={logs}", _features(source)]), None)
    return build_examples(spec, read_logs(spec))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuiltExamples, BuiltExamples]:
    """Computed; and logged with a tenth of the clicks off by 3 and a twentieth missing."""
    logs = tmp_path_factory.mktemp("logs")
    simulate(SimulationConfig(impressions=12_000, seed=8, malformed_rate=0, orphan_rate=0), logs)
    computed = _build(logs, "computed")
    names = ["clicks_24h", "rate_24h", "recent"]
    keys = ["request_id", "item_id"]
    known = pl.concat(computed.examples.values()).select(
        *(pl.col(f"{key}__key").alias(key) for key in keys), *names
    )
    for path in sorted(logs.glob("impressions/*/*.parquet")):
        rows = pl.read_parquet(path, hive_partitioning=False)
        rows = rows.join(known, on=keys, how="left", maintain_order="left")
        draw = np.random.default_rng(3).random(len(rows))
        # A duplicate must stay one: what is wrong follows the key.
        first = rows.select(pl.struct(keys).rank("dense")).to_series().to_numpy() - 1
        off, gone = draw[first] < 0.1, draw[first] > 0.95
        clicks = rows["clicks_24h"].cast(pl.Float64) + pl.Series(np.where(off, 3.0, 0.0))
        recent = rows["recent"].arr.to_list().list.eval(pl.element().filter(pl.element() != ""))
        rows.with_columns(
            clicks.set(pl.Series(gone), None).alias("clicks_24h"),
            rows["rate_24h"].cast(pl.Float64).alias("rate_24h"),
            recent.alias("recent"),
        ).write_parquet(path)
    return computed, _build(logs, "logged")


def test_skew_is_measured(built: tuple[BuiltExamples, BuiltExamples]) -> None:
    computed, logged = built
    assert computed.accounts["skew"] == {}
    skew = logged.accounts["skew"]
    assert set(skew) == {"clicks_24h", "rate_24h", "recent"}
    for split, frame in logged.examples.items():
        before = computed.examples[split]
        wrong = (frame["clicks_24h"] != before["clicks_24h"]).fill_null(True)
        counts = skew["clicks_24h"][split]
        assert counts["rows"] == len(frame)
        assert counts["differing"] == wrong.sum()
        assert counts["both"] == len(frame) - frame["clicks_24h"].null_count()
        assert counts["absolute"] == 3.0 * (wrong.sum() - frame["clicks_24h"].null_count())
        assert 0.1 < counts["differing"] / counts["rows"] < 0.2
        # The rate was logged as it was computed, from what is not its business to be wrong.
        assert skew["rate_24h"][split]["differing"] == 0
        assert skew["recent"][split]["differing"] == 0 < skew["recent"][split]["rows"]
        assert frame["rate_24h"].equals(before["rate_24h"])


def test_a_logged_feature_is_not_looked_up(built: tuple[BuiltExamples, BuiltExamples]) -> None:
    computed, logged = built
    assert "clicks_24h" in computed.snapshots[("item_id",)].columns
    assert logged.snapshots[("item_id",)].columns == ["item_id", "shown_24h"]


def test_too_much_skew_is_refused(built: tuple[BuiltExamples, BuiltExamples]) -> None:
    def limits(max_skew: float) -> Limits:
        declared = DataChecks(max_skew=max_skew).model_dump()
        return Limits(**declared, min_rows=1, min_positives=1)

    accounts = built[1].accounts
    reasons = skew_reasons(accounts, limits(0.1))
    assert [r.partition(":")[0] for r in reasons] == ["feature clicks_24h"] * 3
    assert "limit max_skew 10.0%" in reasons[0] and "availability_lag" in reasons[0]
    assert skew_reasons(accounts, limits(0.25)) == []
    assert skew_reasons(built[0].accounts, limits(0.0)) == []
