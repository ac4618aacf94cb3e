"""The keys of the lake's objects."""

from __future__ import annotations

from datetime import date

from taxi_assets.date_ranges import Month
from taxi_assets.settings.stores import LayoutName
from taxi_assets.tlc.schema import Service

LINES, ROWS = "csv.zst", "parquet"
"""Extensions of raw objects: lines of a CSV month, rows of a Parquet month."""


def build_raw_key(service: Service, day: date, kind: str = LINES) -> str:
    """Return the key of a day's raw partition."""
    return f"_raw/{service.name}/{day:%Y/%m/%d}/trips.{kind}"


def build_outside_key(service: Service, month: Month, kind: str = LINES) -> str:
    """Return the key of a month's rows with a pickup in another month."""
    return f"_raw/{service.name}/{month.year:04d}/{month.month:02d}/outside_month.{kind}"


def build_unreadable_key(service: Service, month: Month, kind: str = LINES) -> str:
    """Return the key of a month's invalid rows; `.reasons.csv` beside it has the reasons."""
    return f"_raw/{service.name}/{month.year:04d}/{month.month:02d}/unreadable.{kind}"


def build_cleaned_key(service: Service, day: date) -> str:
    """Return the key of a day's cleaned partition."""
    return f"_cleaned/{service.name}/{day:%Y/%m/%d}/trips.parquet"


def build_trips_key(service: Service, day: date, layout: LayoutName) -> str:
    """Return the key of a day's trips in the lake."""
    if layout == LayoutName.date:
        return f"{service.name}/{day:%Y/%m/%d}/daily-trips.parquet"
    return f"{service.name}/{service.day_column}={day}/trips.parquet"


def build_hive_prefix(service: Service) -> str:
    """Return the prefix of a service's keys in the hive layout, with BigQuery's `{name:DATE}`."""
    return f"{service.name}/{{{service.day_column}:DATE}}"


REPORT_INDEX = "_reports/index.html"
"""Key of the index of all reports."""


def build_report_key(service: Service, month: Month, kind: str) -> str:
    """Return the key of a month's report: `html` is the page, `png` the picture."""
    return f"_reports/{service.name}/{month}.{kind}"
