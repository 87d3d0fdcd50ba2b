"""Small random logs for the reference: few users, items and moments, so that ties abound."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from ruamel.yaml import YAML

from components.log_example_gen.spec import DatasetSpec, Logs, Splits, Window
from models.spec.ranking import RankingSpec

BASE = 1_600_000_000_000
"""Time 0 of the small logs, in milliseconds."""

Row = dict[str, Any]

SLATES = """
logs:
  root: .
  impressions:
    path: impressions/*
    key: [request_id, item_id]
  streams:
    clicks:
      path: clicks/*
      on: [request_id, item_id]
      columns:
        request_id: {type: string}
        item_id: {type: string}
        seconds: {type: float}
        note: {type: string}
    purchases:
      path: purchases/*
      on: [user_id, item_id]
      columns: {user_id: {type: int}, item_id: {type: string}, amount: {type: int}}
    returns:
      path: returns/*
      on: [request_id]
      columns: {request_id: {type: string}}
    history:
      path: history/*
      columns: {user_id: {type: int}, item_id: {type: string}, rating: {type: int}}
slate: request_id
user: user_id
item: item_id
columns:
  request_id: {type: string, availability: request, role: [key, group], scope: context}
  user_id: {type: int, availability: request, role: [group, feature], scope: context,
            encoding: {kind: vocabulary}}
  item_id: {type: string, availability: request, role: [key, feature]}
  category: {type: string, availability: request, role: feature}
  price: {type: float, availability: request, role: feature}
  is_new: {type: bool, availability: request, role: feature, encoding: {kind: vocabulary}}
  tags: {type: "list[string]", availability: request, role: feature, max_length: 2}
  sizes: {type: "list[int]", availability: request, role: feature, max_length: 2,
          encoding: {kind: numeric}}
  position: {type: int, availability: decision, role: feature}
  has_price: {type: bool, availability: request, role: feature, expression: "price is not null"}
  rated: {type: int, availability: future, known_after: 3ms}
  clicked: {type: bool, availability: future, role: [target, mask],
            join: {stream: clicks, aggregate: any, window: 6ms}}
  num_clicks: {type: int, availability: future, role: target,
               join: {stream: clicks, aggregate: count, window: 3ms}}
  watch_seconds: {type: float, availability: future, role: target,
                  join: {stream: clicks, aggregate: sum, value: seconds, window: 8ms}}
  longest: {type: float, availability: future, role: auxiliary_target,
            join: {stream: clicks, aggregate: max, value: seconds, window: 8ms}}
  first_note: {type: string, availability: future,
               join: {stream: clicks, aggregate: first, value: note, window: 8ms}}
  bought: {type: bool, availability: future, role: target,
           join: {stream: purchases, aggregate: any, window: 9ms}}
  bought_at_once: {type: bool, availability: future, role: auxiliary_target,
                   join: {stream: purchases, aggregate: any, window: 2ms}}
  first_amount: {type: int, availability: future, role: target,
                 join: {stream: purchases, aggregate: first, value: amount, window: 9ms}}
  returned: {type: bool, availability: future, role: auxiliary_target,
             join: {stream: returns, aggregate: any, window: 5ms}}
  praised: {type: bool, availability: future, role: auxiliary_target,
            expression: "first_note = 'good' or rated > 3"}
  click_weight: {type: float, availability: future, role: weight,
                 expression: "1.0 + 0.5 * num_clicks"}
features:
  item_clicks: {as_of: {events: clicks, entity: item_id, aggregate: count, window: 7ms}}
  item_clicks_late: {as_of: {events: clicks, entity: item_id, aggregate: count, window: 7ms,
                             availability_lag: 2ms}}
  item_seconds: {as_of: {events: clicks, entity: item_id, aggregate: sum, value: seconds}}
  item_mean: {as_of: {events: clicks, entity: item_id, aggregate: mean, value: seconds,
                      window: 9ms, where: "seconds > 0.5"}}
  item_age: {as_of: {events: impressions, entity: item_id, aggregate: age, availability_lag: 1ms}}
  user_recency: {as_of: {events: clicks, entity: user_id, aggregate: recency}}
  user_category: {as_of: {events: clicks, entity: [user_id, category], aggregate: count}}
  user_items: {as_of: {events: clicks, entity: user_id, aggregate: last_values, value: item_id,
                       length: 3}}
  user_ratings: {as_of: {events: history, entity: user_id, aggregate: last_values, value: rating,
                         length: 2, window: 12ms}}
  user_rated: {as_of: {events: history, entity: user_id, aggregate: mean, value: rating}}
  user_returns: {as_of: {events: returns, entity: user_id, aggregate: count, window: 10ms}}
  exposures: {as_of: {events: impressions, entity: item_id, aggregate: count}}
  user_clicked: {as_of: {events: impressions, entity: user_id, aggregate: count,
                         where: clicked}}
  item_praise: {as_of: {events: impressions, entity: item_id, aggregate: sum, value: rated,
                        where: "price > 1"}}
  new_clicks: {as_of: {events: clicks, entity: item_id, aggregate: count, where: is_new}}
  rate: {rate: {numerator: item_clicks, denominator: exposures, prior_rate: 0.1,
                prior_strength: 2}}
  rate_rank: {slate: {of: rate, relation: rank}}
  price_rank: {slate: {of: price, relation: rank}}
  price_share: {slate: {of: price, relation: share}}
  mean_ratio: {slate: {of: item_mean, relation: ratio_to_max}}
  mean_count: {slate: {of: item_mean, relation: count}}
tasks:
  click: {kind: binary, target: clicked, gates: {auc: {min: 0}}}
  purchase: {kind: binary, target: bought, conditioned_on: click, gates: {auc: {min: 0}}}
  amount: {kind: regression, target: first_amount, conditioned_on: purchase,
           gates: {mae: {max: 9}}}
  clicks: {kind: count, target: num_clicks, gates: {mae: {max: 9}}}
  watch: {kind: duration, target: watch_seconds, mask: clicked, sample_weight: click_weight,
          gates: {mae: {max: 9}}}
  longest: {kind: regression, target: longest, role: auxiliary}
  returned: {kind: binary, target: returned, role: auxiliary}
  returned_soon: {kind: binary, target: returned, role: auxiliary, immature: fake_negative}
  bought_soon: {kind: binary, target: bought_at_once, role: auxiliary, immature: fake_negative}
  praised: {kind: binary, target: praised, role: auxiliary}
"""

SLATES_FUNCTIONS: dict[str, Callable[[Row], Any]] = {
    "price is not null": lambda row: row["price"] is not None,
    "first_note = 'good' or rated > 3": lambda row: either(
        None if row["first_note"] is None else row["first_note"] == "good",
        None if row["rated"] is None else row["rated"] > 3,
    ),
    "1.0 + 0.5 * num_clicks": lambda row: 1.0 + 0.5 * row["num_clicks"],
    "seconds > 0.5": lambda row: row["seconds"] is not None and row["seconds"] > 0.5,
    "clicked": lambda row: row["clicked"],
    "price > 1": lambda row: row["price"] is not None and row["price"] > 1,
    "is_new": lambda row: bool(row["is_new"]),
}

WIDE = """
logs:
  root: .
  impressions:
    path: impressions/*
    key: [user_id, item_id, shown_at]
  streams: {}
user: user_id
item: item_id
columns:
  user_id: {type: string, availability: request, role: feature, scope: context}
  item_id: {type: string, availability: request, role: feature}
  shown_at: {type: int, availability: request}
  liked: {type: int, availability: future, role: target, known_after: 4ms}
  seconds: {type: float, availability: future, role: target, known_after: 2ms}
  stars: {type: int, availability: future, role: target}
  importance: {type: float, availability: decision, role: weight}
  chance: {type: float, availability: decision, role: weight}
features:
  item_likes: {as_of: {events: impressions, entity: item_id, aggregate: count, window: 9ms,
                       where: "liked = 1"}}
  item_seconds: {as_of: {events: impressions, entity: item_id, aggregate: mean, value: seconds}}
  user_shown: {as_of: {events: impressions, entity: user_id, aggregate: count}}
  user_liked: {as_of: {events: impressions, entity: user_id, aggregate: last_values,
                       value: item_id, length: 2, where: "liked = 1"}}
  likes: {rate: {numerator: item_likes, denominator: user_shown, prior_rate: 0.5}}
tasks:
  like: {kind: binary, target: liked, sample_weight: importance, gates: {auc: {min: 0}}}
  seconds: {kind: duration, target: seconds, conditioned_on: like, gates: {mae: {max: 9}}}
  stars: {kind: regression, target: stars, propensity: {column: chance, clip: 0.2},
          gates: {mae: {max: 9}}}
"""

WIDE_FUNCTIONS: dict[str, Callable[[Row], Any]] = {"liked = 1": lambda row: row["liked"] == 1}


def either(left: bool | None, right: bool | None) -> bool | None:
    """SQL's OR."""
    if left or right:
        return True
    return None if left is None or right is None else False


@lru_cache
def parse(text: str) -> tuple[Logs, RankingSpec]:
    """Parses the part of a configuration that examples depend on."""
    raw = YAML(typ="safe").load(text)
    logs = Logs.model_validate(raw.pop("logs"))
    return logs, RankingSpec.model_validate(raw)


def dataset(
    text: str, window: Window, *, root: Path | str = ".", num_shards: int = 1
) -> DatasetSpec:
    """Makes a dataset with a given window."""
    logs, ranking = parse(text)
    return DatasetSpec(
        root=Path(root),
        logs=logs,
        splits=Splits(validation=1, test=1),
        ranking=ranking,
        window=window,
        slice_columns=("category", "is_new") if "category" in ranking.columns else ("item_id",),
        num_shards=num_shards,
    )


# Random logs -----------------------------------------------------------------------------------

_LAST_MOMENT = 15
_FAULT_RATE = 0.04
_USERS, _ITEMS = (1, 2), ("a", "b", "c")
_REQUESTS = ("r",)
"""Stands for requests r0, r1, ...: their number grows with the logs."""

Columns = dict[str, tuple[Any, ...]]
"""Values to draw from, by column."""

SLATES_COLUMNS: dict[str, tuple[int, Columns]] = {
    "impressions": (
        26,
        {
            "request_id": _REQUESTS,
            "user_id": (1, 1, 2, 2, None),
            "item_id": _ITEMS,
            "category": ("x", "y", None),
            "price": (0.0, 1.5, 2.25, None),
            "is_new": (True, False, None),
            "tags": ([], ["p"], ["p", None, "q"], None),
            "sizes": ([], [1], [3, 2, 1], None),
            "position": (0, 1),
            "rated": (1, 4, None),
        },
    ),
    "clicks": (
        30,
        {
            "request_id": _REQUESTS,
            "item_id": _ITEMS,
            "seconds": (0.25, 1.5, 3.0, None),
            "note": ("good", "bad", None),
        },
    ),
    "purchases": (14, {"user_id": _USERS, "item_id": _ITEMS, "amount": (0, 1, 2, 30, None)}),
    "returns": (10, {"request_id": _REQUESTS}),
    "history": (12, {"user_id": (1, 2, None), "item_id": _ITEMS, "rating": (1, 9, 10, None)}),
}

WIDE_COLUMNS: dict[str, tuple[int, Columns]] = {
    "impressions": (
        34,
        {
            "user_id": ("u", "v"),
            "item_id": _ITEMS,
            "shown_at": (1, 2, 3),
            "liked": (0, 1, 1, 2, None),
            "seconds": (0.5, 4.0, -1.0, None),
            "stars": (-1, 5, None),
            "importance": (0.0, 1.0, 2.5, -1.0, None),
            "chance": (0.5, 1.0, 0.05, 0.0, 1.5, None),
        },
    )
}


def random_logs(
    streams: dict[str, tuple[int, Columns]], seed: int, size: float
) -> dict[str, list[Row]]:
    """Draws logs with ties, exact duplicates, conflicting keys, bad times and missing keys.

    Args:
        streams: For each stream its number of rows and the values of its columns.
        seed: Of the draw.
        size: Factor on the numbers of rows.
    """
    draw = random.Random(seed)
    requests = tuple(f"r{number}" for number in range(round(7 * max(size, 1))))
    logs = {}
    for name, (most, choices) in streams.items():
        columns = {n: requests if v == _REQUESTS else v for n, v in choices.items()}
        rows: list[Row] = []
        for _ in range(round(most * size)):
            row: Row = {"time": BASE + draw.randint(0, _LAST_MOMENT)}
            row |= {column: draw.choice(values) for column, values in columns.items()}
            if draw.random() < _FAULT_RATE:
                row["time"] = draw.choice([None, 1_600_000, BASE * 1000])
            if draw.random() < _FAULT_RATE:
                row[draw.choice(list(columns))] = None
            rows += [row] if draw.random() > 2 * _FAULT_RATE else [row, dict(row)]
        # Requests have one time and one user, but for some that are odd.
        if name == "impressions" and "request_id" in columns:
            first: dict[Any, Row] = {}
            for row in rows:
                known = first.setdefault(row["request_id"], row)
                if draw.random() > _FAULT_RATE:
                    row |= {key: known[key] for key in ("time", "user_id")}
        logs[name] = rows
    return logs


def random_window(seed: int) -> Window:
    """Draws boundaries in order; the cut-offs may cut events away."""
    draw = random.Random(seed)
    start = draw.choice([0, 0, 1, 3])
    validation = start + draw.randint(3, 6)
    test = validation + draw.randint(1, 4)
    end = test + draw.randint(1, 5)
    return Window(
        train_start=BASE + start,
        validation_start=BASE + validation,
        test_start=BASE + test,
        test_end=BASE + end,
        train_cutoff=BASE + validation + draw.randint(0, 12),
        cutoff=BASE + end + draw.randint(0, 8),
    )


seeds = st.integers(0, 2**32 - 1)
sizes = st.sampled_from([0.0, 0.2, 1.0, 1.0, 1.0, 1.0, 1.5])
slates_logs = st.builds(random_logs, st.just(SLATES_COLUMNS), seeds, sizes)
wide_logs = st.builds(random_logs, st.just(WIDE_COLUMNS), seeds, sizes)
windows = st.builds(random_window, seeds)
