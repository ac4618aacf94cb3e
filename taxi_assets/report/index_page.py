"""The page of all reports: a calendar of every service's days, by what became of them.

Defined here: the page, from the states of days. Where the states come from belongs in `defs`.
"""

from __future__ import annotations

import calendar
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from taxi_assets.date_ranges import Month
from taxi_assets.report.colours import DARK, LIGHT
from taxi_assets.report.page import open_templates

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
    """Every partition from the first that is not missing to the last one."""
    reports: Collection[Month]

    def count(self, state: State) -> int:
        """Count the days in a state."""
        return sum(found == state for found in self.days.values())


@dataclass(frozen=True)
class DayBox:
    """A day of a small calendar."""

    number: int
    state: State
    link: str
    """Page of the day in Dagster's UI; empty for a day that is missing."""
    hint: str


@dataclass(frozen=True)
class MonthBox:
    """A month: its name, its report and its days by week, None where a week has no such day."""

    name: str
    report: str
    weeks: Sequence[Sequence[DayBox | None]]


def index_page(calendars: Sequence[ServiceCalendar], ui: str) -> bytes:
    """Return the page, UTF-8; `ui` is the address of Dagster's UI."""
    return (
        open_templates()
        .get_template("index.html")
        .render(
            services=[(one, _years(one, ui)) for one in calendars if one.days],
            states=STATES,
            themes={"light": LIGHT, "dark": DARK},
            ui=ui,
        )
        .encode()
    )


def _years(one: ServiceCalendar, ui: str) -> dict[int, list[MonthBox]]:
    """Return the months of each year, the latest year first."""
    years: dict[int, list[MonthBox]] = {}
    for month in sorted({Month.of(day) for day in one.days}):
        years.setdefault(month.year, []).append(_month_box(one, month, ui))
    return dict(sorted(years.items(), reverse=True))


def _month_box(one: ServiceCalendar, month: Month, ui: str) -> MonthBox:
    report = f"{one.name}/{month}.html" if month in one.reports else ""
    days: list[DayBox | None] = [None] * month.window.start.weekday()
    days += [_day_box(one, day, ui) for day in month.window]
    weeks = [days[at : at + 7] for at in range(0, len(days), 7)]
    return MonthBox(calendar.month_abbr[month.month], report, weeks)


def _day_box(one: ServiceCalendar, day: date, ui: str) -> DayBox | None:
    state = one.days.get(day)
    if state is None:
        return None
    link = f"{ui}/assets/{one.name}/cleaned_trips?view=partitions&partition={day}"
    hint = f"{day:%A} {day.day} {day:%B %Y}: {STATES[state]}"
    return DayBox(day.day, state, "" if state == "missing" else link, hint)


def find_states(
    days: Iterable[date], stored: Sequence[Collection[date]], rejected: Collection[date]
) -> dict[date, State]:
    """Return what became of each day, from the first month that has any to the last.

    `stored` has the days of each store.
    """
    days, states = list(days), dict[date, State]()
    for day in days:
        stores = sum(day in days for days in stored)
        if day in rejected:
            states[day] = "rejected"
        elif stores:
            states[day] = "loaded" if stores == len(stored) else "partial"
    if not states:
        return {}
    first, last = Month.of(min(states)), Month.of(max(states))
    return {day: states.get(day, "missing") for day in days if first <= Month.of(day) <= last}
