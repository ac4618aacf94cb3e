"""Checks of what a cleaned day's values say: are they as expected, and is the day as usual.

Both are WARN: such days are in TLC's own files, and are stored. Checks that keep a day from the
stores belong in `checks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import pyarrow as pa

from taxi_assets.dagster_internals.partition_records import CheckResult
from taxi_assets.defs.checks import MAX_UNEXPECTED_SHARE, WARN, show_examples
from taxi_assets.defs.same_weekdays import SameWeekdays
from taxi_assets.report.day_picture import Figures
from taxi_assets.report.zones import find_zone
from taxi_assets.settings import Settings
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.expected_values import find_violations
from taxi_assets.trips.usual_day import MIN_DAYS, Figure, Unusual, find_unusual

SHOWN = 5
"""Figures that the description of an unusual day names; the table has all."""


def check_expected_values(table: pa.Table, service: Service) -> CheckResult:
    """Whether few enough rows break each expectation of the schema, with the first that do."""
    broken = find_violations(table, service)
    rows = table.num_rows
    too_many = [one for one in broken if one.rows > MAX_UNEXPECTED_SHARE * rows]
    named = too_many or broken
    text = "; ".join(
        f"{one.rows:,} rows ({one.rows / rows:.2%}) {one.expectation.description}" for one in named
    )
    limit = f"; up to {MAX_UNEXPECTED_SHARE:.0%} is usual" if broken else ""
    examples = [
        (one.expectation.description, ", ".join(f"{name}={value}" for name, value in row.items()))
        for one in named
        for row in one.examples
    ]
    return CheckResult(
        "values_expected",
        not too_many,
        {
            "of_rows": rows,
            **{_name(one.expectation.columns, one.expectation.rule): one.rows for one in broken},
            **({"examples": show_examples(("rows", "values"), examples)} if examples else {}),
        },
        WARN,
        f"{text or f'all of {rows:,} rows are as the schema expects'}{limit}",
    )


def _name(columns: tuple[str, ...], rule: str) -> str:
    return f"{rule}_{columns[0]}" if len(columns) == 1 else rule


def find_unusual_figures(day: date, days: SameWeekdays) -> list[Unusual] | None:
    """Compare a day with the same weekdays before; None if too few are loaded."""

    def figures_of(one: date) -> Mapping[str, Figure] | None:
        found = days.of(one)
        return None if found is None else name_figures(found)

    threshold = Settings.from_env().cleaning.unusual_deviations
    return find_unusual(day, figures_of, threshold)


def check_usual_day(day: date, unusual: Sequence[Unusual] | None) -> CheckResult:
    """Whether a day's figures are like those of the same weekdays before."""
    if unusual is None:
        text = f"fewer than {MIN_DAYS} {day:%A}s before are loaded: not compared"
        return CheckResult("usual_day", passed=True, severity=WARN, description=text)
    listed = "; ".join(map(str, unusual[:SHOWN]))
    more = f" and {len(unusual) - SHOWN} more" if len(unusual) > SHOWN else ""
    rows = [
        (one.name, round(one.value, 4), round(one.usual, 4), f"{one.deviations:+.1f}")
        for one in unusual
    ]
    names = ("figure", "value", "usual", "deviations")
    return CheckResult(
        "usual_day",
        not unusual,
        {"unusual": len(unusual), **({"figures": show_examples(names, rows)} if rows else {})},
        WARN,
        f"{listed}{more} (median of the {day:%A}s before)" if unusual else "as usual",
    )


def name_figures(figures: Figures) -> dict[str, Figure]:
    """Return the compared figures of a day by their names."""
    profile = figures.profile
    found = {"trips": Figure(profile.rows, "volume")}
    if figures.revenue is not None:
        found["revenue"] = Figure(figures.revenue, "volume")
    for name, value in profile.medians.items():
        found[f"median {name}"] = Figure(value, "median")
    if not profile.rows:
        return found
    for column in profile.columns:
        found[f"rows without {column.column}"] = Figure(column.nulls / profile.rows, "share")
    boroughs: dict[str, int] = {}
    for zone, rows in profile.zones.items():
        borough = find_zone(int(zone)).borough or "an unknown borough"
        boroughs[borough] = boroughs.get(borough, 0) + rows
    for borough, rows in boroughs.items():
        found[f"pickups in {borough}"] = Figure(rows / profile.rows, "share")
    return found
