"""The IO manager of `gcs_trips`: one Parquet object per day, in the folder for readers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import dagster as dg

from taxi_assets.dagster_internals.partition_records import PartitionRecord
from taxi_assets.defs.io_managers.base import Records, StoreIOManager, Totals
from taxi_assets.defs.io_managers.partition_data import StoredTrips, open_lake_trips
from taxi_assets.defs.metadata.day_metadata import build_object_metadata, build_trips_metadata
from taxi_assets.defs.resources.lake import LakeResource
from taxi_assets.defs.resources.lake_keys import build_trips_key
from taxi_assets.lazy_partitions import LazyPartitions
from taxi_assets.settings.stores import LayoutName
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.clean import sum_total_amount


@dataclass(eq=False)
class LakeTripsIOManager(StoreIOManager[StoredTrips]):
    """Stores a verified copy of a day's cleaned object."""

    lake: LakeResource

    def store(
        self, service: Service, value: Mapping[date, StoredTrips], log: dg.DagsterLogManager
    ) -> Records:
        """Replace the days' objects."""
        del log
        lake = self.hold_month_locks(self.lake.lake)

        def put_day(day: date) -> PartitionRecord:
            began = time.perf_counter()
            trips = value[day]
            key = build_trips_key(service, day, lake.layout)
            if lake.local:
                lake.put(key, trips.read_content())
            else:  # The server copies the object and verifies it.
                lake.copy(trips.key, key)
            # Another run may have written the day in the other layout.
            (other_layout,) = set(LayoutName) - {lake.layout}
            lake.delete(build_trips_key(service, day, other_layout))
            size = lake.size(key)
            seconds = time.perf_counter() - began
            return PartitionRecord(
                {
                    "bytes": size,
                    **build_object_metadata(lake, key),
                    **build_trips_metadata(trips, service, "cleaned_trips", "arrow", seconds),
                }
            )

        yield from LazyPartitions(list(value), put_day).iterate_outcomes()

    def read_partition(self, service: Service, day: date) -> StoredTrips | None:
        """Open a day's object and verify every byte of it."""
        return open_lake_trips(self.lake.lake, service, day)

    def describe_place(self, service: Service) -> str:
        """Return the folder of the service's days."""
        return self.lake.lake.path(service.name)

    def read_totals(
        self, service: Service, days: Sequence[date], log: dg.DagsterLogManager
    ) -> Totals:
        """Read the rows and sums of the days from their objects.

        A day whose object cannot be read is logged and left out, so that only its check fails.
        """

        def read_day_totals(day: date) -> tuple[int, float]:
            trips = self.read_partition(service, day)
            if trips is None:
                return 0, 0.0
            if service.total is None:
                return trips.rows, 0.0
            return trips.rows, sum_total_amount(trips.read_table([service.total]), service) or 0.0

        partitions = LazyPartitions(days, read_day_totals)
        totals = dict(partitions)
        for error in partitions.rejected.values():
            log.error(str(error))
        return totals
