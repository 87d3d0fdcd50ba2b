"""The benchmarks of transfer and of peers: what they compare and what their pages may say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers.page import page as peers_page
from benchmarks.transfer.comparison import TestRows, compare, difference
from benchmarks.transfer.page import page
from benchmarks.transfer.run import CANDIDATES
from models.metrics.estimation import Resampled
from models.spec.ranking import RankingSpec
from models.spec.training import Candidate
from pipeline.load import load_config

ROOT = Path(__file__).resolve().parents[2]
REQUEST = {"availability": "request"}
RANKING = RankingSpec.model_validate(
    {
        "user": "user",
        "item": "item",
        "columns": {
            "user": REQUEST | {"type": "string", "role": ["key", "group"], "scope": "context"},
            "item": REQUEST | {"type": "string", "role": "key"},
            "device": REQUEST | {"type": "string", "role": "feature"},
            "clicked": {"type": "bool", "availability": "future", "role": "target"},
        },
        "tasks": {"click": {"kind": "binary", "target": "clicked", "gates": {"auc": {"min": 0.5}}}},
    }
)


def measured(value: float, drawn: Sequence[float]) -> Resampled:
    return Resampled({"auc": value}, {"auc": np.array(drawn)}, frozenset(), {})


def test_an_interval_counts_seeds_and_users() -> None:
    zero = [measured(0.0, [0.0] * 200) for _ in range(3)]
    users = list(np.linspace(-1, 1, 200))
    same_seeds = difference([measured(0.5, [0.5 + u for u in users])] * 3, zero)
    same_users = difference([measured(v, [v] * 200) for v in (0.4, 0.5, 0.6)], zero)
    both = difference([measured(v, [v + u for u in users]) for v in (0.4, 0.5, 0.6)], zero)
    assert same_seeds is not None and same_users is not None and both is not None
    half_users, half_seeds = (d["high"] - d["value"] for d in (same_seeds, same_users))
    assert half_users == pytest.approx(0.95, abs=0.01)
    assert half_seeds == pytest.approx(4.303 * 0.1 / np.sqrt(3), rel=1e-3)
    assert both["value"] == pytest.approx(0.5)
    assert both["high"] - 0.5 == pytest.approx(np.hypot(half_users, half_seeds))
    assert 0.5 - both["low"] == pytest.approx(np.hypot(half_users, half_seeds))


def test_a_metric_that_is_undefined_has_no_difference() -> None:
    undefined = [measured(np.nan, [np.nan] * 200)] * 2
    assert difference(undefined, undefined) is None


def test_help_and_harm_are_found_where_they_are() -> None:
    rng = np.random.default_rng(0)
    num_rows = 1200
    label = rng.integers(0, 2, num_rows).astype(float)
    device = np.where(np.arange(num_rows) % 2 == 0, "phone", "tv")
    rows = TestRows(
        columns={"click__label": label, "click__weight": np.ones(num_rows)},
        group=np.arange(num_rows) // 4,
        user=np.arange(num_rows) // 4,
        slices={"device": device},
    )

    def predictions(signal: np.ndarray | float) -> list[dict[str, Any]]:
        noise = [rng.normal(size=num_rows) for _ in range(4)]
        return [{"click": 1 / (1 + np.exp(-(signal * (label - 0.5) + n)))} for n in noise]

    candidates = {
        name: Candidate.model_validate({"model": {"architecture": name}})
        for name in ("single_task", "mmoe")
    }
    harmed = np.where(device == "tv", 0.2, 2.0)
    result = compare(
        RANKING,
        candidates,
        rows,
        {
            ("single_task", True): predictions(2.0),
            ("single_task", False): predictions(2.0),
            ("mmoe", True): predictions(harmed),
            ("mmoe", False): predictions(0.2),
        },
        num_replicates=100,
    )
    assert result["metrics"] == {"click": "auc"}
    assert result["auxiliary"]["mmoe"]["click"]["low"] > 0
    alone = result["auxiliary"]["single_task"]["click"]
    assert alone["low"] < 0 < alone["high"]
    by_slice = {name: found["click"] for name, found in result["transfer"]["mmoe"].items()}
    assert list(by_slice) == ["all", "device=phone", "device=tv"]
    assert by_slice["device=tv"]["high"] < 0 and by_slice["all"]["high"] < 0
    assert by_slice["device=phone"]["low"] < 0 < by_slice["device=phone"]["high"]
    setting = {
        "impressions": 1,
        "rows": {"train": 1, "validation": 1, "test": 1},
        "num_users": 300,
        "num_seeds": 4,
        "num_replicates": 100,
        "auxiliary_tasks": ["other"],
    }
    text = page({"setting": setting, **result})
    assert "| device=tv | **-" in text
    assert "All rows: 0 better, 1 worse, 0 undecided of 1 differences" in text
    assert "Slices: 0 better, 1 worse, 1 undecided of 2 differences" in text


def test_the_compared_candidates_are_in_the_example() -> None:
    config = load_config(ROOT / "examples" / "simulated" / "config.yaml")
    assert set(CANDIDATES) <= set(config.candidates)
    assert config.ranking.auxiliary_tasks


@pytest.mark.parametrize(("seconds", "auc", "fast", "equal"), [(1.0, 0.9, 1, 1), (3.0, 0.8, 0, 0)])
def test_the_page_of_peers_says_met_only_where_it_is(
    seconds: float, auc: float, fast: int, equal: int
) -> None:
    def side(wall: float, value: float) -> dict[str, Any]:
        epochs = [[{"wall": wall, "cpu": wall}] * 4] * 2
        return {"auc": {"income": [value, value - 1e-4]}, "parameters": 10, "epochs": epochs}

    result = {
        "setting": {
            "rows": {"train": 100, "test": 50},
            "model": {"num_experts": 4, "expert_units": [8], "tower_units": [4]},
            "batch_size": 10,
            "num_epochs": 4,
            "num_seeds": 2,
            "machine": "any",
        },
        "sides": {
            "polyrank": side(seconds, auc) | {"reading": [{"wall": 1.0, "cpu": 1.0}] * 2},
            "deepctr": side(2.0, 0.9),
        },
        "profile": {"step": 1.0, "input from memory": 0.1},
    }
    text = peers_page(result)
    assert text.count("pipeline's files: met") == fast
    assert text.count("or better: met") == equal
    assert text.count("not met") == 2 - fast - equal
