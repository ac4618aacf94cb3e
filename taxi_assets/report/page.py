"""Render the month's report as a self-contained HTML page: no script, font or image to load."""

from __future__ import annotations

import calendar
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from taxi_assets.date_ranges import Month
from taxi_assets.report import month_text
from taxi_assets.report.bars import layout_revenue_bars
from taxi_assets.report.colours import DARK, LIGHT, pick_colour_step
from taxi_assets.report.figures import MonthFigures
from taxi_assets.report.quality import list_quality_parts, write_verdict
from taxi_assets.report.value_names import name_value
from taxi_assets.report.zone_map import ZoneMap
from taxi_assets.report.zones import Zone, find_zone

TOP_ZONES = 10


@dataclass(frozen=True)
class ZoneRow:
    """A row of a ranking: a zone or a way to pay."""

    name: str
    borough: str
    trips: int
    share: float
    width: float
    """Length of its bar in per cent of the longest."""


def render_month_page(figures: MonthFigures, zone_map: ZoneMap | None = None) -> bytes:
    """Render the page as UTF-8."""
    return render_template(
        "page.html",
        figures=figures,
        title=month_text.write_title(figures),
        headline=month_text.write_headline(figures),
        loaded=month_text.describe_loaded_days(figures),
        synthetic=month_text.SYNTHETIC if figures.synthetic else "",
        tiles=build_headline_tiles(figures),
        weeks=split_into_weeks(figures.month),
        weekdays=list(calendar.day_abbr),
        day_scale=find_day_scale(figures),
        most_an_hour=find_busiest_hour_mean(figures),
        peak=month_text.find_peak_hour(figures),
        zone_lists=[
            (f"Busiest {end} zones", f"Trips that {did} there, and their share.", rows)
            for end, did, rows in (
                ("pickup", "began", rank_pickup_zones(figures)),
                ("drop-off", "ended", _rank(figures, figures.dropoffs, find_zone, TOP_ZONES)),
            )
            if rows
        ],
        payments=rank_payments(figures),
        compared=month_text.compare_with_earlier(figures),
        bars=layout_revenue_bars(figures) if figures.has_money else None,
        parts=list_quality_parts(figures),
        verdict=write_verdict(figures),
        money=month_text.format_short_money,
        mean=month_text.format_mean,
        pick_step=pick_colour_step,
        zone_map=zone_map,
    )


def render_template(name: str, **values: Any) -> bytes:
    """Render a template of this folder as UTF-8; an undefined name in it is an error."""
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    themes = {"light": LIGHT, "dark": DARK}
    values |= {"themes": themes, "long_day": month_text.format_long_day}
    return templates.get_template(name).render(values).encode()


def build_headline_tiles(figures: MonthFigures) -> list[tuple[str, str]]:
    """Return the headline figures as pairs of label and value."""
    days = len(figures.days)
    tiles = [
        ("Trips", f"{figures.trips:,}"),
        ("Trips a day", month_text.format_mean(figures.trips / days)),
    ]
    if figures.has_money:
        tiles.append(("Revenue", month_text.format_short_money(figures.revenue)))
        if figures.trips:
            tiles.append(
                (month_text.name_average(figures), f"${figures.revenue / figures.trips:,.2f}")
            )
    if figures.service.find_role("pay") and figures.pay:
        tiles.append(("Driver pay", month_text.format_short_money(figures.pay)))
    if figures.shared is not None and figures.trips:
        tiles.append(("Shared rides", f"{figures.shared / figures.trips:.1%}"))
    if figures.tips and figures.revenue:
        tiles.append(("Tips, of revenue", f"{figures.tips / figures.revenue:.1%}"))
    for description, minutes in figures.mean_minutes.items():
        tiles.append((f"Mean {description.lower()}", f"{minutes:.1f} min"))
    tiles.append(("Days loaded", f"{days} of {len(figures.month.window)}"))
    return tiles


def find_day_scale(figures: MonthFigures) -> tuple[int, int]:
    """Return the trips of the quietest and the busiest loaded day."""
    trips = [day.trips for day in figures.days.values()]
    return min(trips), max(trips)


def split_into_weeks(month: Month) -> list[list[date | None]]:
    """Split a month into weeks from Monday; None pads the first and last week."""
    weeks = calendar.Calendar().monthdatescalendar(month.year, month.month)
    return [[day if day in month.window else None for day in week] for week in weeks]


def rank_pickup_zones(figures: MonthFigures) -> list[ZoneRow]:
    """Return the busiest pickup zones, most trips first."""
    return _rank(figures, figures.zones, find_zone, TOP_ZONES)


def rank_payments(figures: MonthFigures) -> list[ZoneRow]:
    """Return the ways to pay, most trips first; empty if the service does not publish them."""
    columns = figures.service.by_role.get("payment", ())
    names = {
        code: "not recorded" if code is None else name_value(columns[0], code)
        for code in figures.payments
        if columns
    }
    return _rank(figures, figures.payments, lambda code: Zone(names[code], "")) if names else []


def _rank(
    figures: MonthFigures,
    trips_by_id: Counter[int | None],
    find: Callable[[int | None], Zone],
    most: int | None = None,
) -> list[ZoneRow]:
    ranked = trips_by_id.most_common(most)
    return [
        ZoneRow(zone.name, zone.borough, trips, trips / figures.trips, 100 * trips / ranked[0][1])
        for zone, trips in ((find(number), trips) for number, trips in ranked)
    ]


def find_busiest_hour_mean(figures: MonthFigures) -> float:
    """Return the mean number of trips in the busiest hour of any weekday."""
    return max(max(row) for row in figures.by_hour if row)
