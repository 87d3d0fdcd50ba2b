"""Changes planted in the newest day of simulated logs are found and named; none is invented."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from components.data_gate.finding import Finding
from components.data_gate.gate import Statistics, judge
from components.data_gate.limits import Limits
from components.data_gate.schema_check import load_tfdv
from components.data_gate.traffic import traffic_findings
from components.log_example_gen.build import BuiltExamples, build_examples, read_logs
from components.log_example_gen.reader import ReadResult
from components.log_example_gen.row_names import EVENT_TIMESTAMP
from components.log_example_gen.spec import DatasetSpec
from components.verdict import Verdict
from models.schema import training_schema
from models.spec.keys import TIMESTAMP
from models.spec.ranking import IMPRESSIONS
from pipeline.config import Config
from pipeline.load import load_config
from pipeline.plan import make_dataset
from simulator.simulate import SimulationConfig, simulate

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "examples" / "simulated" / "config.yaml"
BEFORE, NOW = "2026-01-07", "2026-01-08"
HOUR = 3_600_000

Logs = dict[str, ReadResult]
Change = Callable[[pl.DataFrame], pl.DataFrame]

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Window:
    config: Config
    spec: DatasetSpec
    logs: Logs
    built: BuiltExamples
    statistics: Statistics


def _statistics(frame: pl.DataFrame) -> Any:
    """Computes what StatisticsGen would have written."""
    arrays = {}
    for name in frame.columns:
        values = frame[name]
        if isinstance(values.dtype, pl.Array):
            values = values.arr.to_list()
        if isinstance(values.dtype, pl.List):
            lists = values.to_arrow()
            flat, lengths = lists.values, values.list.len().fill_null(0).to_numpy()
        else:
            flat, lengths = values.drop_nulls().to_arrow(), values.is_not_null().to_numpy()
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        if pa.types.is_large_string(flat.type) or pa.types.is_string_view(flat.type):
            flat = flat.cast(pa.binary())
        # A missing scalar is a feature without values, which decodes as null.
        absent = np.append(values.is_null().to_numpy(), False)
        arrays[name] = pa.ListArray.from_arrays(pa.array(offsets, mask=absent), flat)
    load_tfdv()
    from tensorflow_data_validation.statistics import stats_impl, stats_options

    return stats_impl.generate_statistics_in_memory(
        pa.RecordBatch.from_pydict(arrays), stats_options.StatsOptions()
    )


def _window(
    config: Config, date: str, change: Callable[[Logs], Logs] = lambda logs: logs
) -> Window:
    spec = make_dataset(config, date, None)
    logs = change(read_logs(spec))
    built = build_examples(spec, logs)
    statistics = {split: _statistics(frame) for split, frame in built.examples.items()}
    return Window(config, spec, logs, built, statistics)


def _config(seed: int, folder: Path, impressions: int) -> Config:
    logs = folder / f"seed-{seed}"
    simulate(SimulationConfig(impressions=impressions, seed=seed), logs)
    return load_config(CONFIG, [f"logs.root={logs}", "evaluation.min_rows=50",
                                "evaluation.min_positives=1"])  # fmt: skip


def _judge(before: Window, now: Window, **limits: Any) -> Verdict:
    checks = now.config.data_checks.model_dump() | {
        "min_rows": now.config.evaluation.min_rows,
        "min_positives": now.config.evaluation.min_positives,
    }
    return judge(
        now.config.ranking,
        Limits.model_validate(checks | limits),
        now.built.accounts,
        training_schema(now.config.ranking.examples_view, now.spec.slice_columns),
        now.statistics,
        before.statistics,
        before.built.accounts,
    )


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Window:
    return _window(_config(0, tmp_path_factory.mktemp("logs"), 20_000), BEFORE)


def _newest(start: int, stream: str, change: Change) -> Callable[[Logs], Logs]:
    """Changes the rows of one log from a time on."""
    time = TIMESTAMP if stream == IMPRESSIONS else EVENT_TIMESTAMP

    def changed(logs: Logs) -> Logs:
        table = pl.DataFrame(logs[stream].table)
        old, new = table.filter(pl.col(time) < start), table.filter(pl.col(time) >= start)
        rows = pl.concat([old, change(new).select(old.columns)])
        lost = len(table) - len(rows)
        log = logs[stream]
        return logs | {stream: replace(log, table=rows.to_arrow(), num_read=log.num_read - lost)}

    return changed


def _set(column: str, value: pl.Expr) -> Change:
    return lambda rows: rows.with_columns(value.alias(column))


def _found(verdict: Verdict) -> set[tuple[str, str, str]]:
    return {(c["kind"], c["subject"], c["name"]) for c in verdict.details["changes"]}


def _reason(verdict: Verdict, kind: str, name: str) -> str:
    assert not verdict.passed
    (change,) = [c for c in verdict.details["changes"] if (c["kind"], c["name"]) == (kind, name)]
    (text,) = [r for r in verdict.reasons if f"{name}: [{kind}]" in r]
    for part in (change["before"], change["after"], change["limit"], change["remedy"]):
        assert part and part in text
    return text


def _shifted(milliseconds: int, column: str = EVENT_TIMESTAMP) -> Change:
    return _set(column, pl.col(column) + milliseconds)


PLANTED: dict[str, tuple[str, Change, tuple[str, str], str]] = {
    "a new category": (
        IMPRESSIONS,
        _set("device", pl.col("device").replace("tablet", "slate_pc")),
        ("new_category", "device"),
        "slate_pc",
    ),
    "a vanished feature": (
        IMPRESSIONS,
        _set("item_quality", pl.lit(None, pl.Float64)),
        ("vanished", "item_quality"),
        "no row has a value",
    ),
    "seconds to milliseconds in a feature": (
        IMPRESSIONS,
        _set("item_length_seconds", pl.col("item_length_seconds") * 1000),
        ("unit_change", "item_length_seconds"),
        "times as large",
    ),
    "seconds to milliseconds in a target": (
        "dwell",
        _set("seconds", pl.col("seconds") * 1000),
        ("unit_change", "watch_seconds"),
        "times as large",
    ),
    "a broken join": (
        "clicks",
        _set("request_id", "x" + pl.col("request_id")),
        ("broken_join", "clicks"),
        "keys of no impression",
    ),
    "a clock five minutes fast": (
        "clicks", _shifted(300_000), ("clock_shift", "clicks"), "delays between",
    ),
    "a clock ten minutes slow": (
        "clicks", _shifted(-600_000), ("clock_shift", "clicks"), "before their impressions",
    ),
    "a lost partition": (
        "dwell",
        lambda rows: rows.filter(pl.col("event__timestamp") % 10 < 2),
        ("volume_drop", "dwell"),
        "too few rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_change_is_found_and_named(before: Window, planted: str) -> None:
    stream, change, (kind, name), words = PLANTED[planted]
    now = _window(before.config, NOW, _newest(before.spec.window.test_end, stream, change))
    verdict = _judge(before, now)
    assert words in _reason(verdict, kind, name)
    waived = _judge(before, now, waived={name: [kind]})
    assert any("waived: " in w and name in w for w in waived.details["warnings"])
    assert not any(f"{name}: [{kind}]" in r for r in waived.reasons)
    assert _found(waived) == _found(verdict)


def test_a_broken_join_shows_as_a_label_rate_that_falls(before: Window) -> None:
    broken = _newest(
        before.spec.window.test_end, "clicks", _set("request_id", "x" + pl.col("request_id"))
    )
    verdict = _judge(before, _window(before.config, NOW, broken))
    text = _reason(verdict, "label_rate", "click")
    assert "fell (column clicked, joined from clicks)" in text and "split test" in text


def _traffic(config: Config, now: Logs | None = None) -> list[Finding]:
    """Compares the logs of the newest day, changed or not, with those before it."""
    accounts = []
    for date in (BEFORE, NOW):
        spec = make_dataset(config, date, None)
        logs = now if now is not None and date == NOW else read_logs(spec)
        accounts.append(build_examples(spec, logs).accounts)
    checks = config.data_checks.model_dump() | {"min_rows": 1, "min_positives": 1}
    findings, not_compared = traffic_findings(
        accounts[1], accounts[0], Limits.model_validate(checks)
    )
    assert not not_compared
    return findings


@pytest.mark.parametrize("hours", [3, -5])
def test_a_shifted_time_zone_is_found(hours: int, tmp_path: Path) -> None:
    """Every log runs some hours late or early, so no delay and no join tells."""
    config = _config(0, tmp_path, 60_000)
    spec = make_dataset(config, NOW, None)
    end_before = make_dataset(config, BEFORE, None).window.test_end
    logs = read_logs(spec)
    for stream in logs:
        time = TIMESTAMP if stream == IMPRESSIONS else EVENT_TIMESTAMP
        logs = _newest(end_before, stream, _shifted(hours * HOUR, time))(logs)
    found = {(f.kind, f.name): f for f in _traffic(config, logs)}
    shift = found["clock_shift", IMPRESSIONS]
    assert shift.what.endswith(f"its day runs {abs(hours)} h {'later' if hours > 0 else 'earlier'}")
    assert {kind for kind, _ in found} == {"clock_shift"}


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_unchanged_world_raises_no_alarm(seed: int, tmp_path: Path) -> None:
    config = _config(seed, tmp_path, 20_000)
    verdict = _judge(_window(config, BEFORE), _window(config, NOW))
    assert verdict.passed, verdict.reasons
    assert verdict.details["changes"] == []
