"""The page of a run in a real browser: every chart is drawn, nothing is fetched, nothing runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.report.render import render_report
from tests.browser.chromium import NAMES, Chromium, find_chromium
from tests.browser.synthetic_run import make_run, refused_before_training

pytestmark = pytest.mark.slow

DESKTOP, PHONE = 1400, 420
MIN_CHARTS = 60
MIN_COLORED_PIXELS = 20

BOXES = """
[...document.querySelectorAll('svg')].map(svg => {
  const box = svg.getBoundingClientRect();
  const title = svg.querySelector('title');
  return {title: title ? title.textContent : '', x: box.x + scrollX, y: box.y + scrollY,
          width: box.width, height: box.height};
})
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    executable = find_chromium()
    if executable is None:
        pytest.skip(
            f"no Chromium: none of {', '.join(NAMES)} is on the PATH (apt install chromium)"
        )
    chromium = Chromium(executable, tmp_path_factory.mktemp("chromium"))
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    render_report(make_run(folder / "run").inputs, folder / "index.html")
    return folder / "index.html"


def colored_pixels(page: Any, box: dict[str, Any]) -> int:
    """Counts pixels with a hue: data is drawn in colour, axes and type in shades of grey."""
    left, top = round(box["x"]), round(box["y"])
    part = page[top : top + round(box["height"]), left : left + round(box["width"])]
    return int((np.ptp(part.astype(int), axis=2) > 40).sum()) if part.size else 0


@pytest.mark.parametrize(
    ("width", "dark"), [(DESKTOP, False), (DESKTOP, True), (PHONE, False)], ids=str
)
def test_every_chart_is_drawn(browser: Chromium, page: Path, width: int, dark: bool) -> None:
    visit = browser.visit(page, width=width, dark=dark)
    assert visit.console == []
    assert visit.requests == [page.resolve().as_uri()]
    boxes = browser.evaluate(BOXES)
    assert len(boxes) >= MIN_CHARTS
    pixels = browser.screenshot()
    blank = [box["title"] for box in boxes if colored_pixels(pixels, box) < MIN_COLORED_PIXELS]
    assert blank == []
    assert (pixels[0, 0].mean() < 128) == dark
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_first_screen_shows_outcome_reasons_and_changes(browser: Chromium, page: Path) -> None:
    browser.visit(page, width=DESKTOP, height=900)
    assert "mmoe was pushed as feed" in browser.evaluate("document.querySelector('h1').innerText")
    for part in ("h1", ".reasons", "header table"):
        bottom = browser.evaluate(
            f"document.querySelector('{part}').getBoundingClientRect().bottom"
        )
        assert 0 < bottom < 900


def test_text_from_data_does_not_run(browser: Chromium, page: Path) -> None:
    browser.visit(page, width=DESKTOP)
    assert browser.evaluate("document.title").startswith("feed: pushed")
    assert browser.evaluate("document.scripts.length") == 0
    assert "<script>document.title" in browser.evaluate(
        "document.querySelector('main').textContent"
    )


def test_tables_behind_charts_open_without_script(browser: Chromium, page: Path) -> None:
    browser.visit(page, width=DESKTOP)
    heights = browser.evaluate(
        "[...document.querySelectorAll('details')].map(part => "
        "[part.offsetHeight, (part.querySelector('summary').click(), part.offsetHeight)])"
    )
    assert len(heights) >= 5
    assert all(opened > closed for closed, opened in heights)


def test_refused_run_has_a_clean_page(browser: Chromium, tmp_path: Path) -> None:
    render_report(refused_before_training(), tmp_path / "index.html")
    visit = browser.visit(tmp_path / "index.html", width=PHONE)
    assert visit.console == []
    assert len(visit.requests) == 1
    assert browser.evaluate("document.documentElement.scrollWidth") <= PHONE


def test_these_checks_can_fail(browser: Chromium, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<script>console.error('told')</script><img src='http://127.0.0.1:9/external.png'>"
        "<svg width='200' height='100'><title>blank</title>"
        "<path d='M0 50h200' stroke='#ccc'/></svg>"
    )
    visit = browser.visit(bad, width=PHONE)
    assert any("told" in message for message in visit.console)
    assert "http://127.0.0.1:9/external.png" in visit.requests
    (box,) = browser.evaluate(BOXES)
    assert colored_pixels(browser.screenshot(), box) == 0
