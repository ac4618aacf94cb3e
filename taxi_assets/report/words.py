"""The report's numbers and days as people write them."""

from __future__ import annotations

import calendar
from collections.abc import Iterable
from datetime import date

from taxi_assets.date_ranges import Month, tile
from taxi_assets.report.figures import MonthFigures
from taxi_assets.report.zones import zone

THOUSAND, MILLION = 1e3, 1e6
SYNTHETIC = "Synthetic sample: made-up trips, none of TLC's"


def month_name(month: Month) -> str:
    """As October 2020."""
    return f"{calendar.month_name[month.month]} {month.year}"


def title(figures: MonthFigures) -> str:
    """What the report is of."""
    return f"{figures.service.name.capitalize()} trips, {month_name(figures.month)}"


def long_day(day: date) -> str:
    """As Friday 30 October."""
    return f"{calendar.day_name[day.weekday()]} {day.day} {calendar.month_name[day.month]}"


def short_money(dollars: float) -> str:
    """As $1.14M, $23.4k or $12."""
    size, sign = abs(dollars), "-" if dollars < 0 else ""
    if size >= MILLION:
        return f"{sign}${_trimmed(f'{size / MILLION:,.2f}')}M"
    if size >= THOUSAND:
        return f"{sign}${_trimmed(f'{size / THOUSAND:.1f}')}k"
    return f"{sign}${size:,.0f}"


def spans(days: Iterable[date]) -> str:
    """Days of one month, as 3 to 5, 17 and 20 October."""
    windows = tile(days)
    texts = [
        f"{one.start.day} to {max(one).day}" if len(one) > 1 else f"{one.start.day}"
        for one in windows
    ]
    *first, last = texts
    listed = f"{', '.join(first)} and {last}" if first else last
    return f"{listed} {calendar.month_name[windows[0].start.month]}"


def loaded(figures: MonthFigures) -> str:
    """How much of the month there is; names the days that are not loaded."""
    days, missing = len(figures.month.window), len(figures.missing)
    if not missing:
        return f"All {days} days are loaded"
    return (
        f"Partial month: {days - missing} of {days} days are loaded; "
        f"{spans(figures.missing)} {'is' if missing == 1 else 'are'} not"
    )


def headline(figures: MonthFigures) -> str:
    """The month in one sentence."""
    busiest = figures.busiest
    text = f"{figures.trips:,} trips"
    if figures.service.total:
        text += f" for {short_money(figures.revenue)}"
    text += f". {long_day(busiest)} was the busiest day, with {figures.days[busiest].trips:,}"
    if figures.zones:
        text += f"; most trips began in {zone(figures.zones.most_common(1)[0][0]).name}"
    return f"{text}."


def peak_hour(figures: MonthFigures) -> str:
    """The weekday and hour with the most trips."""
    trips, weekday, hour = max(
        (mean, -weekday, -hour)
        for weekday, row in enumerate(figures.by_hour)
        for hour, mean in enumerate(row or ())
    )
    return f"{calendar.day_name[-weekday]} at {-hour:02d}:00, {trips:,.0f} trips an hour"


def _trimmed(number: str) -> str:
    return number.rstrip("0").rstrip(".")
