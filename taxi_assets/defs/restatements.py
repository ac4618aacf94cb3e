"""Compare the days of a restated month file with the stored ones, before any is replaced.

The IO manager reads the former rows, the split month has the new ones; one day is in memory at a
time. The storage of the result belongs in `io_managers/restatement`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from taxi_assets.dagster_internals.partition_records import PartitionRecord
from taxi_assets.defs.io_managers.partition_data import RawPartition
from taxi_assets.defs.io_managers.restatement import RawRecord, Restatement
from taxi_assets.defs.month_split import SplitMonth
from taxi_assets.errors import PartitionRejectedError
from taxi_assets.report.restatement import render_restatement_page
from taxi_assets.tlc.cache import MonthFile
from taxi_assets.trips.row_diff import diff_content


def find_restatement(
    read_stored: Callable[[date], RawPartition | None], split: SplitMonth, day: date
) -> Restatement | None:
    """Compare a day of a month file with the stored day; None if no row differs.

    If the stored day comes from the same file, return the comparison of its first storage. A stored
    day that is damaged, or whose columns are no longer the service's, is replaced without a
    comparison.
    """
    file = split.month.file
    try:
        stored = read_stored(day)
        if stored is None:
            return None
        if stored.source_file.sha256 == file.sha256:
            return stored.restatement
        diff = diff_content(stored.content, split.get_spool(day).read_rows(), file.service)
    except PartitionRejectedError:
        return None
    if diff.is_empty:
        return None
    return Restatement(diff, stored.source_file.url, stored.source_file.sha256)


def build_restatement_metadata(change: Restatement | None) -> dict[str, Any]:
    """Return the metadata of a day on the rows that its file changed."""
    if change is None:
        return {}
    diff = change.diff
    revenue = {} if diff.revenue_change is None else {"revenue_change": diff.revenue_change}
    return {
        "restated": str(diff),
        "rows_added": diff.added,
        "rows_removed": diff.removed,
        "rows_changed": diff.changed,
        "restatement": {"columns": diff.columns, **diff.examples},
        "former_source": change.former_url,
        "former_source_sha256": change.former_sha256,
        **revenue,
    }


def build_restatement_page(
    file: MonthFile, records: Mapping[date, PartitionRecord]
) -> bytes | None:
    """Render the page of the days that a month's file changed; None if it changed none."""
    changes = {
        day: record.restatement
        for day, record in records.items()
        if day in file.month.window and isinstance(record, RawRecord) and record.restatement
    }
    if not changes:
        return None
    former = {
        f"{change.former_url} (SHA-256 {change.former_sha256})" for change in changes.values()
    }
    return render_restatement_page(
        file.service,
        file.month,
        {day: change.diff for day, change in changes.items()},
        "; ".join(sorted(former)),
        f"{file.url} (SHA-256 {file.sha256})",
    )
