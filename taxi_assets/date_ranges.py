"""Half-open windows of days, and the months whose files they read.

Stages pass each other a `DateRange`, never two loose dates. Nothing here depends on Dagster.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, order=True)
class Month:
    """A calendar month; TLC (the Taxi & Limousine Commission) publishes one file for each."""

    year: int
    month: int

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    @property
    def window(self) -> DateRange:
        """All days of the month."""
        days = calendar.monthrange(self.year, self.month)[1]
        first = date(self.year, self.month, 1)
        return DateRange(first, first + timedelta(days=days))

    @classmethod
    def of(cls, day: date) -> Month:
        """Return the month whose file holds `day`."""
        return cls(day.year, day.month)


@dataclass(frozen=True, order=True)
class DateRange:
    """The days from `start` up to, not including, `end`, in New York wall time."""

    start: date
    end: date

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise ValueError(f"a date range needs at least one day: [{self.start}, {self.end})")

    def __str__(self) -> str:
        last = self.end - ONE_DAY
        return str(self.start) if last == self.start else f"{self.start} to {last}"

    def __contains__(self, day: date) -> bool:
        return self.start <= day < self.end

    def __iter__(self) -> Iterator[date]:
        day = self.start
        while day < self.end:
            yield day
            day += ONE_DAY

    def __len__(self) -> int:
        return (self.end - self.start).days

    @classmethod
    def of_day(cls, day: date) -> DateRange:
        """Return the range of one day."""
        return cls(day, day + ONE_DAY)


def split_date_range(window: DateRange, max_days: int) -> list[DateRange]:
    """Split a range into consecutive ranges of at most `max_days` days."""
    starts = list(window)[::max_days]
    return [DateRange(start, min(start + max_days * ONE_DAY, window.end)) for start in starts]


def merge_into_date_ranges(days: Iterable[date]) -> list[DateRange]:
    """Merge days into the fewest ranges that contain exactly these days, in order."""
    windows: list[DateRange] = []
    for day in sorted(set(days)):
        if windows and windows[-1].end == day:
            windows[-1] = DateRange(windows[-1].start, day + ONE_DAY)
        else:
            windows.append(DateRange.of_day(day))
    return windows


def group_days_by_month(days: Iterable[date]) -> dict[Month, list[date]]:
    """Group days by month, both in order."""
    months: dict[Month, list[date]] = {}
    for day in sorted(set(days)):
        months.setdefault(Month.of(day), []).append(day)
    return months
