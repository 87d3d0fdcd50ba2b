"""Inverse-propensity weights on simulated logs that a policy thinned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.special import expit

from components.log_example_gen.build import build_examples, read_logs
from components.log_example_gen.sampling import uniform_of
from models.spec.errors import ConfigError
from pipeline.load import load_config
from pipeline.plan import make_dataset
from simulator.simulate import SimulationConfig, simulate

CONFIG = Path(__file__).resolve().parents[2] / "examples" / "simulated" / "config.yaml"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs in which rows of inactive users are rare, and say how likely they were to be kept."""
    folder = tmp_path_factory.mktemp("logs")
    simulate(SimulationConfig(impressions=60_000, seed=2, malformed_rate=0), folder)
    for path in sorted(folder.glob("impressions/*/*.parquet")):
        rows = pl.read_parquet(path, hive_partitioning=False)
        chance = np.maximum(expit(1.5 * rows["user_activity"].fill_null(0).to_numpy() - 1), 0.02)
        kept = uniform_of([rows["request_id"], rows["item_id"]]) < chance
        thinned = rows.with_columns(pl.Series("logged_rate", chance)).filter(pl.Series(kept))
        thinned.write_parquet(path)
    return folder


def _click_rate(logs: Path, *overrides: str) -> tuple[float, float]:
    """What a model without features would learn, and how many rows it is worth."""
    spec = make_dataset(
        load_config(
            CONFIG,
            [
                f"logs.root={logs}",
                "features={}",
                "columns.logged_rate={type: float, availability: decision, role: weight}",
                *overrides,
            ],
        ),
        None,
    )
    train = build_examples(spec, read_logs(spec)).examples["train"]
    label, weight = train["click__label"].to_numpy(), train["click__weight"].to_numpy()
    return float(np.average(label, weights=weight)), float(weight.sum() ** 2 / (weight**2).sum())


def test_weights_undo_the_selection(logs: Path) -> None:
    truth = pl.read_parquet(logs / "_truth" / "truth.parquet")
    true_rate = truth["clicked"].mean()
    naive, _ = _click_rate(logs)
    weighted, worth = _click_rate(logs, "tasks.click.propensity={column: logged_rate}")
    clipped, clipped_worth = _click_rate(
        logs, "tasks.click.propensity={column: logged_rate, clip: 0.5}"
    )
    error = np.sqrt(true_rate * (1 - true_rate) / worth)
    print(
        f"true {true_rate:.4f}, naive {naive:.4f}, weighted {weighted:.4f} +- {error:.4f}, "
        f"clipped at 0.5 {clipped:.4f}; worth {worth:.0f} and {clipped_worth:.0f} rows"
    )
    assert abs(weighted - true_rate) < 3 * error
    assert naive - true_rate > 4 * error
    # Clipping trades bias for variance: between the two, and worth more rows.
    assert weighted < clipped < naive
    assert clipped_worth > worth


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("{type: float, availability: decision}", "must have role: weight"),
        ("{type: float, availability: future, role: weight}", "that the decision knew"),
        ("{type: string, availability: decision, role: weight}", "that the decision knew"),
    ],
)
def test_what_is_no_propensity_is_refused(declared: str, expected: str) -> None:
    overrides: list[Any] = [
        f"columns.chance={declared}",
        "tasks.click.propensity={column: chance}",
    ]
    with pytest.raises(ConfigError, match=expected):
        load_config(CONFIG, overrides)
