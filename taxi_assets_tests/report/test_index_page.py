"""The index page of all reports: the state of each day, and its links."""

from __future__ import annotations

import re
from datetime import date

from taxi_assets.date_ranges import DateRange, Month
from taxi_assets.report.index_page import ServiceCalendar, find_states, render_index_page

WINDOW = DateRange(date(2020, 11, 20), date(2021, 6, 1))
LOADED = {date(2021, 1, day) for day in (5, 6)}
PARTIAL = date(2021, 2, 3)
REJECTED = date(2021, 1, 7)
UI = "https://dagster.example.com"


def make_day_states() -> dict[date, str]:
    return find_states(WINDOW, [LOADED, LOADED | {PARTIAL}], {REJECTED})


def test_calendar_spans_first_to_last_month_with_days() -> None:
    day_states = make_day_states()
    assert (min(day_states), max(day_states), len(day_states)) == (
        date(2021, 1, 1),
        date(2021, 2, 28),
        59,
    )
    assert {day for day, state in day_states.items() if state == "loaded"} == LOADED
    assert {
        day: state for day, state in day_states.items() if state in ("partial", "rejected")
    } == {
        PARTIAL: "partial",
        REJECTED: "rejected",
    }
    assert find_states(WINDOW, [set(), set()], ()) == {}
    # A day that was stored before it was rejected is rejected.
    assert find_states(WINDOW, [{REJECTED}], {REJECTED})[REJECTED] == "rejected"


def test_days_link_to_partitions_and_months_to_reports() -> None:
    calendar = ServiceCalendar("green", make_day_states(), {Month(2021, 1)})
    text = render_index_page([calendar, ServiceCalendar("yellow", {}, ())], UI).decode()
    links = re.findall(r'href="([^"]+)"', text)
    days = [link.partition("partition=")[2] for link in links if "partition=" in link]
    assert days == ["2021-01-05", "2021-01-06", "2021-01-07", "2021-02-03"]
    page = f"{UI}/assets/green/cleaned_trips?view=partitions&amp;partition=2021-01-05"
    assert page in links
    assert [link for link in links if link.endswith(".html")] == ["green/2021-01.html"]
    assert text.count('class="missing" title=') == 59 - 4
    assert "2 of 59 days are in every store, 1 is partial, 1 is rejected, 55 are missing." in text
    assert "Yellow" not in text
    assert "No day is loaded yet." in render_index_page([], UI).decode()
