from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.report.blocks import Figures
from components.report.chart_style import chart, layer, names_channel, number_channel
from components.report.formatting import ABSENT, MINUS, bounds, number, signed, signed_bounds
from components.report.gates import gate_rows
from components.report.headline import headline_metric, judge
from components.report.inputs import ReportInputs
from components.report.outcome import focus_candidate, outcome
from components.report.render import render_report
from components.report.sections import calibration, labels, learning, slices
from components.report.sections.calibration import reliability_bins
from components.report.sections.rows import examples_add_up, stream_adds_up
from components.report.svg import inline_svg
from components.verdict import Verdict
from tests.browser.synthetic_rows import PLANTED, ranking_spec
from tests.browser.synthetic_run import (
    CHAMPION,
    Run,
    failed_at_start,
    make_run,
    refused_before_training,
)

MAX_BYTES = 3_000_000
FELL = (
    f"click AUC changed by {MINUS}.0150 against the previous window's model "
    f"(change at least {MINUS}.01 is allowed, missed by .0050)"
)


class Page(HTMLParser):
    """Tables by name (rows of cell texts), element ids, and every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._table: list[list[str]] | None = None
        self._in_cell = False
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "table":
            self._table = self.tables.setdefault(str(given["aria-label"]), [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table is not None:
            self._table[-1].append("")
            self._in_cell = True
        elif tag == "small" and self._in_cell and self._table is not None:
            self._table[-1][-1] += " | "

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._table = None
        elif tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._in_cell and self._table is not None:
            self._table[-1][-1] += data.strip()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def render(inputs: ReportInputs, folder: Path) -> str:
    render_report(inputs, folder / "index.html")
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def text(run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(run.inputs, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("refused"), min_auc=0.93)


@pytest.fixture
def without_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares tests of words the time of drawing."""
    empty = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
    monkeypatch.setattr("vl_convert.vegalite_to_svg", lambda *_, **__: empty)


# Numbers ---------------------------------------------------------------------------------------


def test_metric_tables_hold_the_summary(run: Run, page: Page) -> None:
    for output in run.inputs.ranking.outputs:
        header, *rows = page.tables[f"{output.name}: metrics on the test window"]
        assert len(header) == 1 + len(output.metrics)
        shown = {row[0].removesuffix("champion"): row[1:] for row in rows}
        for name in run.inputs.candidates:
            for metric, cell in zip(output.metrics, shown[name], strict=True):
                measured = run.inputs.metric(name, output.name, metric)
                assert cell == f"{number(measured['value'])} | {bounds(measured)}"


def test_first_screen_says_what_changed(run: Run, page: Page) -> None:
    table = page.tables[
        f"What changed for each task: {CHAMPION} on the test window, 95 % intervals"
    ]
    header, *rows = table
    by_output = {row[0].split(" | ")[0]: dict(zip(header, row, strict=True)) for row in rows}
    data = run.inputs.report_data
    assert data is not None
    for output in run.inputs.ranking.outputs:
        metric = headline_metric(output, run.inputs.ranking)
        row = by_output[output.name]
        measured = run.inputs.metric(CHAMPION, output.name, metric)
        assert row[CHAMPION] == f"{number(measured['value'])} | {bounds(measured)}"
        paired = data["comparisons"][CHAMPION]["single_task"][output.name][metric]
        expected = f"{signed(paired['value'])} | {signed_bounds(paired)}"
        assert row["Against single_task"] == expected
        best = run.inputs.summary["oracle"][output.name][metric]
        assert row["To the oracle"].startswith(signed(measured["value"] - best))
    assert by_output["click"]["Since the previous window"] == "+.0042 | [+.001, +.007] same rows"
    before = run.inputs.previous_summary["candidates"]["shared_bottom"]["metrics"]  # type: ignore[index]
    was = before["conversion"]["auc"]["value"]
    now = run.inputs.metric(CHAMPION, "conversion", "auc")["value"]
    assert by_output["conversion"]["Since the previous window"].startswith(
        f"{signed(now - was)} | was {number(was)}"
    )


def test_pushed_run_says_so_first(run: Run, text: str) -> None:
    found = outcome(run.inputs)
    assert (found.badge, found.tone) == ("pushed", "good")
    assert found.title == "mmoe was pushed as feed, version 1773273600"
    assert found.reasons[0].startswith("5 of 5 candidates passed every gate; mmoe has")
    assert text.index(found.title) < text.index("<nav")


def test_superseded_run_names_what_is_served(run: Run) -> None:
    newer = {"version": 9, "run_id": "feed-2", "test_end": "2026-03-12T23:59:59.999+00:00"}
    summary = {**run.inputs.summary, "pushed": None, "superseded_by": newer}
    found = outcome(dataclasses.replace(run.inputs, summary=summary))
    assert (found.badge, found.tone) == ("superseded", "")
    assert "because version 9 comes from a newer window (up to 2026-03-12 23:59 UTC)" in found.title
    assert "push.allow_older" in found.reasons[-1]


@pytest.mark.usefixtures("without_charts")
def test_refused_run_says_which_gate_failed_by_how_much(refused: Run, tmp_path: Path) -> None:
    found = outcome(refused.inputs)
    assert (found.badge, found.tone) == ("refused", "bad")
    for name in refused.inputs.candidates:
        value = refused.inputs.metric(name, "click", "auc")["value"]
        sentence = (
            f"{name}: click AUC is {number(value)}, required is at least .93, "
            f"missed by {number(0.93 - value)}."
        )
        assert sentence in found.reasons
        assert sentence in Page(render(refused.inputs, tmp_path)).text
    best = max(
        refused.inputs.candidates,
        key=lambda n: refused.inputs.metric(n, "click", "auc")["value"],
    )
    assert focus_candidate(refused.inputs) == best


def test_gate_table_has_every_bound(run: Run, page: Page) -> None:
    header, *rows = page.tables["Bounds on test metrics"]
    assert header[3:] == [f"{n} (champion)" if n == CHAMPION else n for n in run.inputs.candidates]
    bounds_shown = [tuple(row[:3]) for row in rows]
    assert bounds_shown == [
        ("click", "AUC", "at least .6"),
        ("click", "AUC", f"change at least {MINUS}.01"),
        ("click", "Calibration", "at least .8"),
        ("click", "Calibration", "at most 1.25"),
        ("conversion", "AUC", "at least .55"),
        ("watch_seconds", "Spearman", "at least .1"),
    ]
    value = run.inputs.metric("mmoe_alone", "conversion", "auc")["value"]
    assert rows[4][header.index("mmoe_alone")] == f"{number(value)} | passed"


@pytest.mark.parametrize(
    ("kind", "metric", "threshold", "value", "passed", "sentence"),
    [
        ("value", "calibration", 1.25, 1.3, False, "click Calibration is 1.3000, required is at "
         "most 1.25, missed by .0500"),
        ("value", "calibration", 0.8, 0.75, False, "click Calibration is .7500, required is at "
         "least .8, missed by .0500"),
        ("change", "auc", 0.01, -0.015, False, FELL),
        ("change", "auc", -0.01, -0.015, False, FELL),
        ("value", "auc", 0.6, None, False, "click AUC was not measured (at least .6 is required)"),
    ],
)  # fmt: skip
def test_gate_sentences(
    kind: str, metric: str, threshold: float, value: float | None, passed: bool, sentence: str
) -> None:
    gate = {"task": "click", "metric": metric, "kind": kind, "threshold": threshold}
    summary = {"candidates": {"one": {"gates": [{**gate, "value": value, "passed": passed}]}}}
    (row,) = gate_rows(ReportInputs(summary=summary, ranking=ranking_spec()), "one")
    assert row.sentence == sentence


def test_differences_are_judged_by_their_interval_and_direction() -> None:
    up, down = {"low": 0.01, "high": 0.02}, {"low": -0.02, "high": -0.01}
    assert (judge("auc", up), judge("auc", down)) == ("good", "bad")
    assert (judge("log_loss", up), judge("log_loss", down)) == ("bad", "good")
    assert judge("auc", {"low": -0.01, "high": 0.02}) == "muted"
    assert judge("calibration", up) == "muted"
    assert judge("auc", {}) == "muted"


def test_reliability_bins_equal_a_plain_computation() -> None:
    rng = np.random.default_rng(1)
    prediction = rng.random(5_000)
    label = (rng.random(5_000) < prediction).astype(float)
    weight = np.ones(5_000)
    weight[::7] = 0
    found = reliability_bins(label, prediction, weight)
    present = np.flatnonzero(weight)
    order = present[np.argsort(prediction[present])]
    share = (np.arange(len(order)) + 0.5) / len(order)
    for number_, each in enumerate(found):
        rows = order[np.floor(10 * share) == number_]
        assert each.predicted == pytest.approx(prediction[rows].mean())
        assert each.observed == pytest.approx(label[rows].mean())
        assert each.weight == len(rows)
    assert len(found) == calibration.NUM_BINS


def test_equal_predictions_share_a_bin() -> None:
    (only,) = reliability_bins(np.array([0.0, 1.0]), np.array([0.3, 0.3]), np.ones(2))
    assert (only.predicted, only.observed, only.weight) == (0.3, 0.5, 2)
    assert reliability_bins(np.zeros(3), np.zeros(3), np.zeros(3)) == []


def test_calibration_figure_tells_the_bins_of_the_champion(run: Run, text: str) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(run.inputs.predictions[CHAMPION], filters=[("split", "=", "test")])
    columns = [
        table[f"click__{suffix}"].to_numpy().astype(float)
        for suffix in ("label", "prediction", "weight")
    ]
    last = reliability_bins(*columns)[-1]
    told = f"mmoe highest bin predicted {number(last.predicted)}, observed {number(last.observed)}"
    assert told in text


def test_row_accounts_are_summed(page: Page) -> None:
    _, *rows = page.tables["Rows read from the logs"]
    assert [row[-1] for row in rows] == ["adds up", "adds up"]
    (impressions,) = page.tables["What became of the impressions"][1:]
    assert impressions[-1] == "adds up"
    assert stream_adds_up({"read": 10, "used": 7, "duplicates": 1, "dead": {"a": 1, "b": 1}})
    assert not stream_adds_up({"read": 10, "used": 7, "duplicates": 1, "dead": {"a": 1}})
    assert examples_add_up({"exploded": 6, "dead": 1, "outside": 1, "train": 2, "test": 2})
    assert not examples_add_up({"exploded": 7, "dead": 1, "outside": 1, "train": 2, "test": 2})


def test_what_the_data_gate_noticed_is_told(run: Run, tmp_path: Path) -> None:
    noticed = {"warnings": ["column price: no train row has a value"]}
    inputs = dataclasses.replace(run.inputs, summary=run.inputs.summary | noticed)
    assert "Noticed: column price: no train row has a value." in Page(render(inputs, tmp_path)).text


def test_rows_that_do_not_add_up_are_called_out(tmp_path: Path) -> None:
    text = Page(render(refused_before_training(), tmp_path)).text
    assert "Rows of impressions do not add up: rows were lost or counted twice." in text


def test_label_rates_are_those_of_the_accounts(run: Run, page: Page) -> None:
    counted = run.inputs.accounts["labels"]["click"]["by_split"]["test"]  # type: ignore[index]
    rows = {row[0]: row for row in page.tables["click"][1:]}
    rate = 100 * counted["sum"] / counted["mature"]
    assert rows["test"][1] == f"{counted['rows']:,}"
    assert rows["test"][4] == f"{rate:.1f} %"


def test_a_curve_of_one_epoch_shows_its_value(run: Run) -> None:
    training = json.loads(json.dumps(run.inputs.training["mmoe"]))
    training["epochs"] = [training["epochs"][0] | {"objective": 1.234}]
    inputs = dataclasses.replace(run.inputs, training={"mmoe": training | {"best_epoch": 1}})
    blocks = learning.section(inputs).blocks
    figures = [figure for block in blocks if isinstance(block, Figures) for figure in block.figures]
    (svg,) = (figure.svg for figure in figures if figure.title == "objective")
    assert ">1.23</text>" in svg


def test_a_day_with_a_handful_of_labels_is_not_drawn(run: Run) -> None:
    accounts = json.loads(json.dumps(run.inputs.accounts))
    by_day = accounts["labels"]["click"]["by_day"]
    first, second, *_ = by_day
    least = min(counted["mature"] for counted in by_day.values())
    by_day[first] |= {"mature": least // 20, "sum": 0.0}
    blocks = labels.section(dataclasses.replace(run.inputs, accounts=accounts)).blocks
    figures = [figure for block in blocks if isinstance(block, Figures) for figure in block.figures]
    (svg,) = (figure.svg for figure in figures if figure.title == "click: label rate by day")
    (told,) = re.findall("<desc[^>]*>([^<]*)</desc>", svg)
    assert f"{second} " in told and f"{first} " not in told


def test_what_waiting_for_labels_costs_is_shown(run: Run, page: Page) -> None:
    (name,) = (n for n in page.tables if "cut-off against freshness" in n)
    rows = page.tables[name][1:]
    train = run.inputs.accounts["labels"]["click"]["by_split"]["train"]["rows"]  # type: ignore[index]
    early = f"{100 * 9000 / train:.1f} %"
    assert rows[0] == ["1 h", "75.0 %", "25.0 %", "9,000", early]
    assert rows[1][0].startswith("4 h") and rows[1][1:4] == ["100.0 %", "0.0 %", "6,000"]
    assert "masked until the window has closed" in name


def test_skew_and_lags_are_shown(page: Page) -> None:
    assert page.tables["Logged against computed"][1] == [
        "item_clicks", "test", "2,000", "2.5 %", ".0500",
    ]  # fmt: skip
    rows = page.tables["Quality of mmoe against lag"]
    place = next(i for i, cell in enumerate(rows[0]) if cell.startswith("click AUC"))
    assert (rows[1][0], rows[1][place]) == ("as declared", ".7500")
    assert rows[2][0] == "1h" and rows[2][place].replace(" ", "") == ".7300|\u2212.0200"


def test_components_are_timed(page: Page) -> None:
    rows = {row[0]: row[1:] for row in page.tables["Components"][1:]}
    assert rows["Transform"][1] == "39 s"
    assert rows["StatisticsGen"][:2] == ["re-used", "0.20 s"]


# Safety ----------------------------------------------------------------------------------------


def test_page_is_self_contained(text: str, page: Page) -> None:
    assert len(text.encode()) <= MAX_BYTES
    tags = {tag for tag, _ in page.tags}
    assert not tags & {
        "script",
        "iframe",
        "img",
        "object",
        "embed",
        "foreignobject",
        "image",
        "use",
    }
    addresses = re.findall(r"(?:https?:)?//[\w.-]+[^\s\"'<>]*", text)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    for tag, given in page.tags:
        assert not any(name.startswith("on") for name in given)
        assert "src" not in given
        if "href" in given:
            assert str(given["href"]).startswith("#") or (tag, given["href"]) == ("link", "data:,")
    assert "url(" not in re.sub(r"url\(#c[0-9a-f]{10}-", "", text)


def test_text_from_data_is_escaped(text: str, page: Page) -> None:
    assert f"device={PLANTED}" in page.text
    assert PLANTED not in text


def test_ids_are_unique_and_references_resolve(text: str, page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    for wanted in re.findall(r'(?:aria-labelledby="|url\(#)([^")]+)', text):
        assert set(wanted.split()) <= set(page.ids)
    anchors = {str(g["href"])[1:] for t, g in page.tags if t == "a"}
    assert anchors <= set(page.ids)


def test_every_chart_has_a_title_and_a_description(page: Page) -> None:
    charts = [given for tag, given in page.tags if tag == "svg"]
    assert len(charts) > 50
    assert all(given["role"] == "img" and given["aria-labelledby"] for given in charts)


def test_svg_keeps_nothing_but_drawing() -> None:
    names = ["<script>alert(1)</script>", "javascript:alert(1)"]
    rows = [{"name": n, "value": 1.0, "link": "https://example.org"} for n in names]
    x, y = number_channel("value"), names_channel("name", names)
    bar = layer(
        "bar", {}, {"x": x, "y": y, "href": {"field": "link"}, "tooltip": {"field": "link"}}
    )
    svg = inline_svg(chart(rows, [bar]), "a <b> & c", "d")
    assert "example.org" not in svg and "<script" not in svg and "href" not in svg
    assert "a &lt;b&gt; &amp; c" in svg


# What is missing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "badge", "said"),
    [
        (refused_before_training(), "refused", "the run was refused by data before it was made"),
        (failed_at_start(), "failed", "Trainer.mmoe ran out of memory; remedy: lower"),
        (ReportInputs(summary={}, ranking=ranking_spec()), "unknown", "the run did not write it"),
    ],
    ids=["refused", "failed", "empty"],
)
def test_missing_parts_are_named_with_the_reason(
    inputs: ReportInputs, badge: str, said: str, tmp_path: Path
) -> None:
    text = Page(render(inputs, tmp_path)).text
    assert "could not be drawn" not in text
    assert outcome(inputs).badge == badge
    assert said in text
    for what in (
        "No candidate was measured", "No metrics", "No comparisons", "No metric gates",
        "No predictions", "No metrics by slice", "No learning curves", "No label rates by day",
    ):  # fmt: skip
        assert f"{what}: " in text


@pytest.mark.parametrize(
    "absent",
    [
        {"training": {}}, {"insights": {}}, {"accounts": None}, {"report_data": None},
        {"predictions": {}}, {"verdicts": ()}, {"previous_summary": None},
    ],
    ids=lambda absent: next(iter(absent)),
)  # fmt: skip
@pytest.mark.usefixtures("without_charts")
def test_any_optional_input_may_be_missing(
    run: Run, absent: dict[str, Any], tmp_path: Path
) -> None:
    inputs = dataclasses.replace(run.inputs, **absent)
    text = Page(render(inputs, tmp_path)).text
    assert "mmoe was pushed as feed" in text
    assert "could not be drawn" not in text


@pytest.mark.usefixtures("without_charts")
def test_any_key_of_the_summary_may_be_missing(run: Run, tmp_path: Path) -> None:
    for key in run.inputs.summary:
        summary = {k: v for k, v in run.inputs.summary.items() if k != key}
        inputs = dataclasses.replace(
            run.inputs, summary=summary, predictions={}, training={}, insights={}, report_data=None
        )
        assert "could not be drawn" not in render(inputs, tmp_path)


def test_inside_the_models(page: Page, run: Run) -> None:
    gates, attention = run.inputs.insights["mmoe"]["mixtures"]
    assert "mmoe: gates" in page.text and "mmoe: attention, by device" in page.text
    # Only declared slices are shown, although the model was measured by others as well.
    assert "weather" in gates["slices"] and "by weather" not in page.text
    for name in ("stitch after layer 1", "stitch after layer 2", "beta over layers"):
        assert f"cross_stitch: {name}" in page.text
    share = gates["slices"]["device"]["tv"]["weights"]["click"][0]
    assert f"click, tv, expert 0: {number(share, 2)}" in page.text
    assert f"click, received: {number(attention['weights']['click'][1], 2)}" in page.text
    assert "mmoe: gates: unused (under 1 % of the weight): expert 3" in page.text
    assert page.text.count("unused (under") == 1


def test_penalties_have_curves_of_their_own(page: Page) -> None:
    assert "importance: penalty" in page.text


def test_metrics_without_values_or_intervals_are_drawn(run: Run, tmp_path: Path) -> None:
    summary = json.loads(json.dumps(run.inputs.summary))
    metrics = summary["candidates"]["single_task"]["metrics"]
    metrics["click"]["auc"] = {"value": 0.7, "low": None, "high": None}
    metrics["click"]["gauc"] = {"value": None, "low": None, "high": None}
    del metrics["conversion"]
    page = Page(render(dataclasses.replace(run.inputs, summary=summary), tmp_path))
    rows = {row[0]: row for row in page.tables["click: metrics on the test window"]}
    assert rows["single_task"][1:3] == [".7000", ABSENT]


def test_long_and_equal_slice_names_stay_apart(run: Run, tmp_path: Path) -> None:
    summary = json.loads(json.dumps(run.inputs.summary))
    for candidate in summary["candidates"].values():
        one = next(iter(candidate["slices"].values()))
        candidate["slices"] = {f"device={'x' * 100_000}{i}": one for i in range(300)}
    inputs = dataclasses.replace(run.inputs, summary=summary)
    text = render(inputs, tmp_path)
    assert len(text.encode()) <= MAX_BYTES
    assert f"The first {slices.MAX_CHARTED} of 300 slices are drawn" in text
    assert "100 more slices are in summary.json." in text
    table = Page(text).tables[f"click by slice, {CHAMPION}"]
    assert len({row[0] for row in table}) == len(table) == 1 + slices.MAX_TABLED


def test_component_failure_is_named(run: Run, tmp_path: Path) -> None:
    components = [{"name": "Transform", "state": "failed", "seconds": 3.0}]
    summary = {"state": "failed", "error": "disk is full", "components": components}
    inputs = ReportInputs(summary=summary, ranking=run.inputs.ranking)
    assert outcome(inputs).reasons == ("Transform: disk is full",)
    assert "3.0 s, failed" in render(inputs, tmp_path)


def test_refusal_of_the_serving_check_is_a_reason(run: Run) -> None:
    refusal = Verdict("serving", False, ("mmoe: click differs by 3e-4, at most 1e-5 may be",))
    summary = {**run.inputs.summary, "state": "refused", "champion": None, "pushed": None}
    inputs = dataclasses.replace(run.inputs, summary=summary, verdicts=[refusal])
    assert "serving refused: mmoe: click differs by 3e-4, at most 1e-5 may be" in (
        outcome(inputs).reasons
    )


def test_every_reason_of_a_gate_stands_alone(tmp_path: Path) -> None:
    told = tuple(f"column c{i}: leaks; remedy: waive it" for i in range(25))
    inputs = ReportInputs(
        summary={"state": "refused", "error": "; ".join(told)},
        ranking=ranking_spec(),
        verdicts=[Verdict("data", False, told)],
    )
    assert outcome(inputs).reasons[:2] == tuple(f"data refused: {reason}" for reason in told[:2])
    rows = [row for row in Page(render(inputs, tmp_path)).tables["Verdicts"] if row[0] == "data"]
    assert rows == [["data", text, "refused"] for text in (*told[:20], "and 5 more")]


def test_refusals_of_a_candidate_are_told_once(run: Run) -> None:
    summary = json.loads(json.dumps(run.inputs.summary))
    told = "click differs by 3e-4, at most 1e-5 may be"
    summary["candidates"]["cross_stitch"].update(
        blessed=False, refusals=[told, "a metric gate failed"]
    )
    inputs = dataclasses.replace(run.inputs, summary=summary)
    reasons = outcome(inputs).reasons
    assert reasons[0].startswith("4 of 5 candidates passed every gate")
    assert reasons[1:] == (f"cross_stitch: {told}",)
    refusal = Verdict("serving", False, (f"cross_stitch: {told}",))
    again = dataclasses.replace(inputs, verdicts=[refusal])
    assert outcome(again).reasons[1:] == (f"serving refused: cross_stitch: {told}",)


def test_a_refusal_without_gate_rows_or_verdicts_is_its_own_message() -> None:
    message = "DataGate left no verdict: a gate that did not run counts as refused"
    inputs = ReportInputs(summary={"state": "refused", "error": message}, ranking=ranking_spec())
    assert outcome(inputs).reasons == (message,)


def test_a_candidate_without_metrics_is_not_the_focus(run: Run) -> None:
    summary = json.loads(json.dumps(run.inputs.summary))
    summary.update(state="failed", champion=None, pushed=None)
    summary["candidates"] = {
        "broken": {"metrics": {}, "gates": []},
        "cross_stitch": summary["candidates"]["cross_stitch"],
    }
    inputs = dataclasses.replace(run.inputs, summary=summary)
    assert focus_candidate(inputs) == "cross_stitch"


@pytest.mark.usefixtures("without_charts")
def test_a_section_that_cannot_be_made_says_so(run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 cut in half")
    inputs = dataclasses.replace(run.inputs, predictions={CHAMPION: broken})
    text = Page(render(inputs, tmp_path)).text
    assert text.count("could not be drawn") == 1
    assert "mmoe was pushed as feed" in text and "Component times" in text


def test_every_section_of_a_whole_run_is_made(page: Page) -> None:
    assert "could not be drawn" not in page.text


def test_page_is_replaced_in_one_step(run: Run, tmp_path: Path) -> None:
    render_report(failed_at_start(), tmp_path / "reports" / "index.html")
    assert [p.name for p in (tmp_path / "reports").iterdir()] == ["index.html"]
