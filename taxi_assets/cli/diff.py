"""The command `taxi-assets diff`: compare the published file with loaded days; store nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import pyarrow as pa
from rich.console import Console

from taxi_assets.cli.tables import build_table
from taxi_assets.date_ranges import DateRange, group_days_by_month
from taxi_assets.defs.io_managers.base import PartitionIOManager
from taxi_assets.defs.io_managers.bigquery import BigQueryTripsIOManager
from taxi_assets.defs.io_managers.lake_parquet import LakeTripsIOManager
from taxi_assets.defs.io_managers.partition_data import StoredTrips, add_missing_columns
from taxi_assets.defs.io_managers.postgres import PostgresTripsIOManager
from taxi_assets.defs.io_managers.raw_trips import RawTripsIOManager
from taxi_assets.defs.month_split import split_month
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.defs.resources.lake import LakeResource
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.defs.resources.source import SourceResource
from taxi_assets.errors import format_count
from taxi_assets.settings import Settings
from taxi_assets.tlc.raw_month import RawMonth
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.clean import clean_partition
from taxi_assets.trips.row_diff import RowDiff, diff_content, diff_rows, sum_diffs


@dataclass(frozen=True)
class DayDiff:
    """The comparison of one side's day with the published file."""

    side: str
    day: date
    diff: RowDiff | None
    """None if the side does not have the day."""


def compare_days(
    service: Service, window: DateRange, progress: Callable[[str], None], *, stores: bool
) -> Iterator[DayDiff]:
    """Fetch the published months, and compare each day with the raw rows in the lake.

    They are from the last loaded file. With `stores`, compare the cleaned rows of each store.

    Raises:
        SourceError: a month is not published, or its file is invalid.
        PartitionRejectedError: a stored object is damaged.
    """
    source, rules = SourceResource(), Settings.from_env().cleaning.drop
    raw = RawTripsIOManager({}, LakeResource())
    for month, days in group_days_by_month(window).items():
        file = source.fetch_month_file(service, month, progress)
        published = RawMonth(file, days, source.max_invalid_ratio(), source.max_day_bytes())
        split = split_month(published, progress)
        for day in days:
            content = split.get_spool(day).read_rows()
            if not stores:
                loaded = raw.read_partition(service, day)
                diff = None
                if loaded is not None:
                    diff = diff_content(loaded.content, content, service)
                yield DayDiff("raw_trips", day, diff)
                continue
            cleaned = clean_partition(content, service, rules).table
            for side, store in STORES.items():
                rows = _read_rows(store(), service, day)
                if rows is None and not len(cleaned):
                    rows = cleaned  # The SQL stores know no day without rows.
                diff = None if rows is None else diff_rows(rows, cleaned, service)
                yield DayDiff(side, day, diff)


STORES: Mapping[str, Callable[[], PartitionIOManager[Any, Any]]] = {
    "postgres_trips": lambda: PostgresTripsIOManager({}, PostgresResource()),
    "gcs_trips": lambda: LakeTripsIOManager({}, LakeResource()),
    "bigquery_trips": lambda: BigQueryTripsIOManager({}, BigQueryResource()),
}


def _read_rows(store: PartitionIOManager[Any, Any], service: Service, day: date) -> pa.Table | None:
    """Return the rows of a day; None if the store has none."""
    partition = store.read_partition(service, day)
    table = partition.read_table() if isinstance(partition, StoredTrips) else partition
    return (
        add_missing_columns(table, service.arrow_schema)
        if table is not None and len(table)
        else None
    )


def build_figures(compared: Sequence[DayDiff]) -> dict[str, Any]:
    """Return the comparison as plain values."""
    diffs = [day.diff for day in compared if day.diff is not None and not day.diff.is_empty]
    return {
        "days": [
            {"side": day.side, "day": str(day.day), **(asdict(day.diff) if day.diff else {})}
            for day in compared
            if day.diff is None or not day.diff.is_empty
        ],
        "total": asdict(sum_diffs(diffs)),
    }


def print_diff(compared: Sequence[DayDiff], console: Console) -> None:
    """Show the days that differ, the columns, and examples."""
    differing = [day for day in compared if day.diff is None or not day.diff.is_empty]
    numbers = ("added", "removed", "changed", "revenue")
    table = build_table("day", "in", "before", "published", numbers=numbers)
    for day in differing:
        diff = day.diff
        if diff is None:
            table.add_row(str(day.day), day.side, "absent")
            continue
        money = "" if diff.revenue_change is None else f"{diff.revenue_change:+,.2f}"
        counts = (diff.rows_before, diff.rows_after, diff.added, diff.removed, diff.changed)
        table.add_row(str(day.day), day.side, *(f"{count:,}" for count in counts), money)
    if differing:
        console.print(table)
    total = sum_diffs(day.diff for day in differing if day.diff)
    for kind, rows in total.examples.items():
        for row in rows:
            text = row
            if kind == "changed":
                changes = (f"{name} {a} -> {b}" for name, (a, b) in row["changes"].items())
                text = f"{row['pickup']}: {', '.join(changes)}"
            console.print(f"{kind}: {text}", markup=False, highlight=False, soft_wrap=True)
    days = len({day.day for day in differing})
    console.print(
        f"{days} of {format_count(len({day.day for day in compared}), 'day')} differ: {total}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
