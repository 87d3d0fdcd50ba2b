"""Test rows whose as-of features are later than declared."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from components.lag_study.executor import with_lag
from components.log_example_gen.build import build_examples, read_logs
from components.log_example_gen.spec import Window
from models.spec.errors import ConfigError
from pipeline.load import load_config
from tests.reference import small_logs
from tests.reference.comparison import write_logs
from tests.reference.small_logs import BASE

CONFIG = Path(__file__).resolve().parents[2] / "examples" / "simulated" / "config.yaml"
WINDOW = Window(
    train_start=BASE,
    validation_start=BASE + 5,
    test_start=BASE + 7,
    test_end=BASE + 16,
    train_cutoff=BASE + 9,
    cutoff=BASE + 20,
)


def test_only_the_as_of_features_of_the_test_rows_change() -> None:
    logs = small_logs.random_logs(small_logs.SLATES_COLUMNS, 5, 3.0)
    with tempfile.TemporaryDirectory() as root:
        spec = small_logs.dataset(small_logs.SLATES, WINDOW, root=root)
        write_logs(spec, logs)
        read = read_logs(spec)
        declared = build_examples(spec, read).examples["test"]
        delayed = {lag: build_examples(with_lag(spec, lag), read).examples for lag in (0, 2, 6)}
    for examples in delayed.values():
        assert len(examples["train"]) == len(examples["validation"]) == 0
    features = spec.ranking.features
    as_of = {n for n, f in features.items() if f.as_of is not None}
    derived = {n for n, f in features.items() if f.as_of is None and not n.startswith("price")}
    others = [c for c in declared.columns if c not in as_of | derived]
    for examples in delayed.values():
        assert examples["test"].select(others).equals(declared.select(others))
    # Those declared without lag have the same values at lag 0, and the one with 2 ms at 2.
    same = [n for n in as_of if features[n].as_of.availability_lag == 0]  # type: ignore[union-attr]
    shown = [n for n in same if n in declared.columns]
    assert delayed[0]["test"].select(shown).equals(declared.select(shown))
    late = ["item_clicks_late"]
    assert delayed[2]["test"].select(late).equals(declared.select(late))
    assert delayed[6]["test"]["item_clicks"].sum() < declared["item_clicks"].sum()


def test_a_lag_needs_a_feature_that_can_be_late() -> None:
    assert load_config(CONFIG, ["evaluation.lags=[0s, 5m, 1h]"]).evaluation.lags == (
        0, 300_000, 3_600_000,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="no computed as-of feature"):
        load_config(CONFIG, ["features={}", "evaluation.lags=[1h]"])
