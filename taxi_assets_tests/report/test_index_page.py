"""The page of all reports: what became of each day, and where it leads."""

from __future__ import annotations

import re
from datetime import date

from taxi_assets.date_ranges import DateRange, Month
from taxi_assets.report.index_page import ServiceCalendar, find_states, render_index_page

WINDOW = DateRange(date(2020, 11, 20), date(2021, 6, 1))
EVERYWHERE = {date(2021, 1, day) for day in (5, 6)}
SOMEWHERE = date(2021, 2, 3)
REJECTED = date(2021, 1, 7)
UI = "https://dagster.example.com"


def states() -> dict[date, str]:
    return find_states(WINDOW, [EVERYWHERE, EVERYWHERE | {SOMEWHERE}], {REJECTED})


def test_days_are_shown_from_the_first_month_that_has_any_to_the_last() -> None:
    found = states()
    assert (min(found), max(found), len(found)) == (date(2021, 1, 1), date(2021, 2, 28), 59)
    assert {day for day, state in found.items() if state == "loaded"} == EVERYWHERE
    assert {day: state for day, state in found.items() if state in ("partial", "rejected")} == {
        SOMEWHERE: "partial",
        REJECTED: "rejected",
    }
    assert find_states(WINDOW, [set(), set()], ()) == {}
    # A day that was stored before it was rejected is rejected.
    assert find_states(WINDOW, [{REJECTED}], {REJECTED})[REJECTED] == "rejected"


def test_days_lead_to_their_page_and_months_to_their_report() -> None:
    calendar = ServiceCalendar("green", states(), {Month(2021, 1)})
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
