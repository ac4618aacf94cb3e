"""Render the index of all reports: a calendar of every service's days and their states.

The page belongs here; code that finds the states of days belongs in `defs`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from taxi_assets.date_ranges import Month
from taxi_assets.report.page import render_template, split_into_weeks

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

    @property
    def months(self) -> list[Month]:
        """The months of the days, the earliest first."""
        return sorted({Month.of(day) for day in self.days})

    def count(self, state: State) -> int:
        """Return the number of days in a state."""
        return sum(day_state == state for day_state in self.days.values())


def render_index_page(calendars: Sequence[ServiceCalendar], ui: str) -> bytes:
    """Return the page, UTF-8; `ui` is the address of Dagster's UI."""
    services = [service for service in calendars if service.days]
    return render_template(
        "index.html", services=services, states=STATES, split_into_weeks=split_into_weeks, ui=ui
    )


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
