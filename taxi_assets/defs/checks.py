"""Asset checks: what the old pipelines' block tests became.

ERROR checks on the cleaned frame are evaluated before the day is stored; a day that fails one is
recorded as failed and goes no further. Every check is evaluated for each day on its own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import cache
from zoneinfo import ZoneInfo

import dagster as dg
import pandas as pd
from dagster import AssetCheckSeverity
from dagster_pandas import PandasColumn, create_dagster_pandas_dataframe_type
from dagster_pandas.constraints import ColumnDTypeInSetConstraint, StrictColumnsConstraint

from taxi_assets.dagster_internals.partition_records import CheckResult
from taxi_assets.date_ranges import merge_into_date_ranges
from taxi_assets.defs.io_managers.base import Totals
from taxi_assets.defs.io_managers.partition_data import StoredTrips
from taxi_assets.defs.metadata.day_metadata import build_dropped_metadata
from taxi_assets.defs.outcomes import FailedChecksError
from taxi_assets.partitions import TIMEZONE
from taxi_assets.settings.areas import MAX_INVALID_RATIO
from taxi_assets.tlc.csv_split import OUTSIDE
from taxi_assets.tlc.raw_month import MIN_HOPELESS_ROWS, RawMonth
from taxi_assets.tlc.schema import Role, Service
from taxi_assets.trips.clean import Cleaned, find_outside_values
from taxi_assets.trips.rules import RULES

WARN, ERROR = AssetCheckSeverity.WARN, AssetCheckSeverity.ERROR

RAW_CHECKS = {
    "rows_outside_month": "WARN: no row of the month's file has its pickup in another month.",
    "rows_readable": "WARN: every row of the month's file has all fields and a pickup time.",
    "known_columns": "WARN: the month's file has no column that was never published before.",
    "every_day_has_rows": "WARN: each day of a month that is over has a row in its file.",
    "no_int96_times": "WARN: no column is stored as INT96, which most writers convert to UTC.",
}
CLEANED_CHECKS = {
    "no_zero_passengers": "ERROR: no row is left that a passenger rule of TAXI_DROP drops.",
    "schema_matches": "ERROR: the frame has the schema's columns with their nullable types.",
    "rows_accounted_for": "ERROR: raw rows = cleaned rows + dropped rows by reason.",
    "no_rows_outside_day": "ERROR: every pickup lies in [day 00:00, next day 00:00).",
    "not_empty": "WARN: the day has rows. ERROR where rules drop all of a thousand, or need a "
    "column that the file does not have.",
    "negative_totals": "WARN: no row has a total below zero (voids and refunds).",
    "values_readable": "WARN: every value is of its column's type. ERROR past "
    "TAXI_MAX_INVALID_RATIO of the day's rows.",
    "known_labels": "WARN: every label that stands for a value is in TLC's dictionary.",
}
STORE_CHECKS = {
    "matches_cleaned": "ERROR: rows and sum of the total, read back, are the cleaned day's."
}
AGREE = "stores_agree"


def cleaned_checks(service: Service) -> dict[str, str]:
    """Return the checks of a service's cleaned days: what has no column is not checked."""
    needs: dict[str, Role] = {"no_zero_passengers": "passengers", "negative_totals": "total"}
    return {
        name: description
        for name, description in CLEANED_CHECKS.items()
        if name not in needs or service.by_role.get(needs[name])
    }


def build_check_specs(
    asset: dg.AssetKey, checks: Mapping[str, str], partitions: dg.PartitionsDefinition[str]
) -> list[dg.AssetCheckSpec]:
    """Check specs of an asset, partitioned as it is."""
    return [
        dg.AssetCheckSpec(name, asset=asset, description=description, partitions_def=partitions)
        for name, description in checks.items()
    ]


def check_raw_day(month: RawMonth, today: date | None = None) -> list[CheckResult]:
    """Return what is true of the month's file, the same for each of its days.

    `today` is New York's date; a month that is not over by then may have days without rows.
    """
    today = today or datetime.now(ZoneInfo(TIMEZONE)).date()
    is_over = month.file.month.window.end <= today
    empty = merge_into_date_ranges(month.days_without_rows) if is_over else []
    outside_rows, unreadable = month.rows[OUTSIDE], len(month.unreadable)
    unit = "row" if month.is_parquet else "line"
    shown = [f"{unit} {one.line}: {one.reason}" for one in month.unreadable[:10]]
    header = month.header
    new = header.unknown if header else ()
    return [
        CheckResult(
            "rows_outside_month",
            outside_rows == 0,
            {"rows": outside_rows, "month_file_rows": month.file_rows},
            WARN,
        ),
        CheckResult(
            "rows_readable",
            unreadable == 0,
            {"rows": unreadable, "month_file_rows": month.file_rows, "first": "; ".join(shown)},
            WARN,
        ),
        CheckResult(
            "known_columns",
            not new,
            {
                "unknown": ", ".join(new),
                "only_in_raw": ", ".join(header.raw_only if header else ()),
            },
            WARN,
            f"{', '.join(new)}: kept in the raw slices, in no store" if new else None,
        ),
        CheckResult(
            "every_day_has_rows",
            not empty,
            {"days": sum(map(len, empty)), "without_rows": ", ".join(map(str, empty))},
            WARN,
            f"no row on {', '.join(map(str, empty))}: was the file cut?" if empty else None,
        ),
        CheckResult(
            "no_int96_times",
            not month.int96,
            {"columns": ", ".join(month.int96)},
            WARN,
            f"{', '.join(month.int96)}: compare with the published hours, they may be UTC"
            if month.int96
            else None,
        ),
    ]


def check_cleaned_day(
    day: date,
    cleaned: Cleaned,
    published_rows: int,
    service: Service,
    max_invalid_ratio: float = MAX_INVALID_RATIO,
) -> list[CheckResult]:
    """All checks of a cleaned day, before it is stored.

    `published_rows` is what the raw slice was stored with; `most_unreadable` the share of a day's
    rows that may have an unreadable value before the day is refused.
    """
    frame = cleaned.frame
    typed = build_frame_type(service).type_check(None, frame)  # type: ignore[arg-type]  # reads no context
    counted = len(frame) + sum(cleaned.dropped.values())
    zero = _count_left_by_passenger_rules(frame, service, cleaned.rules)
    strays = find_outside_values(frame, day, service)
    negative = int((frame[service.total] < 0).sum()) if service.total else 0
    labels = cleaned.unknown_labels
    unreadable = cleaned.dropped.get("unreadable", 0)
    results = [
        CheckResult("no_zero_passengers", zero == 0, {"rows": zero}),
        CheckResult("schema_matches", typed.success, {}, ERROR, typed.description),
        CheckResult(
            "rows_accounted_for",
            published_rows == cleaned.raw_rows == counted,
            {
                "raw_rows": published_rows,
                "cleaned_rows": len(frame),
                **build_dropped_metadata(cleaned),
            },
        ),
        CheckResult("no_rows_outside_day", strays == 0, {"rows": strays}),
        _check_not_empty(cleaned, service),
        CheckResult("negative_totals", negative == 0, {"rows": negative}, WARN),
        CheckResult(
            "values_readable",
            unreadable == 0,
            {"rows": unreadable, "first": "; ".join(map(str, cleaned.unreadable[:10]))},
            ERROR
            if unreadable > max_invalid_ratio * cleaned.raw_rows
            or 0 < unreadable == cleaned.raw_rows
            else WARN,
        ),
        CheckResult(
            "known_labels",
            not labels,
            {"rows": sum(labels.values()), "labels": dict(labels)},
            WARN,
        ),
    ]
    checked = cleaned_checks(service)
    return [result for result in results if result.check in checked]


def _check_not_empty(cleaned: Cleaned, service: Service) -> CheckResult:
    """Whether rows are left; a broken column must not empty a loaded day.

    A day of a few rows may be all of empty taxis. One of a thousand is not.
    """
    rows, metadata = len(cleaned.frame), {"rows": len(cleaned.frame)}
    columns = {name: RULES[name].column(service) for name in cleaned.rules}
    absent = [
        f"{columns[name]} (rule {name}) is not in the month file"
        for name, rows_dropped in cleaned.dropped.items()
        if rows_dropped and name in columns and columns[name] not in cleaned.published
    ]
    by_rules = sum(cleaned.dropped.get(name, 0) for name in columns)
    if rows or not by_rules or not (absent or by_rules >= MIN_HOPELESS_ROWS):
        return CheckResult("not_empty", rows > 0, metadata, WARN)
    why = (
        f"{'; '.join(absent) or 'is a column broken?'}: load a file that has it, or leave the rule "
        "out (TAXI_DROP)"
    )
    return CheckResult(
        "not_empty", False, {**metadata, **build_dropped_metadata(cleaned), "why": why}
    )


def _count_left_by_passenger_rules(
    frame: pd.DataFrame, service: Service, rules: Sequence[str]
) -> int:
    """Rows that a rule of passengers should have dropped."""
    name = service.first_of_role("passengers")
    if name is None:
        return 0
    passengers = frame[name]
    left = 0
    if "zero_passengers" in rules:
        left += int((passengers < 1).fillna(value=False).sum())
    if "null_passengers" in rules:
        left += int(passengers.isna().sum())
    return left


def reject_failed(results: Sequence[CheckResult]) -> None:
    """Reject a day that fails an ERROR check.

    Raises:
        FailedChecksError: naming the checks and what they found.
    """
    failed = [result for result in results if not result.passed and result.severity == ERROR]
    if failed:
        raise FailedChecksError(results, failed)


def check_stored_day(
    slices: Mapping[date, StoredTrips], found: Totals
) -> dict[date, list[CheckResult]]:
    """Compare what a store gives back with the cleaned days."""
    return {
        day: [
            CheckResult(
                "matches_cleaned",
                compare_amounts((trips.rows, trips.total), found.get(day, (0, 0.0))),
                {
                    "rows": found.get(day, (0, 0.0))[0],
                    **dict.fromkeys(trips.total_metadata, found.get(day, (0, 0.0))[1]),
                    "cleaned_rows": trips.rows,
                    **{f"cleaned_{name}": total for name, total in trips.total_metadata.items()},
                },
            )
        ]
        for day, trips in slices.items()
    }


def compare_amounts(one: tuple[int, float], other: tuple[int, float]) -> bool:
    """Equal counts, and sums equal to the cent: stores add floats up in another order."""
    return one[0] == other[0] and math.isclose(one[1], other[1], rel_tol=1e-9, abs_tol=0.005)


@cache
def build_frame_type(service: Service) -> dg.DagsterType:
    """The dagster-pandas type of a service's cleaned frame, from its columns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dagster-pandas marks its own constraints as beta
        return create_dagster_pandas_dataframe_type(
            name=f"{service.name.capitalize()}CleanedTrips",
            description=f"Cleaned {service.name} trips, one row a trip.",
            columns=[
                PandasColumn(name, constraints=[ColumnDTypeInSetConstraint({dtype})])
                for name, dtype in service.pandas_types.items()
            ],
            dataframe_constraints=[
                StrictColumnsConstraint(list(service.pandas_types), enforce_ordering=True)
            ],
        )
