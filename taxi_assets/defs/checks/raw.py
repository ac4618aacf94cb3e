"""The checks of a month's file.

They are evaluated once per run, for no partition, because they concern the file and not a day.
"""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

from taxi_assets.dagster_internals.partition_records import CheckResult
from taxi_assets.date_ranges import merge_into_date_ranges
from taxi_assets.defs.checks.results import EXAMPLES, build_count_result, show_examples
from taxi_assets.defs.checks.specs import MAX_OUTSIDE_SHARE, WARN
from taxi_assets.partitions import TIMEZONE
from taxi_assets.tlc.csv_split import OUTSIDE
from taxi_assets.tlc.raw_month import RawMonth


def check_raw_month(month: RawMonth, today: date | None = None) -> list[CheckResult]:
    """Check a month's file after its pass.

    `today` is New York's date; a month that has not ended by then may have days without rows.
    """
    today = today or datetime.now(ZoneInfo(TIMEZONE)).date()
    is_over = month.file.month.window.end <= today
    empty = merge_into_date_ranges(month.days_without_rows) if is_over else []
    unit = "row" if month.is_parquet else "line"
    unreadable = [(row.line, row.reason) for row in month.unreadable[:EXAMPLES]]
    first = f", first {unit} {unreadable[0][0]}: {unreadable[0][1]}" if unreadable else ""
    unknown = month.header.unknown
    return [
        build_count_result(
            "rows_outside_month",
            month.rows[OUTSIDE],
            month.file_rows,
            "of the month's file have their pickup in another month",
            allowed=MAX_OUTSIDE_SHARE,
            severity=WARN,
        ),
        build_count_result(
            "rows_readable",
            len(month.unreadable),
            month.file_rows,
            f"of the month's file cannot be read{first}",
            severity=WARN,
            more=show_examples((unit, "reason"), unreadable),
        ),
        CheckResult(
            "known_columns",
            not unknown,
            {
                "unknown": ", ".join(unknown),
                "only_in_raw": ", ".join(month.header.raw_only),
            },
            WARN,
            f"{', '.join(unknown)}: stored in raw_trips only"
            if unknown
            else "every column was published before",
        ),
        CheckResult(
            "every_day_has_rows",
            not empty,
            {"days": sum(map(len, empty)), "without_rows": ", ".join(map(str, empty))},
            WARN,
            f"no row on {', '.join(map(str, empty))}: is the file truncated?"
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
