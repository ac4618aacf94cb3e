"""Our own pages in Chromium, on a laptop and on a phone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import sync_playwright

from taxi_assets.date_ranges import Month
from taxi_assets.report.figures import MonthFigures
from taxi_assets.report.index_page import ServiceCalendar, find_states, render_index_page
from taxi_assets.report.page import render_month_page
from taxi_assets.report.restatement import render_restatement_page
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.row_diff import RowDiff
from taxi_assets_tests.browser.test_ui import ARGUMENTS, CHROMIUM, SCREENSHOTS, shrink
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.report.test_report import day, figures

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's package chromium is missing")
MIN_CONTRAST = 4.5
"""Of WCAG 2, level AA, for texts."""
FIND_PALE_TEXTS = """least => {
  const read = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = rgb => rgb.slice(0, 3).map(part => part / 255)
    .map(part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const mix = (over, under, share) =>
    over.map((part, at) => part * share + under[at] * (1 - share));
  const alpha = rgb => rgb.length > 3 ? rgb[3] : 1;
  const grounds = element => {  // every colour that may be behind a text of the element
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at), colour = read(style.backgroundColor);
      const stripes = (style.backgroundImage.match(/rgba?\\([^)]*\\)/g) || [])
        .map(read).filter(alpha);
      if (alpha(colour) === 1) return [...stripes, colour];
      if (stripes.length) return [...stripes, ...grounds(at.parentElement)];
    }
    return [[255, 255, 255]];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), pale = [];
  let seen = 0;
  while (texts.nextNode()) {
    const text = texts.currentNode.data.trim(), element = texts.currentNode.parentElement;
    if (!text || element.closest("title, style, script")) continue;
    seen += 1;
    const style = getComputedStyle(element);
    const ink = read(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
    for (const ground of grounds(element)) {
      let share = alpha(ink);
      for (let at = element; at; at = at.parentElement) share *= getComputedStyle(at).opacity;
      const lights = [light(mix(ink.slice(0, 3), ground, share)), light(ground)]
        .sort((a, b) => b - a);
      const contrast = (lights[0] + 0.05) / (lights[1] + 0.05);
      if (contrast < least) pale.push(`${text.slice(0, 40)}: ${contrast.toFixed(2)}`);
    }
  }
  return [seen, [...new Set(pale)]];
}"""
YEAR = [day for month in range(1, 13) for day in Month(2021, month).window]


def calendar() -> bytes:
    """Return the index page of a year with a partial, a rejected and some missing days."""
    stored = {day for day in YEAR if day not in (date(2021, 3, 7), date(2021, 3, 8))}
    states = find_states(YEAR, [stored, stored - {date(2021, 5, 6)}], {date(2021, 2, 9)})
    reports = {Month(2021, month) for month in (1, 2, 4)}
    return render_index_page([ServiceCalendar("yellow", states, reports)], "http://127.0.0.1:3000")


def month() -> MonthFigures:
    """Return a month whose last days are not loaded."""
    return figures(
        *(day(40_000 + 900 * number, 1e6 + 9e3 * number, number % 24) for number in range(20))
    )


def restatement() -> bytes:
    """Return the page of a month with added, removed and changed rows, and long names of files."""
    row = {"lpep_pickup_datetime": "2021-02-05 01:53:32", "store_and_fwd_flag": "N" * 60}
    change = {"pickup": "2021-02-05 07:53:55", "changes": {"tip_amount": ["1.5", "x" * 60]}}
    diff = RowDiff(100, 101, 2, 1, 1, {"tip_amount": 1}, -1_234_567.8)
    diff.examples.update(added=[row], removed=[row], changed=[change])
    file = f"https://example.com/{'long_folder/' * 9}green_2021-02.csv.gz (SHA-256 {'0af' * 21})"
    days = dict.fromkeys(Month(2021, 2).window, diff)
    return render_restatement_page(SERVICES["green"], Month(2021, 2), days, file, file)


PAGES: Mapping[str, Callable[[], bytes]] = {
    "index": calendar,
    "month": lambda: render_month_page(month()),
    "restatement": restatement,
}


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("name", PAGES)
def test_page_fits_the_screen(name: str, width: int, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(PAGES[name]())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        picture = tmp_path / f"{name}.png"
        page.screenshot(path=picture)
        browser.close()
    if SCREENSHOTS and width > 1000:
        shrink(picture, REPOSITORY / SCREENSHOTS / f"report-{name}.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_every_text_has_enough_contrast(
    name: str, scheme: Literal["light", "dark"], tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(PAGES[name]())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_context(color_scheme=scheme).new_page()
        page.goto(path.as_uri())
        texts, pale = page.evaluate(FIND_PALE_TEXTS, MIN_CONTRAST)
        browser.close()
    assert texts > 100
    assert pale == []
