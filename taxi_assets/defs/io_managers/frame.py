"""The IO manager of `cleaned_trips`: a day's typed trips as a Parquet object in the lake."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date

import dagster as dg

from taxi_assets.dagster_internals.partition_records import PartitionRecord
from taxi_assets.defs.io_managers.base import PartitionIOManager, Records
from taxi_assets.defs.io_managers.partition_data import (
    CLEANED,
    CleanedPartition,
    Label,
    StoredTrips,
    encode_trips,
    open_stored_trips,
)
from taxi_assets.defs.metadata.day_metadata import build_object_metadata
from taxi_assets.defs.resources.lake import LakeResource
from taxi_assets.defs.resources.lake_keys import build_cleaned_key
from taxi_assets.lazy_partitions import LazyPartitions
from taxi_assets.tlc.schema import Service


@dataclass(eq=False)
class CleanedTripsIOManager(PartitionIOManager[LazyPartitions[CleanedPartition], StoredTrips]):
    """Stores one Parquet object per day, with the types of the service's schema."""

    lake: LakeResource

    def store(
        self, service: Service, value: LazyPartitions[CleanedPartition], log: dg.DagsterLogManager
    ) -> Records:
        """Replace the days' objects."""
        del log
        lake = self.hold_month_locks(self.lake.lake)

        def put_day(day: date, cleaned: CleanedPartition) -> PartitionRecord:
            key, label = build_cleaned_key(service, day), _build_label(service, day)
            metadata = {**label.to_metadata(), **cleaned.to_metadata(service)}
            size = lake.put(key, encode_trips(cleaned.table, metadata))
            seconds = round(time.perf_counter() - cleaned.began, 3)
            place = build_object_metadata(lake, key)
            return cleaned.record.add_metadata({"bytes": size, "seconds": seconds, **place})

        yield from value.map_with_day(put_day).iterate_outcomes()

    def read_partition(self, service: Service, day: date) -> StoredTrips | None:
        """Open a day's object, and verify every byte of it."""
        return open_stored_trips(
            self.lake.lake, build_cleaned_key(service, day), _build_label(service, day), service
        )

    def describe_place(self, service: Service) -> str:
        """Return the folder of the cleaned partitions."""
        return self.lake.lake.path(f"_cleaned/{service.name}")


def _build_label(service: Service, day: date) -> Label:
    return Label(service.name, CLEANED, str(day))
