"""The checks of a day's cleaned rows, before the day is stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import cache

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from dagster_pandas import PandasColumn, create_dagster_pandas_dataframe_type
from dagster_pandas.constraints import ColumnDTypeInSetConstraint, StrictColumnsConstraint

from taxi_assets.dagster_internals.partition_records import CheckResult
from taxi_assets.defs.checks.results import EXAMPLES, build_count_result, show_examples
from taxi_assets.defs.checks.specs import ERROR, MAX_NEGATIVE_SHARE, WARN, list_cleaned_checks
from taxi_assets.defs.metadata.day_metadata import build_dropped_metadata
from taxi_assets.defs.outcomes import FailedChecksError
from taxi_assets.settings.areas import MAX_INVALID_RATIO
from taxi_assets.tlc.raw_month import MIN_HOPELESS_ROWS
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.clean import Cleaned, convert_to_frame, count_rows_outside_day
from taxi_assets.trips.rules import RULES


def check_cleaned_day(
    day: date,
    cleaned: Cleaned,
    published_rows: int,
    service: Service,
    max_invalid_ratio: float = MAX_INVALID_RATIO,
) -> list[CheckResult]:
    """Run all checks of a cleaned day.

    `published_rows` is the number of rows of the raw partition; `max_invalid_ratio` the share of
    rows with an unreadable value above which the day is rejected.
    """
    table, rows = cleaned.table, cleaned.table.num_rows
    typed = _check_frame_types(service, table.schema)
    dropped = sum(cleaned.dropped.values())
    remaining = _count_missed_by_passenger_rules(table, service, cleaned.rules)
    results = [
        build_count_result("no_zero_passengers", remaining, rows, "should have been dropped"),
        CheckResult("schema_matches", typed.success, {}, ERROR, typed.description),
        CheckResult(
            "rows_accounted_for",
            published_rows == cleaned.raw_rows == rows + dropped,
            {
                "raw_rows": published_rows,
                "cleaned_rows": rows,
                **build_dropped_metadata(cleaned),
            },
            ERROR,
            f"{published_rows:,} raw rows "
            f"{'=' if published_rows == rows + dropped else 'are not'} "
            f"{rows:,} cleaned + {dropped:,} dropped",
        ),
        build_count_result(
            "no_rows_outside_day",
            count_rows_outside_day(table, day, service),
            rows,
            "have their pickup on another day",
        ),
        _check_not_empty(cleaned, service),
        _check_negative_totals(table, service),
        _check_values(cleaned, max_invalid_ratio),
        build_count_result(
            "known_labels",
            sum(cleaned.unknown_labels.values()),
            cleaned.raw_rows,
            "have a label that is not in TLC's dictionary",
            severity=WARN,
            more={"labels": dict(cleaned.unknown_labels)} if cleaned.unknown_labels else None,
        ),
    ]
    names = list_cleaned_checks(service)
    return [result for result in results if result.check in names]


def has_too_many_invalid(cleaned: Cleaned, max_invalid_ratio: float) -> bool:
    """Return whether a day has too many rows with an unreadable value and must be rejected."""
    invalid = cleaned.dropped.get("unreadable", 0)
    return invalid > max_invalid_ratio * cleaned.raw_rows or 0 < invalid == cleaned.raw_rows


def _check_values(cleaned: Cleaned, max_invalid_ratio: float) -> CheckResult:
    invalid = cleaned.unreadable
    rejected = has_too_many_invalid(cleaned, max_invalid_ratio)
    predicate = "have a value that is not of its column's type"
    if rejected:
        predicate += f", more than {max_invalid_ratio:.1%} (TAXI_MAX_INVALID_RATIO)"
    if invalid:
        predicate += f": {'; '.join(map(str, invalid[:3]))}"
    rows = [(f"{value.unit} {value.row}", value.column, value.value) for value in invalid]
    return build_count_result(
        "values_readable",
        cleaned.dropped.get("unreadable", 0),
        cleaned.raw_rows,
        predicate,
        severity=ERROR if rejected else WARN,
        more=show_examples(("where", "column", "value"), rows),
    )


def _check_negative_totals(table: pa.Table, service: Service) -> CheckResult:
    candidates = (
        service.pickup_column,
        service.find_role("payment"),
        service.find_role("fare"),
        service.total,
    )
    names = list(dict.fromkeys(name for name in candidates if name))
    negative = table.select(names).slice(0, 0)
    if service.total:
        negative = table.select(names).filter(pc.less(table[service.total], 0))
    rows = [list(row.values()) for row in negative.slice(0, EXAMPLES).to_pylist()]
    return build_count_result(
        "negative_totals",
        negative.num_rows,
        table.num_rows,
        "have a negative total",
        allowed=MAX_NEGATIVE_SHARE,
        severity=WARN,
        more=show_examples(names, rows),
    )


def _check_not_empty(cleaned: Cleaned, service: Service) -> CheckResult:
    """Check that rows remain, so that a broken column does not empty a loaded day.

    All of a few rows may be trips without passengers, but not all of a thousand.
    """
    rows = cleaned.table.num_rows
    metadata = {"rows": rows}
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
        text = f"{rows:,} of {cleaned.raw_rows:,} rows remain"
        return CheckResult("not_empty", rows > 0, metadata, WARN, text)
    reason = (
        f"{'; '.join(absent) or 'is a column broken?'}: load a file with this column, or remove "
        "the rule from TAXI_DROP"
    )
    text = f"rules dropped all of {cleaned.raw_rows:,} rows; {reason}"
    metadata |= build_dropped_metadata(cleaned)
    return CheckResult("not_empty", False, {**metadata, "why": reason}, ERROR, text)


def _count_missed_by_passenger_rules(
    table: pa.Table, service: Service, rules: Sequence[str]
) -> int:
    """Return the number of rows that a passenger rule should have dropped."""
    name = service.find_role("passengers")
    if name is None:
        return 0
    passengers = table[name]
    missed = 0
    if "zero_passengers" in rules:
        missed += int(pc.sum(pc.less(passengers, 1)).as_py() or 0)
    if "null_passengers" in rules:
        missed += passengers.null_count
    return missed


def reject_failed(results: Sequence[CheckResult], service: Service) -> None:
    """Reject a day that fails an ERROR check.

    The other checks of the service get a result that says so: in a failed run Dagster shows a check
    without a result as failed.

    Raises:
        FailedChecksError: naming the failed checks and their results.
    """
    failed = [result for result in results if not result.passed and result.severity == ERROR]
    if failed:
        others = list_cleaned_checks(service).keys() - {result.check for result in results}
        text = f"not checked: {', '.join(result.check for result in failed)} rejects the day"
        unchecked = [
            CheckResult(name, passed=True, severity=WARN, description=text)
            for name in sorted(others)
        ]
        raise FailedChecksError([*results, *unchecked], failed)


@cache
def _check_frame_types(service: Service, schema: pa.Schema) -> dg.TypeCheck:
    """Check the types of the frame of a table; they depend on the table's schema alone."""
    frame_type = create_dagster_pandas_dataframe_type(
        name=f"{service.name.capitalize()}CleanedTrips",
        columns=[
            PandasColumn(name, constraints=[ColumnDTypeInSetConstraint({dtype})])
            for name, dtype in service.pandas_types.items()
        ],
        dataframe_constraints=[
            StrictColumnsConstraint(list(service.pandas_types), enforce_ordering=True)
        ],
    )
    frame = convert_to_frame(schema.empty_table())
    return frame_type.type_check(None, frame)
