"""Compare a day with the same weekdays before it.

Each figure of a day is compared with the median of up to six same weekdays, in units of the median
absolute deviation (MAD), which one odd week does not move. A figure is unusual if it is more than
`threshold` deviations away. Two further rules prevent repeated warnings:

- a lasting change is unusual for some days and then becomes the new level: volumes, revenue and
  medians must also differ from the same weekdays scaled to the level of the last seven days;
- on a federal holiday, volumes and revenue are not compared, and no day is compared with a holiday.

Of 123 published days of borough taxis (May and October to December 2020), 66 have four such
weekdays, and one is unusual by default: 17 December, a snowstorm, with 627 trips where 1,832 are
usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from statistics import median
from typing import Literal

WEEKS = 6
"""Number of earlier same weekdays."""
MIN_DAYS = 4
"""Number of them that must be loaded; with fewer, no figure is compared."""
RECENT_DAYS = 7
"""Number of preceding days that define the current level."""
THRESHOLD = 4.0
"""Deviations; 3 flags five of the 66 days, among them the Friday after Thanksgiving and Christmas
Day's median distance, 3.5 three of them."""
MAD_TO_DEVIATION = 1.4826
"""Standard deviation per MAD of a normal distribution."""

Kind = Literal["volume", "median", "share"]
MIN_DEVIATIONS: Mapping[Kind, float] = {"volume": 0.08, "median": 0.04, "share": 0.02}
"""Smallest size of one deviation: relative to the median for volumes and medians, absolute for
shares."""


@dataclass(frozen=True)
class Figure:
    """One number of a day."""

    value: float
    kind: Kind


Figures = Mapping[str, Figure]
"""A day's figures by name."""


@dataclass(frozen=True)
class Unusual:
    """A figure that differs from the same weekdays."""

    name: str
    value: float
    usual: float
    """Median of the same weekdays."""
    deviations: float
    """Signed distance from the median."""
    kind: Kind
    before: tuple[float, ...] = ()
    """The same weekdays', latest first."""

    def __str__(self) -> str:
        if self.kind == "share":
            return f"{self.name} {self.value:.1%}, usually {self.usual:.1%}"
        change = f" ({self.value / self.usual - 1:+.0%})" if self.usual else ""
        value, usual = _format_figure(self.value), _format_figure(self.usual)
        return f"{self.name} {value}, usually {usual}{change}"


def find_unusual(
    day: date, figures_of: Callable[[date], Figures | None], threshold: float = THRESHOLD
) -> list[Unusual] | None:
    """Compare a day with the same weekdays before it; None if fewer than four are loaded.

    `figures_of` returns a day's figures, or None if it is not loaded. Days of the last week are
    read only if a figure differs.
    """
    day_figures = figures_of(day)
    weekdays = list_weekday_figures(day, figures_of)
    if day_figures is None or len(weekdays) < MIN_DAYS:
        return None
    unusual = []
    for name, figure in day_figures.items():
        if figure.kind == "volume" and is_holiday(day):
            continue
        values = [figures[name].value for figures in weekdays if name in figures]
        if len(values) < MIN_DAYS:
            continue
        usual, deviation = _measure_spread(values, figure.kind)
        distance = figure.value - usual
        if abs(distance) <= threshold * deviation:
            continue
        level = _measure_level(day, name, figures_of) if figure.kind != "share" else 1.0
        if abs(figure.value - usual * level) > threshold * deviation:
            deviations = distance / deviation
            unusual.append(
                Unusual(name, figure.value, usual, deviations, figure.kind, tuple(values))
            )
    return sorted(unusual, key=lambda figure: -abs(figure.deviations))


def list_weekday_figures(day: date, figures_of: Callable[[date], Figures | None]) -> list[Figures]:
    """Return the figures of the same weekdays before a day, latest first, without holidays."""
    all_figures = map(figures_of, list_same_weekdays(day))
    return [figures for figures in all_figures if figures is not None]


def list_same_weekdays(day: date) -> list[date]:
    """Return the same weekdays of the weeks before a day, latest first, without holidays."""
    days = [day - timedelta(weeks=weeks) for weeks in range(1, WEEKS + 1)]
    return [weekday for weekday in days if not is_holiday(weekday)]


def _measure_spread(values: Sequence[float], kind: Kind) -> tuple[float, float]:
    """Return the median and the size of one deviation."""
    middle = median(values)
    mad = median(abs(value - middle) for value in values)
    floor = MIN_DEVIATIONS[kind] if kind == "share" else MIN_DEVIATIONS[kind] * abs(middle)
    # A figure that is always 0 has no deviation; any other value is unusual then.
    return middle, max(MAD_TO_DEVIATION * mad, floor, 1e-9)


def _measure_level(day: date, name: str, figures_of: Callable[[date], Figures | None]) -> float:
    """Return the median ratio of the last seven days to their same weekdays; 1 if unknown."""
    ratios = []
    for days in range(1, RECENT_DAYS + 1):
        recent = day - timedelta(days=days)
        day_figures = None if is_holiday(recent) else figures_of(recent)
        if day_figures is None or name not in day_figures:
            continue
        weekdays = list_weekday_figures(recent, figures_of)
        values = [figures[name].value for figures in weekdays if name in figures]
        if len(values) >= MIN_DAYS and (usual := median(values)):
            ratios.append(day_figures[name].value / usual)
    return median(ratios) if len(ratios) >= MIN_DAYS else 1.0


def is_holiday(day: date) -> bool:
    """Return whether a day is a federal holiday, or the day on which one is observed."""
    return day in _list_holidays(day.year)


@cache
def _list_holidays(year: int) -> frozenset[date]:
    from pandas.tseries.holiday import USFederalHolidayCalendar  # noqa: PLC0415 - heavy at import

    days = USFederalHolidayCalendar().holidays(f"{year}-01-01", f"{year}-12-31")
    # The calendar has the day of observance, Friday or Monday; the day itself is a holiday too.
    fixed = {date(year, 1, 1), date(year, 7, 4), date(year, 12, 25)}
    return frozenset({holiday.date() for holiday in days} | fixed)


def _format_figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"  # noqa: PLR2004 - digits
