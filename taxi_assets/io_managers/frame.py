"""Cleaned slices: a day's pandas frame as Parquet beside the raw slice."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import dagster as dg
import pyarrow as pa

from taxi_assets.days import Days
from taxi_assets.io_managers.base import DaysIOManager, Records, origin_metadata
from taxi_assets.record import DayRecord
from taxi_assets.resources.cleaning import cleaning_version
from taxi_assets.resources.lake import LakeResource, cleaned_key
from taxi_assets.services import Service
from taxi_assets.slices import CleanedDay, TripsSlice, encode, open_trips, total_of
from taxi_assets.trips.clean import to_table
from taxi_assets.trips.digest import ContentHash


class FrameIOManager(DaysIOManager[Days[CleanedDay], TripsSlice]):
    """One Parquet object a day, typed by the service's schema."""

    def __init__(self, services: Mapping[str, Service], lake: LakeResource) -> None:
        super().__init__(services)
        self.lake = lake

    def store(
        self, service: Service, value: Days[CleanedDay], log: dg.DagsterLogManager
    ) -> Records:
        """Replace the days' slices."""
        del log

        def put(day: date, cleaned: CleanedDay) -> DayRecord:
            table = to_table(cleaned.frame, service)
            total = round(total_of(table), 2)
            facts = {
                **cleaned.origin.facts(),
                "total_amount": total,
                "dropped": dict(cleaned.dropped),
            }
            key = cleaned_key(service, day)
            stored = self.lake.lake.put(key, encode(table, facts))
            metadata = {
                "dagster/partition_row_count": table.num_rows,
                "rows": table.num_rows,
                "raw_rows": cleaned.raw_rows,
                **{f"dropped_{reason}": rows for reason, rows in cleaned.dropped.items()},
                "total_amount": total,
                "rules": ", ".join(cleaned.rules) or "none",
                **_words(cleaned),
                "bytes": stored,
                "dagster/uri": self.lake.lake.path(key),
                **origin_metadata(cleaned.origin.facts()),
            }
            version = cleaning_version(cleaned.rules, cleaned.row_limit)
            return DayRecord(metadata, _data_version(table), version)

        yield from value.map_days(put)

    def open_day(self, service: Service, day: date) -> TripsSlice | None:
        """The day's slice, by its footer."""
        return open_trips(self.lake.lake, cleaned_key(service, day))

    def place(self, service: Service) -> str:
        """Folder of the cleaned slices."""
        return self.lake.lake.path(f"_cleaned/{service.name}")


def _words(cleaned: CleanedDay) -> dict[str, Any]:
    """Words that TLC's dictionary lacks, where there are any."""
    return {"unknown_words": dict(cleaned.unknown_words)} if cleaned.unknown_words else {}


def _data_version(table: pa.Table) -> str:
    """Hash of the rows: a rule or a file that changed none of them makes nothing stale."""
    content = ContentHash()
    for batch in table.combine_chunks().to_batches():
        content.update(batch)
    return content.hexdigest(table.schema.remove_metadata())[:32]
