"""Checks of a cleaned day's values: whether they are expected, and whether the day is usual.

Both are WARN, because TLC's files have such days; the days are stored. Checks that reject a day
belong in `checks/cleaned.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import pyarrow as pa

from taxi_assets.dagster_internals.partition_records import CheckResult
from taxi_assets.defs.checks.results import show_examples
from taxi_assets.defs.checks.specs import MAX_UNEXPECTED_SHARE, WARN
from taxi_assets.defs.same_weekdays import SameWeekdays
from taxi_assets.errors import format_list
from taxi_assets.report.day_picture import Figures
from taxi_assets.report.value_names import format_share
from taxi_assets.report.zones import find_zone
from taxi_assets.settings import Settings
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.expected_values import Expectation, find_violations
from taxi_assets.trips.usual_day import MIN_DAYS, Figure, Unusual, find_unusual


def check_expected_values(table: pa.Table, service: Service) -> CheckResult:
    """Check that few rows violate each expectation of the schema, with examples."""
    violations = find_violations(table, service)
    rows = table.num_rows
    too_many = [each for each in violations if each.rows > MAX_UNEXPECTED_SHARE * rows]
    reported = too_many or violations
    text = "; ".join(
        f"{violation.rows:,} of {rows:,} rows ({format_share(violation.rows, rows)}) "
        f"{violation.expectation.description}"
        for violation in reported
    )
    limit = f"; up to {MAX_UNEXPECTED_SHARE:.0%} is usual" if violations else ""
    examples = [
        (
            violation.expectation.description,
            ", ".join(f"{name}={value}" for name, value in row.items()),
        )
        for violation in reported
        for row in violation.examples
    ]
    return CheckResult(
        "values_expected",
        not too_many,
        {
            "of_rows": rows,
            **{_build_name(violation.expectation): violation.rows for violation in violations},
            **show_examples(("rows", "values"), examples),
        },
        WARN,
        f"{text or f'all of {rows:,} rows are as the schema expects'}{limit}",
    )


def _build_name(expectation: Expectation) -> str:
    columns, rule = expectation.columns, expectation.rule
    return f"{rule}_{columns[0]}" if len(columns) == 1 else rule


def find_unusual_figures(day: date, days: SameWeekdays) -> list[Unusual] | None:
    """Compare a day with the same weekdays before; None if too few are loaded."""

    def find_figures(day: date) -> Mapping[str, Figure] | None:
        figures = days.of(day)
        return None if figures is None else name_figures(figures)

    threshold = Settings.from_env().cleaning.unusual_deviations
    return find_unusual(day, find_figures, threshold)


def check_usual_day(day: date, unusual: Sequence[Unusual] | None) -> CheckResult:
    """Check that a day's figures are like those of the same weekdays before it."""
    if unusual is None:
        text = f"fewer than {MIN_DAYS} {day:%A}s before are loaded: not compared"
        return CheckResult("usual_day", passed=True, severity=WARN, description=text)
    rows = [
        (figure.name, round(figure.value, 4), round(figure.usual, 4), f"{figure.deviations:+.1f}")
        for figure in unusual
    ]
    names = ("figure", "value", "usual", "deviations")
    return CheckResult(
        "usual_day",
        not unusual,
        {"unusual": len(unusual), **show_examples(names, rows, key="figures")},
        WARN,
        f"{format_list(unusual, '; ')} (median of the {day:%A}s before)" if unusual else "as usual",
    )


def name_figures(figures: Figures) -> dict[str, Figure]:
    """Return the compared figures of a day by name."""
    profile = figures.profile
    named = {"trips": Figure(profile.rows, "volume")}
    if figures.revenue is not None:
        named["revenue"] = Figure(figures.revenue, "volume")
    for name, value in profile.medians.items():
        named[f"median {name}"] = Figure(value, "median")
    if not profile.rows:
        return named
    for column in profile.columns:
        named[f"rows without {column.column}"] = Figure(column.nulls / profile.rows, "share")
    boroughs: dict[str, int] = {}
    for zone, rows in profile.zones.items():
        borough = find_zone(int(zone)).borough or "an unknown borough"
        boroughs[borough] = boroughs.get(borough, 0) + rows
    for borough, rows in boroughs.items():
        named[f"pickups in {borough}"] = Figure(rows / profile.rows, "share")
    return named
