"""The names, descriptions and limits of all checks.

The description of a check is shown on Dagster's page of the asset; it begins with the severity.
"""

from __future__ import annotations

from dagster import AssetCheckSeverity

from taxi_assets.tlc.column import Role
from taxi_assets.tlc.schema import Service

WARN, ERROR = AssetCheckSeverity.WARN, AssetCheckSeverity.ERROR

MAX_OUTSIDE_SHARE = 0.005
"""Share of a month file's rows: TLC's files have up to 0.1 % with a pickup in another month."""
MAX_NEGATIVE_SHARE = 0.02
"""Share of a day's rows: 0.1 to 1.0 % of the published rows are voids and refunds."""
MAX_UNEXPECTED_SHARE = 0.02
"""Share of a day's rows, per column: voids are 0.3 to 1.0 % of TLC's, vendor 4 of 2019 0.97 %."""
STOPS_DAY = "ERROR, keeps the day from every store"

RAW_CHECKS = {
    "rows_outside_month": f"WARN: at most {MAX_OUTSIDE_SHARE:.1%} of the month file's rows have "
    "their pickup in another month.",
    "rows_readable": "WARN: every row of the month's file has all fields and a pickup time. A file "
    "with more than TAXI_MAX_INVALID_RATIO of such rows stops the run.",
    "known_columns": "WARN: the month's file has no column that was never published before.",
    "every_day_has_rows": "WARN: each day of a month that is over has a row in its file.",
    "no_int96_times": "WARN: no column is stored as INT96, which most writers convert to UTC.",
}
"""Checks of a month's file."""
CLEANED_CHECKS = {
    "no_zero_passengers": f"{STOPS_DAY}: no row remains that a passenger rule of TAXI_DROP drops.",
    "schema_matches": f"{STOPS_DAY}: the frame has the schema's columns with their nullable types.",
    "rows_accounted_for": f"{STOPS_DAY}: raw rows = cleaned rows + dropped rows by reason.",
    "no_rows_outside_day": f"{STOPS_DAY}: every pickup is in [day 00:00, next day 00:00).",
    "not_empty": f"WARN: the day has rows. {STOPS_DAY}, if rules drop all of a thousand rows, or "
    "need a column that the file does not have.",
    "negative_totals": f"WARN: at most {MAX_NEGATIVE_SHARE:.0%} of the rows have a negative total "
    "(voids and refunds).",
    "values_readable": f"WARN: every value is of its column's type. {STOPS_DAY}, above "
    "TAXI_MAX_INVALID_RATIO of the day's rows.",
    "values_expected": f"WARN: at most {MAX_UNEXPECTED_SHARE:.0%} of the rows have a code that is "
    "not TLC's, a value out of range, or a dropoff before the pickup or a day later.",
    "usual_day": "WARN: rows, revenue, medians, empty columns and boroughs are like those of the "
    "same weekdays before. Passes if fewer than four of them are loaded.",
    "known_labels": "WARN: every label of a coded value is in TLC's dictionary.",
}
STORE_CHECKS = {
    "matches_cleaned": "ERROR, the day is stored: rows and sum of the total, read back from the "
    "store, equal those of the cleaned day."
}
AGREE = "stores_agree"
UP_TO_DATE = "up_to_date"
"""Check of each store, against the newest published month; it concerns no day."""


def list_cleaned_checks(service: Service) -> dict[str, str]:
    """Return the checks of a service's cleaned days, as far as it has their columns."""
    needs: dict[str, Role] = {"no_zero_passengers": "passengers", "negative_totals": "total"}
    return {
        name: description
        for name, description in CLEANED_CHECKS.items()
        if name not in needs or service.by_role.get(needs[name])
    }
