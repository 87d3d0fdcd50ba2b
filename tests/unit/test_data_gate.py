"""The DataGate: what it refuses, what it only reports, and that it says why."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.data_gate.gate import judge
from components.data_gate.limits import Limits
from components.data_gate.schema_check import load_tfdv
from components.data_gate.score import score_warnings
from components.verdict import Verdict
from models.schema import training_schema
from models.spec.ranking import RankingSpec
from tests.gate_limits import LIMITS

RANKING = RankingSpec.model_validate_json(
    """{
    "slate": "request", "user": "user", "item": "item",
    "columns": {
        "request": {"type": "string", "availability": "request", "role": "group"},
        "user": {"type": "string", "availability": "request", "role": "feature"},
        "item": {"type": "string", "availability": "request", "role": "key"},
        "device": {"type": "string", "availability": "request", "role": "feature"},
        "price": {"type": "float", "availability": "request", "role": "feature"},
        "clicked": {"type": "bool", "availability": "future", "role": ["target", "mask"]},
        "bought": {"type": "bool", "availability": "future", "role": "target"},
        "watched": {"type": "float", "availability": "future", "role": "target"},
        "liked": {"type": "bool", "availability": "future", "role": "auxiliary_target"}
    },
    "tasks": {
        "click": {"kind": "binary", "target": "clicked", "gates": {"auc": {"min": 0.6}}},
        "purchase": {"kind": "binary", "target": "bought", "conditioned_on": "click",
                     "gates": {"auc": {"min": 0.6}}},
        "watch": {"kind": "duration", "target": "watched", "mask": "clicked",
                  "gates": {"spearman": {"min": 0.1}}},
        "like": {"kind": "binary", "target": "liked", "role": "auxiliary"}
    }, "score": {"weights": {"click": 1.0, "purchase": 5.0, "watch": 0.01}}}"""
)
NUM_ROWS = {"train": 4000, "validation": 1000, "test": 1000}

Columns = dict[str, list[Any]]


def _columns(num_rows: int, seed: int) -> Columns:
    """Draws one split's example columns; a missing value is None."""
    rng = np.random.default_rng(seed)
    click = rng.random(num_rows) < 0.2
    bought = click & (rng.random(num_rows) < 0.3)
    watched = np.where(click, rng.exponential(30.0, num_rows), 0.0)
    ones = np.ones(num_rows)
    labels = {
        "click": (click, ones),
        "purchase": (bought, ones),
        "purchase_given_click": (bought, click),
        "watch": (watched, click),
        "like": (rng.random(num_rows) < 0.1, ones),
    }
    users = rng.integers(0, 200, num_rows)
    columns: Columns = {
        "user": [b"u%d" % u for u in users],
        "device": [b"phone" if d < 0.7 else b"tv" for d in rng.random(num_rows)],
        "price": [float(p) for p in rng.normal(10, 2, num_rows)],
        "request__key": [b"%d-r%d" % (seed, i // 10) for i in range(num_rows)],
        "user__key": [b"u%d" % u for u in users],
        "item__key": [b"%d-i%d" % (seed, i) for i in range(num_rows)],
        "impression__timestamp": list(range(num_rows)),
    }
    for name, (label, mask) in labels.items():
        columns[f"{name}__label"] = [float(v) for v in label]
        columns[f"{name}__mask"] = [float(v) for v in mask]
        columns[f"{name}__weight"] = [float(v) for v in mask]
    return columns


def _statistics(columns: Columns) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Computes what StatisticsGen would have written."""
    arrays = {}
    for name, values in columns.items():
        lists = [None if v is None else [v] for v in values]
        present = next((v for v in values if v is not None), None)
        kind = pa.int64() if isinstance(present, int) else pa.float32()
        kind = pa.binary() if isinstance(present, bytes) else kind
        arrays[name] = pa.nulls(len(values)) if present is None else pa.array(lists, pa.list_(kind))
    load_tfdv()
    from tensorflow_data_validation.statistics import stats_impl, stats_options

    return stats_impl.generate_statistics_in_memory(
        pa.RecordBatch.from_pydict(arrays), stats_options.StatsOptions()
    )


def _accounts(splits: dict[str, Columns]) -> dict[str, Any]:
    """Counts the splits as the ingestion would."""
    labels = {}
    for output in RANKING.all_outputs:
        labels[output.name] = {
            "by_day": {},
            "by_split": {
                split: {
                    "rows": len(columns[output.label_key]),
                    "mature": int(sum(columns[output.mask_key])),
                    "impossible": 0,
                    "sum": sum(np.multiply(columns[output.label_key], columns[output.mask_key])),
                }
                for split, columns in splits.items()
            },
        }
    sizes = {split: len(columns["user"]) for split, columns in splits.items()}
    total = sum(sizes.values())
    return {
        "window": {},
        "rows": {
            "impressions": {
                "read": total + 25,
                "used": total,
                "duplicates": 5,
                "dead": {"malformed": 18, "bad_timestamp": 2},
            },
            "clicks": {"read": 900, "used": 890, "duplicates": 0, "dead": {"orphan": 10}},
        },
        "examples": {"exploded": total, "dead": {}, **sizes},
        "labels": labels,
        "misfits": {"impressions": {"price": 18}},
    }


SPLITS = {s: _columns(n, seed) for seed, (s, n) in enumerate(NUM_ROWS.items())}
PREVIOUS = {s: _columns(n, seed + 10) for seed, (s, n) in enumerate(NUM_ROWS.items())}


def _judge(
    splits: dict[str, Columns] | None = None,
    previous: dict[str, Columns] | None = None,
    accounts: dict[str, Any] | None = None,
    limits: Limits = LIMITS,
) -> Verdict:
    splits = splits if splits is not None else SPLITS
    return judge(
        RANKING,
        limits,
        accounts if accounts is not None else _accounts(splits),
        training_schema(RANKING, ()),
        {s: _remembered(c) for s, c in splits.items()},
        {s: _remembered(c) for s, c in previous.items()} if previous is not None else None,
    )


def _remembered(columns: Columns) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Computes the statistics of the unchanged splits once."""
    for original in (*SPLITS.values(), *PREVIOUS.values()):
        if columns is original:
            if id(columns) not in _STATISTICS:
                _STATISTICS[id(columns)] = _statistics(columns)
            return _STATISTICS[id(columns)]
    return _statistics(columns)


_STATISTICS: dict[int, statistics_pb2.DatasetFeatureStatisticsList] = {}


def _changed(**columns: Any) -> dict[str, Columns]:
    """Returns the splits with some train columns replaced."""
    replaced = {name: list(values) for name, values in columns.items()}
    return {**SPLITS, "train": {**SPLITS["train"], **replaced}}


def _only_reason(verdict: Verdict) -> str:
    assert not verdict.passed
    assert len(verdict.reasons) == 1, verdict.reasons
    return verdict.reasons[0]


def test_clean_data_passes() -> None:
    verdict = _judge()
    assert verdict == Verdict("data_gate", True, (), verdict.details)
    assert verdict.details["warnings"] == []
    assert verdict.details["num_rows"] == NUM_ROWS
    assert verdict.details["previous_window"] is False


def test_clean_data_passes_against_the_previous_window() -> None:
    verdict = _judge(previous=PREVIOUS)
    assert verdict.passed, verdict.reasons
    assert verdict.details["previous_window"] is True


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("rows", "clicks", "used"), "stream clicks"),
        (("examples", "train"), "examples"),
        (("labels", "watch", "by_split", "test", "rows"), "output watch"),
    ],
)
def test_accounts_that_do_not_add_up_are_refused(path: tuple[str, ...], expected: str) -> None:
    accounts = _accounts(SPLITS)
    inner = accounts
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] -= 1
    verdict = _judge(accounts=accounts)
    assert not verdict.passed
    assert any(expected in r and "do not add up" in r for r in verdict.reasons)


def test_rows_outside_the_window_are_part_of_the_sum() -> None:
    accounts = _accounts(SPLITS)
    accounts["examples"]["exploded"] += 12
    accounts["examples"]["outside"] = 12
    assert _judge(accounts=accounts).passed


def test_dead_letters_above_the_limit_are_refused_with_the_dominating_reason() -> None:
    accounts = _accounts(SPLITS)
    accounts["rows"]["clicks"] = {
        "read": 1000, "used": 900, "duplicates": 0, "dead": {"orphan": 80, "malformed": 20},
    }  # fmt: skip
    reason = _only_reason(_judge(accounts=accounts))
    for part in ("stream clicks", "100 of 1000", "10.00%", "5.00%", "80 orphan", "remedy"):
        assert part in reason
    accounts["misfits"]["clicks"] = {"depth": 15, "seconds": 5}
    assert "fit their column: 15 depth, 5 seconds" in _only_reason(_judge(accounts=accounts))


def test_dead_letters_at_the_limit_pass() -> None:
    accounts = _accounts(SPLITS)
    accounts["rows"]["clicks"] = {
        "read": 1000, "used": 950, "duplicates": 0, "dead": {"orphan": 50},
    }  # fmt: skip
    assert _judge(accounts=accounts).passed


def test_missing_days_are_noticed() -> None:
    accounts = _accounts(SPLITS)
    days = ("2026-01-30", "2026-01-31", "2026-02-02", "2026-02-05")
    for label in accounts["labels"].values():
        label["by_day"] = {day: {} for day in days}
    verdict = _judge(accounts=accounts)
    assert verdict.passed
    assert verdict.details["warnings"] == [
        "impressions: 3 day(s) without a row: 2026-02-01, 2026-02-03, 2026-02-04"
    ]


def test_an_empty_stream_is_no_dead_letter_rate() -> None:
    accounts = _accounts(SPLITS)
    accounts["rows"]["clicks"] = {"read": 0, "used": 0, "duplicates": 0, "dead": {}}
    assert _judge(accounts=accounts).passed


def test_impossible_labels_are_a_warning() -> None:
    accounts = _accounts(SPLITS)
    accounts["labels"]["watch"]["by_split"]["train"]["impossible"] = 7
    mature = sum(c["mature"] for c in accounts["labels"]["watch"]["by_split"].values())
    verdict = _judge(accounts=accounts)
    assert verdict.passed
    told = "final labels (column watched) are not 0 or more and do not count"
    assert verdict.details["warnings"] == [f"task watch: 7 of {mature + 7} {told}"]


def test_too_few_mature_test_rows_are_refused_with_the_numbers() -> None:
    reason = _only_reason(_judge(limits=LIMITS.model_copy(update={"min_rows": 500})))
    mature = _accounts(SPLITS)["labels"]["watch"]["by_split"]["test"]["mature"]
    told = f"{mature} mature test rows with clicked true (of 1000)"
    for part in ("task watch", told, "min_rows 500", "remedy"):
        assert part in reason


def test_too_few_positives_are_refused_with_the_numbers() -> None:
    positives = _accounts(SPLITS)["labels"]["purchase"]["by_split"]["test"]["sum"]
    limits = LIMITS.model_copy(update={"min_positives": int(positives) + 1})
    reason = _only_reason(_judge(limits=limits))
    for part in ("task purchase", f"{positives:g} positives", "1000", "min_positives", "remedy"):
        assert part in reason


def test_an_all_zero_label_of_a_gated_task_is_refused() -> None:
    zeros = np.zeros(NUM_ROWS["train"])
    verdict = _judge(_changed(purchase__label=zeros, purchase_given_click__label=zeros))
    reason = _only_reason(verdict)
    for part in ("task purchase", "zero in all 4000", "column bought", "remedy"):
        assert part in reason


def test_a_constant_positive_label_of_a_gated_task_is_refused() -> None:
    mask = SPLITS["train"]["watch__mask"]
    reason = _only_reason(_judge(_changed(watch__label=np.multiply(mask, 12.5))))
    assert "task watch" in reason
    assert "12.5 in all" in reason


def test_a_gated_label_without_a_mature_row_is_refused() -> None:
    zeros = np.zeros(NUM_ROWS["train"])
    verdict = _judge(_changed(watch__label=zeros, watch__mask=zeros, watch__weight=zeros))
    assert "none of the 4000 train rows has a mature label" in _only_reason(verdict)


def test_a_constant_label_of_an_auxiliary_task_is_only_reported() -> None:
    verdict = _judge(_changed(like__label=np.zeros(NUM_ROWS["train"])))
    assert verdict.passed
    assert any("task like" in w for w in verdict.details["warnings"])


def test_a_constant_and_an_entirely_missing_feature_are_only_reported() -> None:
    num_rows = NUM_ROWS["train"]
    splits = _changed(device=[b"phone"] * num_rows, price=[None] * num_rows)
    for split in ("validation", "test"):
        splits[split] = {**SPLITS[split], "price": [None] * NUM_ROWS[split]}
    verdict = _judge(splits)
    assert verdict.passed, verdict.reasons
    assert verdict.details["warnings"] == [
        "column device: constant in the train split",
        "column price: no train row has a value",
    ]


def test_a_feature_missing_from_every_example_is_only_reported() -> None:
    splits = copy.deepcopy(SPLITS)
    for columns in splits.values():
        del columns["price"]
    verdict = _judge(splits)
    assert verdict.passed, verdict.reasons
    assert "column price: no train row has a value" in verdict.details["warnings"]


def test_a_vanished_feature_is_refused() -> None:
    splits = copy.deepcopy(SPLITS)
    for columns in splits.values():
        columns["price"] = [None] * len(columns["user"])
    verdict = _judge(splits, PREVIOUS)
    assert not verdict.passed
    reasons = [r for r in verdict.reasons if "vanished" in r]
    assert len(reasons) == 1
    for part in ("column price", "0.0%", "100.0%", "max_drift", "remedy"):
        assert part in reasons[0]


def test_a_jump_of_the_missing_rate_is_refused() -> None:
    price = [p if i % 2 else None for i, p in enumerate(SPLITS["train"]["price"])]
    verdict = _judge(_changed(price=price), PREVIOUS)
    assert any("column price" in r and "50.0%" in r for r in verdict.reasons)


@pytest.mark.parametrize(
    ("column", "values", "distance"),
    [
        ("device", [b"tv"] * 4000, "L-infinity"),
        ("price", list(np.linspace(100.0, 120.0, 4000)), "Jensen-Shannon"),
    ],
)
def test_drift_of_a_request_feature_is_refused(
    column: str, values: list[Any], distance: str
) -> None:
    reason = _only_reason(_judge(_changed(**{column: values}), PREVIOUS))
    for part in (f"column {column}", distance, "limit max_drift 0.3", "remedy"):
        assert part in reason


def test_labels_and_keys_are_not_compared_as_features() -> None:
    previous = copy.deepcopy(PREVIOUS)
    num_rows = NUM_ROWS["train"]
    previous["train"]["item__key"] = [b"same"] * num_rows
    previous["train"]["like__label"] = [1.0] * num_rows
    verdict = _judge(previous=previous)
    assert verdict.passed, verdict.reasons


def test_a_jump_of_a_label_rate_is_refused() -> None:
    rng = np.random.default_rng(5)
    twice = (rng.random(NUM_ROWS["train"]) < 0.4).astype(float)
    reason = _only_reason(_judge(_changed(click__label=twice), PREVIOUS))
    for part in ("task click", "rate", "max_drift 30.0%", "remedy"):
        assert part in reason


def test_labels_taken_as_they_arrive_are_compared_split_by_split() -> None:
    content = RANKING.model_dump(mode="json")
    join = {"stream": "clicks", "aggregate": "any", "window": "1h"}
    content["columns"]["clicked"]["join"] = join
    content["tasks"]["click"]["immature"] = "fake_negative"
    ranking = RankingSpec.model_validate_json(json.dumps(content))

    def arriving(splits: dict[str, Columns], rate: float) -> dict[str, Columns]:
        """In train a positive is a row of two: label 0.5."""
        rng = np.random.default_rng(7)
        found = {}
        for split, columns in splits.items():
            label = (rng.random(NUM_ROWS[split]) < rate) * (0.5 if split == "train" else 1.0)
            found[split] = {**columns, "click__label": list(label)}
        return found

    def judged(rate: float) -> Verdict:
        splits, previous = arriving(SPLITS, rate), arriving(PREVIOUS, 0.2)
        schema, statistics = (
            training_schema(ranking, ()),
            [{s: _statistics(c) for s, c in each.items()} for each in (splits, previous)],
        )
        return judge(ranking, LIMITS, _accounts(splits), schema, *statistics)

    assert judged(0.2).passed, judged(0.2).reasons
    reason = _only_reason(judged(0.4))
    assert "task click: its label rate rose" in reason
    assert "(split train, validation, test)" in reason


def test_a_rare_label_may_move_by_chance() -> None:
    splits, previous = copy.deepcopy(SPLITS), copy.deepcopy(PREVIOUS)
    for columns, positives in ((splits, 6), (previous, 3)):
        for split, num_rows in NUM_ROWS.items():
            count = positives * num_rows // NUM_ROWS["train"]
            columns[split]["purchase__label"] = [1.0] * count + [0.0] * (num_rows - count)
    verdict = _judge(splits, previous, _accounts(SPLITS))
    assert verdict.passed, verdict.reasons


def test_a_value_outside_the_declared_domain_is_refused() -> None:
    label = [2.0, *SPLITS["train"]["click__label"][1:]]
    verdict = _judge(_changed(click__label=label))
    assert any("column click__label" in r and "(split train)" in r for r in verdict.reasons)


def test_a_feature_the_configuration_does_not_know_is_refused() -> None:
    verdict = _judge(_changed(surprise=[1.0] * NUM_ROWS["train"]))
    assert any("column surprise" in r for r in verdict.reasons)


def test_a_feature_of_another_type_is_refused() -> None:
    verdict = _judge(_changed(price=[b"ten"] * NUM_ROWS["train"]))
    assert any("column price" in r for r in verdict.reasons)


def test_an_empty_split_is_refused() -> None:
    splits = dict(SPLITS, validation={name: [] for name in SPLITS["validation"]})
    verdict = _judge(splits)
    assert any("validation" in r for r in verdict.reasons)


@pytest.mark.parametrize(
    ("score", "is_told"),
    [
        ({}, True),
        ({"log": ["watch"]}, True),
        ({"kind": "product"}, False),
        ({"weights": {"click": 1.0}}, False),
    ],
)
def test_a_score_that_nobody_weighed_is_told(score: dict[str, Any], is_told: bool) -> None:
    content = RANKING.model_dump(mode="json") | {"score": score}
    warnings = score_warnings(RankingSpec.model_validate_json(json.dumps(content)))
    assert bool(warnings) == is_told
    if is_told:
        assert "click (binary), purchase (binary), watch (duration)" in warnings[0]
    alike = content | {"tasks": {"click": content["tasks"]["click"]}, "score": {}}
    assert score_warnings(RankingSpec.model_validate_json(json.dumps(alike))) == []


def test_a_run_without_any_gate_is_refused() -> None:
    content = RANKING.model_dump(mode="json")
    for task in content["tasks"].values():
        task["gates"] = {}
    verdict = judge(
        RankingSpec.model_validate_json(json.dumps(content)),
        LIMITS,
        _accounts(SPLITS),
        training_schema(RANKING, ()),
        {s: _remembered(c) for s, c in SPLITS.items()},
        None,
    )
    assert "no task has gates" in _only_reason(verdict)


def test_unknown_limits_are_an_error() -> None:
    with pytest.raises(ValueError, match="max_dead_rte"):
        Limits.model_validate_json('{"max_dead_rte": 1}')
