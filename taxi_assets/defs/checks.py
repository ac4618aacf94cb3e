"""Asset checks: what the old pipelines' block tests became.

ERROR checks on the cleaned frame are evaluated before the day is stored; a day that fails one is
recorded as failed and goes no further, while the run's other days do. Dagster's own `blocking`
stops the whole run, so the descriptions say what a check stops. A check of a month's file has no
partition: it is a fact of the file, once a run, and no day repeats it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import cache
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pandas as pd
from dagster import AssetCheckSeverity
from dagster_pandas import PandasColumn, create_dagster_pandas_dataframe_type
from dagster_pandas.constraints import ColumnDTypeInSetConstraint, StrictColumnsConstraint

from taxi_assets.dagster_internals.partition_records import CheckResult
from taxi_assets.date_ranges import Month, merge_into_date_ranges
from taxi_assets.defs.io_managers.base import Totals
from taxi_assets.defs.io_managers.partition_data import StoredTrips
from taxi_assets.defs.metadata.day_metadata import build_dropped_metadata
from taxi_assets.defs.outcomes import FailedChecksError
from taxi_assets.partitions import TIMEZONE
from taxi_assets.report.value_names import format_share, format_value
from taxi_assets.settings.areas import MAX_INVALID_RATIO
from taxi_assets.tlc.column import Role
from taxi_assets.tlc.csv_split import OUTSIDE
from taxi_assets.tlc.raw_month import MIN_HOPELESS_ROWS, RawMonth
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.clean import Cleaned, count_rows_outside_day
from taxi_assets.trips.rules import RULES

WARN, ERROR = AssetCheckSeverity.WARN, AssetCheckSeverity.ERROR

MAX_OUTSIDE_SHARE = 0.005
"""Of a month file's rows: TLC's own files have up to 0.1 % with a pickup in another month."""
MAX_NEGATIVE_SHARE = 0.02
"""Of a day's rows: voids and refunds are 0.1 to 1.0 % of the published ones."""
MAX_UNEXPECTED_SHARE = 0.02
"""Of a day's rows, for each column: voids are 0.3 to 1.0 % of TLC's, vendor 4 of 2019 0.97 %."""
STOPS_DAY = "ERROR, keeps the day from every store"
EXAMPLES = 5
"""Rows that a check shows."""

RAW_CHECKS = {
    "rows_outside_month": f"WARN: at most {MAX_OUTSIDE_SHARE:.1%} of the month file's rows have "
    "their pickup in another month.",
    "rows_readable": "WARN: every row of the month's file has all fields and a pickup time. A file "
    "with more than TAXI_MAX_INVALID_RATIO of such rows stops the run.",
    "known_columns": "WARN: the month's file has no column that was never published before.",
    "every_day_has_rows": "WARN: each day of a month that is over has a row in its file.",
    "no_int96_times": "WARN: no column is stored as INT96, which most writers convert to UTC.",
}
"""Of a month's file: evaluated once a run, for none of its days."""
CLEANED_CHECKS = {
    "no_zero_passengers": f"{STOPS_DAY}: no row is left that a passenger rule of TAXI_DROP drops.",
    "schema_matches": f"{STOPS_DAY}: the frame has the schema's columns with their nullable types.",
    "rows_accounted_for": f"{STOPS_DAY}: raw rows = cleaned rows + dropped rows by reason.",
    "no_rows_outside_day": f"{STOPS_DAY}: every pickup lies in [day 00:00, next day 00:00).",
    "not_empty": f"WARN: the day has rows. {STOPS_DAY}, where rules drop all of a thousand, or "
    "need a column that the file does not have.",
    "negative_totals": f"WARN: at most {MAX_NEGATIVE_SHARE:.0%} of the rows have a total below "
    "zero (voids and refunds).",
    "values_readable": f"WARN: every value is of its column's type. {STOPS_DAY}, past "
    "TAXI_MAX_INVALID_RATIO of the day's rows.",
    "values_expected": f"WARN: at most {MAX_UNEXPECTED_SHARE:.0%} of the rows have a code that is "
    "none of TLC's, a value outside of its range, or a dropoff before the pickup or a day later.",
    "usual_day": "WARN: rows, revenue, medians, empty columns and boroughs are like those of the "
    "same weekdays before. Passed if fewer than four of them are loaded.",
    "known_labels": "WARN: every label that stands for a value is in TLC's dictionary.",
}
STORE_CHECKS = {
    "matches_cleaned": "ERROR, the day is stored: rows and sum of the total, read back, are the "
    "cleaned day's."
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
    """Check specs of an asset, partitioned as it is; those of a month's file are not."""
    return [
        dg.AssetCheckSpec(
            name,
            asset=asset,
            description=description,
            partitions_def=None if name in RAW_CHECKS else partitions,
        )
        for name, description in checks.items()
    ]


def count_result(  # noqa: PLR0913 - one check, by name
    check: str,
    rows: int,
    of_rows: int,
    what: str,
    *,
    allowed: float = 0.0,
    severity: AssetCheckSeverity = ERROR,
    more: Mapping[str, Any] | None = None,
) -> CheckResult:
    """Return a check that counts rows: how many of how many, per cent, and whether it is too many.

    `what` says what is wrong with the rows; `allowed` is the share of them that may be.
    """
    limit = f"; up to {allowed:.1%} is usual" if allowed else ""
    share = format_share(rows, of_rows)
    return CheckResult(
        check,
        rows <= allowed * of_rows,
        {
            "rows": rows,
            "of_rows": of_rows,
            "per_cent": round(100 * rows / of_rows, 2) if of_rows else 0.0,
            **(more or {}),
        },
        severity,
        f"{rows:,} of {of_rows:,} rows{f' ({share})' if share else ''} {what}{limit}",
    )


def show_examples(names: Sequence[str], rows: Iterable[Sequence[object]]) -> dg.MetadataValue[Any]:
    """Return the first rows of a check's examples as a table."""
    records = [
        dg.TableRecord(dict(zip(names, map(format_value, row), strict=True)))
        for row in islice(rows, EXAMPLES)
    ]
    columns = [dg.TableColumn(name) for name in names]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def merge_months(results: Mapping[Month, Sequence[CheckResult]]) -> list[CheckResult]:
    """Return one result a check for all month files of a run; each month is named."""
    merged: list[CheckResult] = []
    for same_check in zip(*results.values(), strict=True):
        first_failed = next((one for one in same_check if not one.passed), same_check[-1])
        counts: dict[str, Any] = {
            name: sum(one.metadata[name] for one in same_check)
            for name in ("rows", "of_rows")
            if name in first_failed.metadata
        }
        if counts.get("of_rows"):
            counts["per_cent"] = round(100 * counts["rows"] / counts["of_rows"], 2)
        text = "; ".join(
            f"{month}: {one.description}"
            for month, one in zip(results, same_check, strict=True)
            if len(same_check) == 1 or one.passed == first_failed.passed
        )
        passed = all(one.passed for one in same_check)
        metadata = {**first_failed.metadata, **counts}
        merged.append(replace(first_failed, passed=passed, metadata=metadata, description=text))
    return merged


def check_raw_day(month: RawMonth, today: date | None = None) -> list[CheckResult]:
    """Return what is true of the month's file.

    `today` is New York's date; a month that is not over by then may have days without rows.
    """
    today = today or datetime.now(ZoneInfo(TIMEZONE)).date()
    is_over = month.file.month.window.end <= today
    empty = merge_into_date_ranges(month.days_without_rows) if is_over else []
    unit = "row" if month.is_parquet else "line"
    unreadable = [(one.line, one.reason) for one in month.unreadable[:EXAMPLES]]
    first = f", first {unit} {unreadable[0][0]}: {unreadable[0][1]}" if unreadable else ""
    header = month.header
    new = header.unknown if header else ()
    return [
        count_result(
            "rows_outside_month",
            month.rows[OUTSIDE],
            month.file_rows,
            "of the month's file have their pickup in another month",
            allowed=MAX_OUTSIDE_SHARE,
            severity=WARN,
        ),
        count_result(
            "rows_readable",
            len(month.unreadable),
            month.file_rows,
            f"of the month's file cannot be read{first}",
            severity=WARN,
            more={"examples": show_examples((unit, "reason"), unreadable)} if unreadable else None,
        ),
        CheckResult(
            "known_columns",
            not new,
            {
                "unknown": ", ".join(new),
                "only_in_raw": ", ".join(header.raw_only if header else ()),
            },
            WARN,
            f"{', '.join(new)}: kept in the raw slices, in no store"
            if new
            else "every column was published before",
        ),
        CheckResult(
            "every_day_has_rows",
            not empty,
            {"days": sum(map(len, empty)), "without_rows": ", ".join(map(str, empty))},
            WARN,
            f"no row on {', '.join(map(str, empty))}: was the file cut?"
            if empty
            else "every day of the month has rows",
        ),
        CheckResult(
            "no_int96_times",
            not month.int96,
            {"columns": ", ".join(month.int96)},
            WARN,
            f"{', '.join(month.int96)}: compare with the published hours, they may be UTC"
            if month.int96
            else "no column is stored as INT96",
        ),
    ]


def check_cleaned_day(
    day: date,
    cleaned: Cleaned,
    published_rows: int,
    service: Service,
    max_invalid_ratio: float = MAX_INVALID_RATIO,
) -> list[CheckResult]:
    """Run all checks of a cleaned day before it is stored.

    `published_rows` is what the raw slice was stored with; `most_unreadable` the share of a day's
    rows that may have an unreadable value before the day is refused.
    """
    frame = cleaned.frame
    typed = build_frame_type(service).type_check(None, frame)  # type: ignore[arg-type]  # reads no context
    counted = len(frame) + sum(cleaned.dropped.values())
    zero = _count_left_by_passenger_rules(frame, service, cleaned.rules)
    results = [
        count_result("no_zero_passengers", zero, len(frame), "should have been dropped"),
        CheckResult("schema_matches", typed.success, {}, ERROR, typed.description),
        CheckResult(
            "rows_accounted_for",
            published_rows == cleaned.raw_rows == counted,
            {
                "raw_rows": published_rows,
                "cleaned_rows": len(frame),
                **build_dropped_metadata(cleaned),
            },
            ERROR,
            f"{published_rows:,} raw rows = {len(frame):,} cleaned + {counted - len(frame):,} "
            "dropped"
            if published_rows == counted
            else f"{published_rows:,} raw rows are not {len(frame):,} cleaned + "
            f"{counted - len(frame):,} dropped",
        ),
        count_result(
            "no_rows_outside_day",
            count_rows_outside_day(frame, day, service),
            len(frame),
            "have their pickup on another day",
        ),
        _check_not_empty(cleaned, service),
        _check_negative_totals(frame, service),
        _check_values(cleaned, max_invalid_ratio),
        count_result(
            "known_labels",
            sum(cleaned.unknown_labels.values()),
            cleaned.raw_rows,
            "have a label that is not in TLC's dictionary",
            severity=WARN,
            more={"labels": dict(cleaned.unknown_labels)} if cleaned.unknown_labels else None,
        ),
    ]
    checked = cleaned_checks(service)
    return [result for result in results if result.check in checked]


def has_too_many_invalid(cleaned: Cleaned, max_invalid_ratio: float) -> bool:
    """Whether so many of a day's rows have an unreadable value that the day is rejected."""
    invalid = cleaned.dropped.get("unreadable", 0)
    return invalid > max_invalid_ratio * cleaned.raw_rows or 0 < invalid == cleaned.raw_rows


def _check_values(cleaned: Cleaned, max_invalid_ratio: float) -> CheckResult:
    invalid = cleaned.unreadable
    rejected = has_too_many_invalid(cleaned, max_invalid_ratio)
    what = "have a value that is not of its column's type"
    if rejected:
        what += f", more than {max_invalid_ratio:.1%} (TAXI_MAX_INVALID_RATIO)"
    if invalid:
        what += f": {'; '.join(map(str, invalid[:3]))}"
    rows = [(f"{one.unit} {one.row}", one.column, one.value) for one in invalid[:EXAMPLES]]
    return count_result(
        "values_readable",
        cleaned.dropped.get("unreadable", 0),
        cleaned.raw_rows,
        what,
        severity=ERROR if rejected else WARN,
        more={"examples": show_examples(("where", "column", "value"), rows)} if rows else None,
    )


def _check_negative_totals(frame: pd.DataFrame, service: Service) -> CheckResult:
    negative = frame[frame[service.total] < 0] if service.total else frame.head(0)
    names = [
        name
        for name in (
            service.pickup_column,
            service.find_role("payment"),
            service.find_role("fare"),
            service.total,
        )
        if name and name in frame
    ]
    names = list(dict.fromkeys(names))
    rows = negative[names].head(EXAMPLES).itertuples(index=False, name=None)
    return count_result(
        "negative_totals",
        len(negative),
        len(frame),
        "have a total below zero",
        allowed=MAX_NEGATIVE_SHARE,
        severity=WARN,
        more={"examples": show_examples(names, rows)} if len(negative) else None,
    )


def _check_not_empty(cleaned: Cleaned, service: Service) -> CheckResult:
    """Check that rows are left: a broken column must not empty a loaded day.

    A day of a few rows may be all of empty taxis. One of a thousand is not.
    """
    rows, metadata = len(cleaned.frame), {"rows": len(cleaned.frame)}
    columns = {name: RULES[name].columns(service) for name in cleaned.rules}
    absent = [
        f"{', '.join(columns[name])} (rule {name}) is not in the month file"
        for name, rows_dropped in cleaned.dropped.items()
        if rows_dropped
        and name in columns
        and not any(column in cleaned.published for column in columns[name])
    ]
    by_rules = sum(cleaned.dropped.get(name, 0) for name in columns)
    if rows or not by_rules or not (absent or by_rules >= MIN_HOPELESS_ROWS):
        text = f"{rows:,} rows are left of {cleaned.raw_rows:,}"
        return CheckResult("not_empty", rows > 0, metadata, WARN, text)
    why = (
        f"{'; '.join(absent) or 'is a column broken?'}: load a file that has it, or leave the rule "
        "out (TAXI_DROP)"
    )
    text = f"rules dropped all of {cleaned.raw_rows:,} rows; {why}"
    found = {**metadata, **build_dropped_metadata(cleaned), "why": why}
    return CheckResult("not_empty", False, found, ERROR, text)


def _count_left_by_passenger_rules(
    frame: pd.DataFrame, service: Service, rules: Sequence[str]
) -> int:
    """Count rows that a passenger rule should have dropped."""
    name = service.find_role("passengers")
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
        day: [_check_day_of_store(trips, *found.get(day, (0, 0.0)))]
        for day, trips in slices.items()
    }


def _check_day_of_store(trips: StoredTrips, rows: int, total: float) -> CheckResult:
    dollars = f", ${total:,.2f} of ${trips.total:,.2f}" if trips.total_column else ""
    return CheckResult(
        "matches_cleaned",
        compare_amounts((trips.rows, trips.total), (rows, total)),
        {
            "rows": rows,
            **dict.fromkeys(trips.total_metadata, round(total, 2)),
            "cleaned_rows": trips.rows,
            **{f"cleaned_{name}": round(of, 2) for name, of in trips.total_metadata.items()},
        },
        ERROR,
        f"{rows:,} of {trips.rows:,} rows{dollars}",
    )


def compare_amounts(one: tuple[int, float], other: tuple[int, float]) -> bool:
    """Equal counts, and sums equal to the cent they are shown with.

    Stores add floats up in another order, and half a cent may be rounded either way.
    """
    return one[0] == other[0] and math.isclose(one[1], other[1], rel_tol=1e-9, abs_tol=0.015)


@cache
def build_frame_type(service: Service) -> dg.DagsterType:
    """Build the dagster-pandas type of a service's cleaned frame from its columns."""
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
