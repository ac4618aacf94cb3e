"""Whether a day is like the same weekdays before it, and in what it is not.

Each figure of a day is compared with the median of up to six same weekdays, by the median absolute
deviation (MAD), which one odd week does not move. A figure is unusual if it is farther away than
`threshold` deviations. Two more rules keep people from being told the same thing every day:

- a change that lasts is unusual for some days and then the new level: volumes, revenue and medians
  must also be far from the same weekdays brought to the level of the last seven days;
- on a federal holiday, volumes and revenue are not compared, and no other day is compared with one.

Of the 123 published green days of May and October to December 2020, 66 have four such weekdays, and
one is unusual by the default: 17 December, a snowstorm, with 627 trips where 1,832 are usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from statistics import median
from typing import Literal

WEEKS = 6
"""Earlier same weekdays that are read."""
MIN_DAYS = 4
"""Of them that must be loaded; with fewer, no figure is compared."""
RECENT_DAYS = 7
"""Days before the day whose level counts."""
THRESHOLD = 4.0
"""Deviations; 3 flags five of the 66 days, among them the Friday after Thanksgiving and Christmas
Day's median distance, 3.5 three of them."""
MAD_TO_DEVIATION = 1.4826
"""Of a normal distribution."""

Kind = Literal["volume", "median", "share"]
FLOORS: Mapping[Kind, float] = {"volume": 0.08, "median": 0.04, "share": 0.02}
"""The least that one deviation is: of the median of volumes and medians, in points of shares."""


@dataclass(frozen=True)
class Figure:
    """One number of a day."""

    value: float
    kind: Kind


Figures = Mapping[str, Figure]
"""A day's numbers by what they are, in words."""


@dataclass(frozen=True)
class Unusual:
    """A figure that is not as usual."""

    name: str
    value: float
    usual: float
    """Median of the same weekdays."""
    deviations: float
    """How far it is away, with a sign."""
    kind: Kind
    before: tuple[float, ...] = ()
    """The same weekdays', latest first."""

    def __str__(self) -> str:
        if self.kind == "share":
            return f"{self.name} {self.value:.1%}, usually {self.usual:.1%}"
        change = f" ({self.value / self.usual - 1:+.0%})" if self.usual else ""
        return f"{self.name} {_number(self.value)}, usually {_number(self.usual)}{change}"


def find_unusual(
    day: date, figures_of: Callable[[date], Figures | None], threshold: float = THRESHOLD
) -> list[Unusual] | None:
    """Compare a day with the same weekdays before; None if fewer than four are known.

    `figures_of` returns a day's figures, or None if it is not loaded. Days of the last week are
    only read for a figure that differs.
    """
    own = figures_of(day)
    before = same_weekdays(day, figures_of)
    if own is None or len(before) < MIN_DAYS:
        return None
    found = []
    for name, figure in own.items():
        if figure.kind == "volume" and is_holiday(day):
            continue
        known = [one[name].value for one in before if name in one]
        if len(known) < MIN_DAYS:
            continue
        usual, deviation = _spread(known, figure.kind)
        distance = figure.value - usual
        if abs(distance) <= threshold * deviation:
            continue
        level = _level(day, name, figures_of) if figure.kind != "share" else 1.0
        if abs(figure.value - usual * level) > threshold * deviation:
            deviations = distance / deviation
            one = Unusual(name, figure.value, usual, deviations, figure.kind, tuple(known))
            found.append(one)
    return sorted(found, key=lambda one: -abs(one.deviations))


def same_weekdays(day: date, figures_of: Callable[[date], Figures | None]) -> list[Figures]:
    """Return the figures of the same weekdays before a day, latest first, holidays left out."""
    found = map(figures_of, list_same_weekdays(day))
    return [figures for figures in found if figures is not None]


def list_same_weekdays(day: date) -> list[date]:
    """Return the same weekdays of the weeks before a day, latest first, without holidays."""
    days = [day - timedelta(weeks=weeks) for weeks in range(1, WEEKS + 1)]
    return [one for one in days if not is_holiday(one)]


def _spread(values: Sequence[float], kind: Kind) -> tuple[float, float]:
    """Return the median and the size of one deviation."""
    middle = median(values)
    mad = median(abs(value - middle) for value in values)
    floor = FLOORS[kind] if kind == "share" else FLOORS[kind] * abs(middle)
    # A figure that is always 0 has no deviation; anything else than 0 is then unusual.
    return middle, max(MAD_TO_DEVIATION * mad, floor, 1e-9)


def _level(day: date, name: str, figures_of: Callable[[date], Figures | None]) -> float:
    """How a figure of the last seven days was to the same weekdays before each; 1 if unknown."""
    ratios = []
    for days in range(1, RECENT_DAYS + 1):
        recent = day - timedelta(days=days)
        own = None if is_holiday(recent) else figures_of(recent)
        if own is None or name not in own:
            continue
        known = [one[name].value for one in same_weekdays(recent, figures_of) if name in one]
        if len(known) >= MIN_DAYS and (usual := median(known)):
            ratios.append(own[name].value / usual)
    return median(ratios) if len(ratios) >= MIN_DAYS else 1.0


def is_holiday(day: date) -> bool:
    """Whether a day is a federal holiday, or the day on which it is observed."""
    return day in _holidays(day.year)


@cache
def _holidays(year: int) -> frozenset[date]:
    from pandas.tseries.holiday import USFederalHolidayCalendar  # noqa: PLC0415 - heavy at import

    days = USFederalHolidayCalendar().holidays(f"{year}-01-01", f"{year}-12-31")
    # Observed on Friday or Monday; the day itself is a holiday, too.
    fixed = {date(year, 1, 1), date(year, 7, 4), date(year, 12, 25)}
    return frozenset({one.date() for one in days} | fixed)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"  # noqa: PLR2004 - digits
