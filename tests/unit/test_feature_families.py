"""The benchmark of feature families: assignment of features, and what leaving one out shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from ruamel.yaml import YAML

from benchmarks.feature_families.run import Bench, Splits, assigned_families, table
from models.spec.errors import ConfigError
from models.spec.ranking import RankingSpec
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
            "telling": REQUEST | {"type": "float", "role": "feature"},
            "idle": REQUEST | {"type": "float", "role": "feature"},
            "device": REQUEST | {"type": "string", "role": "feature"},
            "clicked": {"type": "bool", "availability": "future", "role": "target"},
        },
        "tasks": {"click": {"kind": "binary", "target": "clicked", "gates": {"auc": {"min": 0.5}}}},
    }
)


@pytest.mark.parametrize("example", ["ebnerd", "kuairand"])
def test_families_of_the_examples_hold_every_feature_once(example: str) -> None:
    ranking = load_config(ROOT / "examples" / example / "config.yaml").ranking
    patterns = YAML(typ="safe").load(ROOT / f"benchmarks/feature_families/{example}.yaml")
    families = assigned_families(ranking.request_features, patterns)
    names = sorted(name for members in families.values() for name in members)
    assert names == sorted(feature.name for feature in ranking.request_features)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"a": ["tell*"], "b": ["device"]}, "idle belongs to no family"),
        ({"a": ["*"], "b": ["idle"]}, "idle belongs to a and b"),
        ({"a": ["*"], "b": ["misspelt"]}, "no feature belongs to b"),
    ],
)
def test_a_feature_in_no_family_or_in_two_is_an_error(
    patterns: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        assigned_families(RANKING.request_features, patterns)


def rows(num_rows: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    telling = rng.normal(size=num_rows)
    label = (telling + 0.5 * rng.normal(size=num_rows) > 0).astype(float)
    return pl.DataFrame(
        {
            "user__key": [f"u{i % 30}" for i in range(num_rows)],
            "item__key": [f"i{i}" for i in range(num_rows)],
            "telling": telling,
            "idle": rng.normal(size=num_rows),
            "device": rng.choice(["phone", "tv"], num_rows),
            "click__label": label,
            "click__mask": np.ones(num_rows),
            "click__weight": np.ones(num_rows),
        }
    )


def test_leaving_out_what_tells_costs_and_what_does_not_is_free() -> None:
    bench = Bench(RANKING, Splits(rows(1500, 0), rows(600, 1)), num_models=1, num_replicates=50)
    lines = table(bench, {"telling": ["telling"], "idle": ["idle", "device"]})
    assert lines[0] == "| without | features left | click auc | click gauc |"
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines[2:]}
    assert [cells[name][0] for name in ("(nothing)", "telling", "idle")] == ["3", "2", "1"]

    def auc(name: str) -> float:
        return float(cells[name][1].split()[0])

    assert auc("(nothing)") > 0.9 and auc("telling") < -0.35 and abs(auc("idle")) < 0.03
