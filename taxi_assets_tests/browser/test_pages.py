"""Our own pages in Chromium, on a laptop and on a phone."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from taxi_assets.date_ranges import Month
from taxi_assets.report.figures import MonthFigures
from taxi_assets.report.index_page import ServiceCalendar, find_states, render_index_page
from taxi_assets.report.page import render_month_page
from taxi_assets_tests.browser.test_ui import ARGUMENTS, CHROMIUM, SCREENSHOTS, shrink
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.report.test_report import day, figures

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's package chromium is missing")
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


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("name", ["index", "month"])
def test_page_fits_the_screen(name: str, width: int, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(calendar() if name == "index" else render_month_page(month()))
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
