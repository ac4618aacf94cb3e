"""Format the numbers, days and sentences of the month's report."""

from __future__ import annotations

import calendar
from collections.abc import Iterable
from datetime import date

from taxi_assets.date_ranges import Month, merge_into_date_ranges
from taxi_assets.errors import format_count
from taxi_assets.report.figures import MonthFigures
from taxi_assets.report.zones import find_zone

THOUSAND = 1e3
UNITS = ((1e12, 1e12, "T"), (1e10, 1e9, "B"), (1e6, 1e6, "M"))
"""From which amount a unit is used, the unit, and its name; a busy year has $1,300M."""
SYNTHETIC = "Synthetic sample: made-up trips, not TLC's"


def format_month(month: Month) -> str:
    """Format a month, for example October 2020."""
    return f"{calendar.month_name[month.month]} {month.year}"


def write_title(figures: MonthFigures) -> str:
    """Write the title of the report."""
    return f"{figures.service.label} trips, {format_month(figures.month)}"


def format_long_day(day: date) -> str:
    """Format a day, for example Friday 30 October."""
    return f"{calendar.day_name[day.weekday()]} {day.day} {calendar.month_name[day.month]}"


def format_short_money(dollars: float) -> str:
    """Format an amount, for example $1.14M, $23.4k or $12."""
    size, sign = abs(dollars), "-" if dollars < 0 else ""
    for least, unit, name in UNITS:
        if size >= least:
            return f"{sign}${_trim_number(f'{size / unit:,.2f}')}{name}"
    if size >= THOUSAND:
        return f"{sign}${_trim_number(f'{size / THOUSAND:.1f}')}k"
    return f"{sign}${size:,.0f}"


def format_day_spans(days: Iterable[date]) -> str:
    """Format days of one month, for example 3 to 5, 17 and 20 October."""
    windows = merge_into_date_ranges(days)
    texts = [
        f"{span.start.day} to {max(span).day}" if len(span) > 1 else f"{span.start.day}"
        for span in windows
    ]
    *first, last = texts
    listed = f"{', '.join(first)} and {last}" if first else last
    return f"{listed} {calendar.month_name[windows[0].start.month]}"


def describe_loaded_days(figures: MonthFigures) -> str:
    """Describe how much of the month is loaded, naming the days that are not."""
    days, missing = len(figures.month.window), len(figures.missing)
    if not missing:
        return f"All {days} days are loaded"
    return (
        f"Partial month: {days - missing} of {days} days are loaded; "
        f"{format_day_spans(figures.missing)} {'is' if missing == 1 else 'are'} not"
    )


def write_headline(figures: MonthFigures) -> str:
    """Write a sentence on the month."""
    busiest = figures.busiest
    text = format_count(figures.trips, "trip")
    if figures.has_money:
        text += f" for {format_short_money(figures.revenue)}"
    text += (
        f". {format_long_day(busiest)} was the busiest day, with {figures.days[busiest].trips:,}"
    )
    zones = (find_zone(location) for location, _ in figures.zones.most_common())
    # Trips without a zone, or outside the city, are no place where most trips began.
    busiest_zone = next((zone.name for zone in zones if zone.borough), None)
    if busiest_zone:
        text += f"; most trips began in {busiest_zone}"
    return f"{text}."


def name_average(figures: MonthFigures) -> str:
    """Return the label of the revenue per trip, for example Average total."""
    return f"Average {(figures.service.total or '').removesuffix('_amount').replace('_', ' ')}"


def compare_with_earlier(figures: MonthFigures) -> list[str]:
    """Compare trips and revenue a day with earlier months, in one sentence each."""
    days = len(figures.days)
    sentences: list[str] = []
    for earlier in figures.earlier:
        changes = [f"trips a day {_format_change(figures.trips / days, earlier.trips_a_day)}"]
        if figures.has_money and earlier.revenue_a_day:
            change = _format_change(figures.revenue / days, earlier.revenue_a_day)
            changes.append(f"revenue a day {change}")
        sentences.append(f"Against {format_month(earlier.month)}: {', '.join(changes)}.")
    return sentences


def _format_change(now: float, before: float) -> str:
    return f"{100 * (now / before - 1):+.1f}%" if before else "was 0"


def find_peak_hour(figures: MonthFigures) -> str:
    """Return the weekday and hour with the most trips, as text."""
    trips, weekday, hour = max(
        (mean, -weekday, -hour)
        for weekday, row in enumerate(figures.by_hour)
        for hour, mean in enumerate(row or ())
    )
    return f"{calendar.day_name[-weekday]} at {-hour:02d}:00, {format_mean(trips)} trips an hour"


def format_mean(mean: float) -> str:
    """Format a mean number of trips: whole, unless that would show a few trips as none."""
    return f"{mean:,.0f}" if mean >= 1 or not mean else f"{mean:.1g}"


def _trim_number(number: str) -> str:
    return number.rstrip("0").rstrip(".")
