"""Small logs full of ties, and the examples that gates judge."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components.data_gate.limits import Limits
from components.leakage_gate.example_gate import judge_examples
from components.log_example_gen.build import BuiltExamples, build_examples, read_logs
from components.log_example_gen.example_files import write_examples as write_split
from components.log_example_gen.spec import DatasetSpec
from components.verdict import Verdict
from tests import gate_limits

LIMITS = gate_limits.LIMITS.model_copy(
    update={"max_dead_rate": 0.2, "audit_rows": 200, "min_rows": 20, "min_positives": 2}
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
                "on": ["visit"],
                "columns": {"visit": {"type": "string"}, "depth": {"type": "int"}},
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
            "visit": {"type": "string", "availability": "request"},
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
            "returned": {"type": "bool", "availability": "future", "role": "auxiliary_target",
                         "join": {"stream": "returns", "aggregate": "any", "window": "10h"}},
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
            "return": {"kind": "binary", "target": "returned", "role": "auxiliary",
                       "immature": "fake_negative"},
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


def spec_for(
    root: Path, edit: Callable[[dict[str, Any]], object] = lambda spec: None
) -> DatasetSpec:
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
        visit = None if slate % 6 == 0 else f"v{slate}"
        # New items appear all the time: an age is decided by an item's first impression.
        newest = 12 + (int(time) - START) // HOUR
        for item in newest - rng.choice(12, rng.integers(1, 6), replace=False):
            rows.append((int(time), f"r{slate}", user, visit, f"i{item}", int(item) % 7))
    shown = pl.DataFrame(
        rows, schema=["timestamp", "request", "user", "visit", "item", "category"], orient="row"
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
        pl.Series(rng.random(num_slates) < 0.5) & pl.col("visit").is_not_null()
    )
    returns = slates.select(
        (pl.col("timestamp") + pl.Series(rng.integers(0, 12, len(slates)) * HOUR)).alias(
            "timestamp"
        ),
        "visit",
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
        spec = spec_for(self.logs, edit)
        return build_examples(spec, read_logs(spec))

    def judge(self, built: BuiltExamples, limits: Limits = LIMITS) -> Verdict:
        """Judges examples by the honest specification."""
        return self.judge_as(spec_for(self.logs), built, limits)

    def judge_as(self, spec: DatasetSpec, built: BuiltExamples, limits: Limits = LIMITS) -> Verdict:
        """Judges examples by a specification."""
        uri = write_examples(built, self.examples)
        return judge_examples(spec, limits, built.accounts, uri)
