"""`taxi-assets diff`: the published file beside what was loaded; nothing is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from taxi_assets.cli.spans import UsageError
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
from taxi_assets.settings import Settings
from taxi_assets.tlc.raw_month import RawMonth
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.clean import clean_partition, convert_to_table
from taxi_assets.trips.row_diff import RowDiff, diff_content, diff_rows, sum_diffs


class Against(StrEnum):
    """What the published file is compared with."""

    file = "file"
    """The raw rows in the lake, of the file that was loaded last."""
    store = "store"
    """The cleaned rows in Postgres, in the lake and in BigQuery, each."""


@dataclass(frozen=True)
class DayDiff:
    """A day of one side, beside the published file."""

    side: str
    day: date
    diff: RowDiff | None
    """None: the day is not there."""


def side_named(text: str) -> Against:
    """Return what to compare with.

    Raises:
        UsageError: it is neither of the two.
    """
    if text not in set(Against):
        raise UsageError(f"--against {text}: choose from {', '.join(Against)}")
    return Against(text)


def compare(
    service: Service, window: DateRange, against: Against, progress: Callable[[str], None]
) -> Iterator[DayDiff]:
    """Fetch the published months, and yield each day of each side.

    Raises:
        SourceError: a month is not published, or its file is not what it should be.
        PartitionRejectedError: a stored object is damaged.
    """
    source, rules = SourceResource(), Settings.from_env().cleaning.drop
    raw = RawTripsIOManager({}, LakeResource())
    for month, days in group_days_by_month(window).items():
        file = source.month_file(service, month, progress)
        published = RawMonth(file, days, source.max_invalid_ratio(), source.max_day_bytes())
        split = split_month(published, progress)
        for day in days:
            content = split.get_spool(day).rows()
            if against == Against.file:
                loaded = raw.read_partition(service, day)
                diff = None
                if loaded is not None:
                    diff = diff_content(loaded.content, content, service)
                yield DayDiff("raw_trips", day, diff)
                continue
            cleaned = convert_to_table(clean_partition(content, service, rules).frame, service)
            for side, store in STORES.items():
                rows = _read(store(), service, day)
                yield DayDiff(side, day, _diff(rows, cleaned, service))


STORES: Mapping[str, Callable[[], PartitionIOManager[Any, Any]]] = {
    "postgres_trips": lambda: PostgresTripsIOManager({}, PostgresResource()),
    "gcs_trips": lambda: LakeTripsIOManager({}, LakeResource()),
    "bigquery_trips": lambda: BigQueryTripsIOManager({}, BigQueryResource()),
}


def _read(store: PartitionIOManager[Any, Any], service: Service, day: date) -> pa.Table | None:
    """Return the rows of a day; None if the store has none."""
    found = store.read_partition(service, day)
    table = found.table() if isinstance(found, StoredTrips) else found
    return (
        add_missing_columns(table, service.arrow_schema)
        if table is not None and len(table)
        else None
    )


def _diff(before: pa.Table | None, after: pa.Table, service: Service) -> RowDiff | None:
    return None if before is None else diff_rows(before, after, service)


def figures(found: Sequence[DayDiff]) -> dict[str, Any]:
    """Return the comparison as plain values."""
    diffs = [day.diff for day in found if day.diff is not None and not day.diff.is_empty]
    return {
        "days": [
            {"side": day.side, "day": str(day.day), **(day.diff.figures() if day.diff else {})}
            for day in found
            if day.diff is None or not day.diff.is_empty
        ],
        "total": sum_diffs(diffs).figures(),
    }


def print_diff(found: Sequence[DayDiff], console: Console) -> None:
    """Show the days that differ, the columns, and examples."""
    differing = [day for day in found if day.diff is None or not day.diff.is_empty]
    table = Table(box=None, pad_edge=False)
    for name in ("day", "in", "before", "published"):
        table.add_column(name)
    for name in ("added", "removed", "changed", "revenue"):
        table.add_column(name, justify="right")
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
        f"{days} of {len({day.day for day in found})} days differ: {total}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
