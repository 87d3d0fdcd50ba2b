"""The simulated logs: reproducible, exactly as faulty as they say, and as learnable as promised."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from models.spec.errors import ConfigError, DataError
from simulator.behaviour import Attention, Behaviour, TruncatedLogNormal, share_converted_within
from simulator.oracle import grouped_auc, xauc
from simulator.population import draw_world
from simulator.simulate import SimulationConfig, simulate
from simulator.traffic import draw_slates

STREAMS = ("impressions", "clicks", "conversions", "dwell", "scroll", "returns")
HOUR_MS = 3_600_000
YEAR_2000_MS = 946_684_800_000
FAULTY = dict(duplicate_rate=0.02, late_rate=0.03, orphan_rate=0.02, malformed_rate=0.02)
SMALL = dict(days=2, impressions=3_000, seed=5, **FAULTY)


@dataclass(frozen=True, eq=False)
class Simulation:
    root: Path
    summary: dict[str, Any]

    @functools.cached_property
    def truth(self) -> pd.DataFrame:
        return pq.read_table(self.root / "_truth" / "truth.parquet").to_pandas()

    def read(self, stream: str) -> pd.DataFrame:
        """All rows as they lie there, with the folder's date and unreadable times as missing."""
        parts = []
        for path in sorted((self.root / stream).glob("date=*/*")):
            part = _read_file(path)
            part["folder"] = path.parent.name.removeprefix("date=")
            parts.append(part)
        rows = pd.concat(parts, ignore_index=True)
        rows["timestamp"] = pd.to_numeric(rows["timestamp"], errors="coerce")
        return rows

    @functools.cache  # noqa: B019 (lives as long as the module's fixtures)
    def clean(self, stream: str) -> pd.DataFrame:
        """What a careful reader keeps: whole rows, once, within four days of their impression."""
        rows = _whole(self.read(stream)).drop(columns="folder").drop_duplicates()
        if stream == "impressions":
            return rows
        joined = rows.merge(_shown_times(self, stream), on=_keys(stream))
        return joined[joined["timestamp"] - joined["shown_ms"] < 96 * HOUR_MS]


def _read_file(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pq.ParquetFile(path).read().to_pandas()
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return pd.DataFrame(rows)
    convert = pyarrow.csv.ConvertOptions(
        column_types={"timestamp": "string"}, strings_can_be_null=True
    )
    return pyarrow.csv.read_csv(path, convert_options=convert).to_pandas()


def _whole(rows: pd.DataFrame) -> pd.DataFrame:
    kept = rows[rows["request_id"].notna() & (rows["timestamp"] > YEAR_2000_MS)].copy()
    kept["timestamp"] = kept["timestamp"].astype("int64")
    return kept


def _keys(stream: str) -> list[str]:
    return ["request_id"] if stream == "returns" else ["request_id", "item_id"]


def _shown_times(simulation: Simulation, stream: str) -> pd.DataFrame:
    shown = simulation.clean("impressions").rename(columns={"timestamp": "shown_ms"})
    return shown[[*_keys(stream), "shown_ms"]].drop_duplicates()


def _hashes(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _simulated(root: Path, **settings: Any) -> Simulation:
    return Simulation(root, simulate(SimulationConfig(**settings), root))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    root = tmp_path_factory.mktemp("faulty")
    return _simulated(root, days=3, impressions=20_000, seed=11, **FAULTY)


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return _simulated(tmp_path_factory.mktemp("week"), seed=1)


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Simulation]:
    return {
        name: _simulated(tmp_path_factory.mktemp(name), file_format=name, **SMALL)
        for name in ("parquet", "csv", "jsonl")
    }


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first = simulate(SimulationConfig(**SMALL), tmp_path / "a")
    again = simulate(SimulationConfig(**SMALL), tmp_path / "b")
    other = simulate(SimulationConfig(**{**SMALL, "seed": 6}), tmp_path / "c")
    assert first == again
    assert _hashes(tmp_path / "a") == _hashes(tmp_path / "b")
    theirs = _hashes(tmp_path / "c")
    assert other["oracle"] != first["oracle"]
    unchanged = [
        name for name, digest in _hashes(tmp_path / "a").items() if theirs.get(name) == digest
    ]
    assert unchanged == []


@pytest.mark.parametrize("stream", STREAMS)
def test_planted_faults_are_found_exactly(faulty: Simulation, stream: str) -> None:
    rows = faulty.read(stream)
    found = _count_faults(faulty, stream, rows)
    told = faulty.summary["faults"][stream]
    assert found == told
    assert told["rows"] == len(rows)
    assert told["duplicates"] > 0 and min(told["malformed"].values()) > 0
    if stream != "impressions":
        assert min(told["late_folder"], told["late_window"], told["orphan_requests"]) > 0


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_planted_faults_are_found_in_text_formats(
    formats: dict[str, Simulation], file_format: str
) -> None:
    simulation = formats[file_format]
    for stream in STREAMS:
        rows = simulation.read(stream)
        assert _count_faults(simulation, stream, rows) == simulation.summary["faults"][stream]
    raw = "".join(p.read_text() for p in (simulation.root / "impressions").glob("*/*"))
    unreadable = simulation.summary["faults"]["impressions"]["malformed"]["unreadable_timestamp"]
    assert raw.count("not-a-time") == unreadable > 0


def _count_faults(simulation: Simulation, stream: str, rows: pd.DataFrame) -> dict[str, Any]:
    time = rows["timestamp"]
    malformed = {
        "null_key": int(rows["request_id"].isna().sum()),
        "seconds_timestamp": int(((time > 0) & (time < YEAR_2000_MS)).sum()),
        "negative_timestamp": int((time < 0).sum()),
        "unreadable_timestamp": int(time.isna().sum()),
    }
    whole = _whole(rows)
    once = whole.drop_duplicates()
    found = dict(clean=len(once), late_folder=0, duplicates=len(whole) - len(once), late_window=0)
    found |= dict(orphan_requests=0, orphan_items=0)
    if stream != "impressions":
        requests = set(simulation.clean("impressions")["request_id"])
        joined = once.merge(_shown_times(simulation, stream), on=_keys(stream), how="left")
        known = joined["request_id"].isin(requests)
        paired = joined["shown_ms"].notna()
        in_time = joined["timestamp"] - joined["shown_ms"] < 96 * HOUR_MS
        dates = pd.to_datetime(joined["timestamp"], unit="ms").dt.strftime("%Y-%m-%d")
        found["orphan_requests"] = int((~known).sum())
        found["orphan_items"] = int((known & ~paired).sum())
        found["late_window"] = int((paired & ~in_time).sum())
        found["late_folder"] = int((paired & in_time & (joined["folder"] > dates)).sum())
        found["clean"] = int((paired & in_time).sum())
        assert not (joined["folder"] < dates).any()
    found["rows"] = len(rows)
    return found | {"malformed": malformed}


def test_all_formats_carry_the_same_rows(formats: dict[str, Simulation]) -> None:
    for stream in STREAMS:
        expected = formats["parquet"].read(stream)
        for other in ("csv", "jsonl"):
            found = formats[other].read(stream)[expected.columns]
            pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    summaries = [
        {name: part for name, part in s.summary.items() if name != "config"}
        for s in formats.values()
    ]
    assert summaries[0] == summaries[1] == summaries[2]


def test_careful_reader_recovers_the_true_labels(faulty: Simulation) -> None:
    keys = ["request_id", "item_id"]
    truth = faulty.truth.set_index(keys).sort_index()
    clicks = faulty.clean("clicks").set_index(keys)
    conversions = faulty.clean("conversions").set_index(keys)
    in_window = conversions["timestamp"] - conversions["shown_ms"] < 48 * HOUR_MS
    watched = faulty.clean("dwell").groupby(keys)["seconds"].sum()

    assert not clicks.index.has_duplicates and not conversions.index.has_duplicates
    assert (truth.index.isin(clicks.index) == truth["clicked"]).all()
    assert (truth.index.isin(conversions[in_window].index) == truth["converted"]).all()
    np.testing.assert_allclose(watched.sort_index(), truth["watch_seconds"].dropna(), rtol=1e-9)
    assert conversions.index.isin(clicks.index).all()
    late = conversions["timestamp"] - clicks["timestamp"].reindex(conversions.index)
    assert late.min() >= 60_000 and late.max() <= 72 * HOUR_MS
    assert faulty.clean("scroll")["depth"].between(0, 1).all()
    returned = faulty.clean("returns")
    assert ((returned["timestamp"] - returned["shown_ms"]) < 24 * HOUR_MS).all()


def test_impressions_are_whole_slates(faulty: Simulation) -> None:
    shown = faulty.clean("impressions")
    assert len(shown) == 20_000 == faulty.summary["rows"]["impressions"]
    assert len(shown) == len(faulty.truth)
    assert not shown.duplicated(["request_id", "item_id"]).any()
    slates = shown.groupby("request_id")
    size = slates.size()
    assert len(size) == faulty.summary["rows"]["requests"]
    assert 8.5 < size.mean() < 11 and size.min() <= 2 and size.max() >= 20
    positions = shown.sort_values(["request_id", "position"])["position"].to_numpy()
    assert (positions == np.concatenate([np.arange(n) for n in size])).all()
    context = ["user_id", "timestamp", "device", "hour_of_day", "country", "surface"]
    context += ["user_segment", "user_age_days", "user_activity"]
    assert (slates[context].nunique(dropna=False) == 1).all().all()
    assert (shown["hour_of_day"] == shown["timestamp"] // HOUR_MS % 24).all()
    assert shown["item_category"].groupby(shown["item_id"]).nunique().max() == 1
    missing = shown.isna().mean()
    assert missing["user_age_days"] > 0 and missing["item_quality"] > 0 and missing["country"] > 0
    assert missing[["user_segment", "item_category", "position"]].max() == 0


def test_requests_share_milliseconds_and_users(week: Simulation) -> None:
    requests = week.clean("impressions").drop_duplicates("request_id")
    told = week.summary["rows"]
    assert requests.duplicated("timestamp").sum() == told["simultaneous_requests"] > 100
    same_user = requests.duplicated(["timestamp", "user_id"]).sum()
    assert same_user == told["simultaneous_requests_of_one_user"] > 20


def test_requests_follow_the_day(week: Simulation) -> None:
    requests = week.clean("impressions").drop_duplicates("request_id")
    per_hour = requests.groupby("hour_of_day").size()
    assert per_hour.loc[18:21].mean() > 4 * per_hour.loc[1:4].mean()
    assert requests["timestamp"].diff().dropna().abs().nunique() > 1_000
    days = pd.to_datetime(requests["timestamp"], unit="ms").dt.date
    first = datetime.date(2026, 1, 1)
    assert set(days) == {first + datetime.timedelta(days=n) for n in range(7)}
    folders = {p.name for p in (week.root / "conversions").iterdir()}
    assert "date=2026-01-09" in folders


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rates_and_oracle_are_where_they_should_be(seed: int, tmp_path: Path) -> None:
    summary = simulate(SimulationConfig(seed=seed, impressions=100_000), tmp_path)
    rates, oracle = summary["rates"], summary["oracle"]
    assert 0.12 < rates["click_rate"] < 0.155
    assert 0.11 < rates["conversion_rate_given_click"] < 0.15
    assert 30 < rates["median_watch_seconds"] < 65
    assert rates["mean_watch_seconds"] > 1.5 * rates["median_watch_seconds"]
    assert 0.75 < oracle["click"]["auc"] < 0.80
    assert 0.70 < oracle["click"]["gauc"] < oracle["click"]["auc"]
    assert 0.77 < oracle["conversion"]["auc"] < 0.86
    assert 0.75 < oracle["click"]["normalized_entropy"] < 0.92
    assert 0.5 < oracle["watch_seconds"]["spearman"] < 0.7


def test_oracle_equals_scikit_learn_on_the_truth_file(week: Simulation) -> None:
    truth = week.truth
    _compare_oracle(truth, week.summary["oracle"])
    dates = pd.to_datetime(truth["timestamp"], unit="ms").dt.strftime("%Y-%m-%d")
    assert sorted(week.summary["per_day"]) == sorted(set(dates))
    for date in ("2026-01-01", "2026-01-07"):
        _compare_oracle(truth[dates == date], week.summary["per_day"][date])


def _compare_oracle(truth: pd.DataFrame, told: dict[str, dict[str, float]]) -> None:
    for task, label, prediction in (
        ("click", "clicked", "click_probability"),
        ("conversion", "converted", "conversion_probability"),
    ):
        y, p = truth[label].to_numpy(), truth[prediction].to_numpy()
        loss, base = log_loss(y, p), log_loss(y, np.full(len(y), y.mean()))
        assert told[task]["auc"] == pytest.approx(roc_auc_score(y, p), abs=1e-9)
        assert told[task]["log_loss"] == pytest.approx(loss, abs=1e-9)
        assert told[task]["normalized_entropy"] == pytest.approx(loss / base, abs=1e-9)
    groups = [
        (len(slate), roc_auc_score(slate["clicked"], slate["click_probability"]))
        for _, slate in truth.iloc[:2_000].groupby("request_id")
        if slate["clicked"].nunique() == 2
    ]
    some = truth.iloc[:2_000]
    number = some.groupby("request_id", sort=False).ngroup().to_numpy()
    expected = np.average([a for _, a in groups], weights=[n for n, _ in groups])
    found = grouped_auc(some["clicked"].to_numpy(), some["click_probability"].to_numpy(), number)
    assert found == pytest.approx(expected, abs=1e-12)
    clicked = truth.dropna(subset="watch_seconds")
    actual, median = clicked["watch_seconds"], clicked["median_watch_seconds"]
    assert told["watch_seconds"]["mae"] == pytest.approx((actual - median).abs().mean())
    spearman = stats.spearmanr(actual, median).statistic
    assert told["watch_seconds"]["spearman"] == pytest.approx(spearman)


@pytest.mark.parametrize("distinct", [3, 1_000_000])
def test_metrics_count_ties_as_one_half(distinct: int) -> None:
    rng = np.random.default_rng(3)
    group = np.sort(rng.integers(8, size=300))
    label = rng.random(300) < 0.3
    score = rng.integers(distinct, size=300) + label
    expected = [
        (np.sum(group == g), roc_auc_score(label[group == g], score[group == g])) for g in range(8)
    ]
    gauc = np.average([a for _, a in expected], weights=[n for n, _ in expected])
    assert grouped_auc(label, score.astype(float), group) == pytest.approx(gauc, abs=1e-12)

    actual = rng.integers(6, size=300).astype(float)
    order = np.sign(actual[:, None] - actual) * np.sign(score[:, None] - score)
    differing = actual[:, None] != actual
    pairs = (order[differing] + 1) / 2
    assert xauc(actual, score.astype(float)) == pytest.approx(pairs.mean(), abs=1e-12)


def test_metrics_of_one_class_are_undefined() -> None:
    zeros = np.zeros(4, dtype=bool)
    assert grouped_auc(zeros, np.arange(4.0), np.zeros(4, dtype=np.int64)) is None
    assert xauc(np.ones(4), np.arange(4.0)) is None
    assert xauc(np.arange(4.0), np.ones(4)) == 0.5


@pytest.mark.parametrize(
    ("label", "probability"),
    [("clicked", "click_probability"), ("converted", "conversion_probability")],
)
def test_true_probabilities_are_calibrated(week: Simulation, label: str, probability: str) -> None:
    truth = week.truth
    decile = pd.qcut(truth[probability], 10, labels=False)
    for _, rows in truth.groupby(decile):
        p = rows[probability]
        # Items of a request share its intent, so counts vary more than independent ones.
        error = 1.5 * np.sqrt((p * (1 - p)).sum())
        assert abs(rows[label].sum() - p.sum()) < 4 * error
    by_expected = pd.qcut(truth["expected_watch_seconds"], 4, labels=False)
    clicked = truth[truth["clicked"]]
    for _, rows in clicked.groupby(by_expected.loc[clicked.index]):
        assert rows["watch_seconds"].mean() == pytest.approx(
            rows["expected_watch_seconds"].mean(), rel=0.1
        )
        above = (rows["watch_seconds"] > rows["median_watch_seconds"]).mean()
        assert above == pytest.approx(0.5, abs=0.03)


def test_clicks_fall_with_position_and_truth_does_not(week: Simulation) -> None:
    shown = week.clean("impressions").merge(
        week.truth.drop(columns="timestamp"), on=["request_id", "item_id"]
    )
    size = shown.groupby("request_id")["item_id"].transform("size")
    slates = shown[size >= 8]
    rate = slates.groupby("position")["clicked"].mean()
    assert (rate.iloc[:6:2].diff().dropna() < 0).all()
    assert 1.5 < rate[0] / rate[7] < 1.9
    expected = slates.groupby("position")["click_probability"].mean()
    assert expected.iloc[:8].max() < 1.05 * expected.iloc[:8].min()
    # Neither does the size of the slate tell, once the truth is known.
    excess = (shown["clicked"] - shown["click_probability"]).groupby(pd.cut(size, [0, 5, 10, 99]))
    assert excess.mean().abs().max() < 0.012


def test_attention_has_the_same_mean_for_every_slate() -> None:
    attention = Attention(30)
    for size in (1, 2, 10, 30):
        position = np.arange(size)
        probability = attention.probability(position, np.full(size, size))
        assert probability.mean() == pytest.approx(attention.mean)
        assert (np.diff(probability) < 0).all() and probability.min() > 0 and probability.max() < 1


def test_scroll_depth_tells_more_of_conversion_than_the_request(week: Simulation) -> None:
    truth = week.truth.merge(week.clean("scroll"), on=["request_id", "item_id"])
    given_click = (truth["conversion_probability"] / truth["click_probability"]).to_numpy()
    converted = truth["converted"].to_numpy()
    request_only = np.log(given_click / (1 - given_click))[:, None]
    with_depth = np.column_stack([request_only, truth["depth"]])
    model = LogisticRegression().fit(with_depth[::2], converted[::2])
    gain = roc_auc_score(converted[1::2], model.decision_function(with_depth[1::2]))
    gain -= roc_auc_score(converted[1::2], request_only[1::2, 0])
    assert gain > 0.04


def test_tasks_share_factors_but_not_all(week: Simulation) -> None:
    truth = week.truth
    given_click = truth["conversion_probability"] / truth["click_probability"]
    shared = stats.spearmanr(truth["click_probability"], given_click).statistic
    assert 0.2 < shared < 0.8


def test_items_appear_and_drift() -> None:
    config = SimulationConfig()
    items = draw_world(config, np.random.default_rng(0)).items
    exists = np.isfinite(items.log_supply)
    assert 0.04 < (~exists[0]).mean() < 0.12
    assert exists[-1].all()
    assert (np.diff(exists.astype(int), axis=0) >= 0).all()
    moved = items.log_supply[-1] - items.log_supply[0]
    assert np.std(moved[exists[0]]) > 0.05
    assert np.std((items.click_effect[-1] - items.click_effect[0])[exists[0]]) > 0.05


def test_no_item_is_shown_before_it_exists() -> None:
    config = SimulationConfig(impressions=20_000)
    world = draw_world(config, np.random.default_rng(2))
    slates = draw_slates(world, 3, 20_000, np.random.default_rng(3))
    block = 3 * 4 + (slates.time_ms % (24 * HOUR_MS)) // (6 * HOUR_MS)
    assert np.isfinite(world.items.log_supply[block[slates.request], slates.item]).all()
    assert (np.diff(slates.time_ms) >= 0).all()


def test_truth_is_the_mean_over_what_is_hidden() -> None:
    config = SimulationConfig(impressions=4_000, num_users=200, num_items=50)
    world = draw_world(config, np.random.default_rng(7))
    slates = draw_slates(world, 0, 4_000, np.random.default_rng(8))
    behaviour = Behaviour(world).calibrated(slates)
    expected = behaviour.truth(slates)
    num_draws = 200
    clicks = conversions = 0
    rng = np.random.default_rng(9)
    for _ in range(num_draws):
        drawn = behaviour.draw(slates, rng)
        clicks += len(drawn.row)
        delay = drawn.conversion_ms - slates.time_ms[slates.request[drawn.row]]
        conversions += int(((drawn.conversion_ms > 0) & (delay < 48 * HOUR_MS)).sum())
    assert clicks / num_draws == pytest.approx(expected.click_probability.sum(), rel=0.01)
    expected_conversions = expected.conversion_probability.sum()
    assert conversions / num_draws == pytest.approx(expected_conversions, rel=0.03)
    assert expected.click_probability.mean() == pytest.approx(0.135, abs=1e-3)


def test_delays_follow_their_distribution() -> None:
    delay = TruncatedLogNormal(1_000.0, 1.5, 50.0, 20_000.0)
    drawn = delay.draw(200_000, np.random.default_rng(0))
    assert drawn.min() >= 50 and drawn.max() <= 20_000
    for point in (100.0, 1_000.0, 10_000.0):
        below = float(delay.share_below(np.array([point]))[0])
        assert np.mean(drawn < point) == pytest.approx(below, abs=0.005)
    assert share_converted_within(96) == pytest.approx(1.0)
    assert 0.9 < share_converted_within(24) < share_converted_within(48) < 0.999


def test_conversion_window_changes_the_truth_and_not_the_logs(tmp_path: Path) -> None:
    short = simulate(SimulationConfig(**SMALL, conversion_window_hours=2.0), tmp_path / "short")
    long = simulate(SimulationConfig(**SMALL), tmp_path / "long")
    rate = "conversion_rate_given_click"
    assert short["rates"][rate] < 0.8 * long["rates"][rate]
    short_files, long_files = _hashes(tmp_path / "short"), _hashes(tmp_path / "long")
    differing = {name for name in long_files if short_files[name] != long_files[name]}
    assert differing == {"_truth/oracle.json", "_truth/truth.parquet"}


@pytest.mark.slow
def test_request_columns_are_enough_to_come_close_to_the_oracle(week: Simulation) -> None:
    """Five days of logs and a linear model with crosses: within .012 AUC on the last day."""
    truth = week.truth.drop(columns="timestamp")
    rows = week.clean("impressions").merge(truth, on=["request_id", "item_id"])
    day = (rows["timestamp"] - rows["timestamp"].min()) // (24 * HOUR_MS)
    numbers = ["user_activity", "item_quality", "item_length_seconds"]
    rows["item_length_seconds"] = np.log(rows["item_length_seconds"])
    rows[numbers] = rows[numbers].fillna(rows[numbers].median())
    rows["cross"] = rows["user_segment"] + rows["item_category"]
    names = ["cross", "user_segment", "item_category", "surface", "device", "hour_of_day"]
    from sklearn.compose import make_column_transformer

    model = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), names), (StandardScaler(), numbers)
        ),
        LogisticRegression(C=0.3, max_iter=300),
    )
    train, test = rows[day <= 4], rows[day == 6]
    assert len(train) > 130_000
    model.fit(train[names + numbers], train["clicked"])
    reached = roc_auc_score(test["clicked"], model.predict_proba(test[names + numbers])[:, 1])
    best = roc_auc_score(test["clicked"], test["click_probability"])
    assert 0.0 < best - reached < 0.012


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (dict(days=0), "'days'"),
        (dict(days=2.5), "'days'"),
        (dict(impressions=30), "'impressions'"),
        (dict(seed=-1), "'seed'"),
        (dict(seed=True), "'seed'"),
        (dict(malformed_rate=1.5), "'malformed_rate'"),
        (dict(late_rate=float("nan")), "'late_rate'"),
        (dict(duplicate_rate="many"), "'duplicate_rate'"),
        (dict(num_items=3), "'num_items'"),
        (dict(num_users=1), "'num_users'"),
        (dict(slate_size=0.5), "'slate_size'"),
        (dict(conversion_window_hours=200), "'conversion_window_hours'"),
        (dict(file_format="parket"), "did you mean 'parquet'"),
        (dict(start="01.01.2026"), "'start'"),
        (dict(start="1970-01-01"), "'start'"),
        (dict(start="20260101"), "'start'"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SimulationConfig(**settings)
    message = str(caught.value)
    assert told in message and "remedy" in message
    assert repr(next(iter(settings.values()))) in message


def test_logs_are_not_overwritten_unless_asked(tmp_path: Path) -> None:
    simulate(SimulationConfig(**SMALL), tmp_path)
    before = _hashes(tmp_path)
    with pytest.raises(DataError, match="without logs"):
        simulate(SimulationConfig(**{**SMALL, "seed": 9}), tmp_path)
    assert _hashes(tmp_path) == before
    simulate(SimulationConfig(**{**SMALL, "seed": 9, "days": 1}), tmp_path, overwrite=True)
    assert {p.name for p in (tmp_path / "impressions").iterdir()} == {"date=2026-01-01"}


def test_logs_of_others_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "clicks").mkdir()
    (tmp_path / "clicks" / "mine.csv").write_text("a\n1\n")
    with pytest.raises(DataError):
        simulate(SimulationConfig(**SMALL), tmp_path, overwrite=True)
    assert (tmp_path / "clicks" / "mine.csv").exists()


def test_leftovers_of_a_killed_simulation_do_not_matter(tmp_path: Path) -> None:
    leftover = tmp_path / ".incomplete" / "clicks"
    leftover.mkdir(parents=True)
    (leftover / "half.parquet").write_bytes(b"PAR1")
    simulate(SimulationConfig(**SMALL), tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {*STREAMS, "_truth"}


def test_target_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match="written to"):
        simulate(SimulationConfig(**SMALL), tmp_path / "out")


@pytest.mark.parametrize(
    "settings",
    [
        dict(days=1, impressions=20),
        dict(days=1, impressions=300, slate_size=1.0),
        dict(days=1, impressions=2_000, slate_size=200.0, num_items=20, num_users=10),
        dict(days=30, impressions=900, duplicate_rate=0.5, late_rate=0.5, orphan_rate=0.5),
    ],
)
def test_extreme_sizes_work(settings: dict[str, Any], tmp_path: Path) -> None:
    simulation = _simulated(tmp_path, **settings)
    assert len(simulation.truth) == settings["impressions"]
    assert len(simulation.clean("impressions")) == settings["impressions"]
    assert json.loads((tmp_path / "_truth" / "oracle.json").read_text()) == simulation.summary


def test_package_import_is_light() -> None:
    code = "import sys, simulator; print(sorted({'numpy', 'pyarrow', 'scipy'} & set(sys.modules)))"
    heavy = (
        "import simulator.simulate; print('tensorflow' in sys.modules, 'pipeline' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; {heavy}"], cwd=root, capture_output=True, text=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "False False"], done.stderr
