"""Render the index of all reports: a calendar of every service's days and their states.

The page belongs here; code that finds the states of days belongs in `defs`.
"""

from __future__ import annotations

import calendar
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from taxi_assets.date_ranges import Month
from taxi_assets.report.page import render_template

State = Literal["loaded", "partial", "rejected", "missing"]
STATES: Mapping[State, str] = {
    "loaded": "in every store",
    "partial": "in some stores only",
    "rejected": "failed its checks: in no store, or as an earlier run left it",
    "missing": "not loaded",
}


@dataclass(frozen=True)
class ServiceCalendar:
    """The days of a service and the months that have a report."""

    name: str
    days: Mapping[date, State]
    """State of every partition from the first to the last one that is not missing."""
    reports: Collection[Month]
    title: str = ""
    """Heading; by default the name."""

    def count(self, state: State) -> int:
        """Return the number of days in a state."""
        return sum(day_state == state for day_state in self.days.values())


@dataclass(frozen=True)
class DayBox:
    """A day of a small calendar."""

    number: int
    state: State
    link: str
    """Page of the day in Dagster's UI; empty for a missing day."""
    hint: str


@dataclass(frozen=True)
class MonthBox:
    """A month: its name, its report, and its days by week; None pads the first and last week."""

    name: str
    report: str
    weeks: Sequence[Sequence[DayBox | None]]


def render_index_page(calendars: Sequence[ServiceCalendar], ui: str) -> bytes:
    """Return the page, UTF-8; `ui` is the address of Dagster's UI."""
    services = [(service, _build_years(service, ui)) for service in calendars if service.days]
    return render_template("index.html", services=services, states=STATES, ui=ui)


def _build_years(service: ServiceCalendar, ui: str) -> dict[int, list[MonthBox]]:
    """Return the months of each year, the latest year first."""
    years: dict[int, list[MonthBox]] = {}
    for month in sorted({Month.of(day) for day in service.days}):
        years.setdefault(month.year, []).append(_build_month_box(service, month, ui))
    return dict(sorted(years.items(), reverse=True))


def _build_month_box(service: ServiceCalendar, month: Month, ui: str) -> MonthBox:
    report = f"{service.name}/{month}.html" if month in service.reports else ""
    days: list[DayBox | None] = [None] * month.window.start.weekday()
    days += [_build_day_box(service, day, ui) for day in month.window]
    weeks = [days[at : at + 7] for at in range(0, len(days), 7)]
    return MonthBox(calendar.month_abbr[month.month], report, weeks)


def _build_day_box(service: ServiceCalendar, day: date, ui: str) -> DayBox | None:
    state = service.days.get(day)
    if state is None:
        return None
    link = f"{ui}/assets/{service.name}/cleaned_trips?view=partitions&partition={day}"
    hint = f"{day:%A} {day.day} {day:%B %Y}: {STATES[state]}"
    return DayBox(day.day, state, "" if state == "missing" else link, hint)


def find_states(
    days: Iterable[date], stored: Sequence[Collection[date]], rejected: Collection[date]
) -> dict[date, State]:
    """Return the state of each day, from the first month with a stored or rejected day to the last.

    `stored` has the days of each store.
    """
    days, states = list(days), dict[date, State]()
    for day in days:
        stores = sum(day in store_days for store_days in stored)
        if day in rejected:
            states[day] = "rejected"
        elif stores:
            states[day] = "loaded" if stores == len(stored) else "partial"
    if not states:
        return {}
    first, last = Month.of(min(states)), Month.of(max(states))
    return {day: states.get(day, "missing") for day in days if first <= Month.of(day) <= last}
