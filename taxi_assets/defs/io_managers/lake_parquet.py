"""The lake: one Parquet object a day under the folder that people read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import date

import dagster as dg

from taxi_assets.dagster_internals.partition_records import PartitionRecord
from taxi_assets.defs.io_managers.base import Records, StoreIOManager, Totals
from taxi_assets.defs.io_managers.partition_data import StoredTrips, open_lake_trips
from taxi_assets.defs.metadata.day_metadata import build_trips_metadata, object_metadata
from taxi_assets.defs.resources.lake import LakeResource, build_trips_key
from taxi_assets.lazy_partitions import LazyPartitions
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.clean import sum_total_amount


class LakeTripsIOManager(StoreIOManager[StoredTrips]):
    """Puts a verified copy of a day's cleaned object into the lake."""

    def __init__(self, services: Mapping[str, Service], lake: LakeResource) -> None:
        super().__init__(services)
        self.lake = lake

    def store(
        self, service: Service, value: Mapping[date, StoredTrips], log: dg.DagsterLogManager
    ) -> Records:
        """Replace the days' objects."""
        del log
        lake = self.hold_month_locks(self.lake.lake)

        def put(day: date) -> PartitionRecord:
            began = time.perf_counter()
            trips = value[day]
            key = build_trips_key(service, day, lake.layout)
            if lake.local:
                lake.put(key, trips.content())
            else:  # it never leaves the server, which verifies what it stores
                lake.copy(trips.key, key)
            # A day is in the folder once, also when another run wrote it in the other layout.
            lake.delete(build_trips_key(service, day, "date" if lake.layout == "hive" else "hive"))
            size = lake.size(key)
            seconds = time.perf_counter() - began
            return PartitionRecord(
                {
                    "bytes": size,
                    **object_metadata(lake, key),
                    **build_trips_metadata(trips, service, "cleaned_trips", "arrow", seconds),
                }
            )

        yield from LazyPartitions(list(value), put).iterate_outcomes()

    def read_partition(self, service: Service, day: date) -> StoredTrips | None:
        """Open a day's object and verify every byte of it."""
        return open_lake_trips(self.lake.lake, service, day)

    def place(self, service: Service) -> str:
        """Return the folder of the service's days."""
        return self.lake.lake.path(service.name)

    def read_totals(
        self, service: Service, days: Sequence[date], log: dg.DagsterLogManager
    ) -> Totals:
        """Read rows and sums of the days from their objects.

        A day whose object cannot be read is logged and left out: its check fails, and no other one.
        """

        def totals(day: date) -> tuple[int, float]:
            trips = self.read_partition(service, day)
            if trips is None:
                return 0, 0.0
            if service.total is None:
                return trips.rows, 0.0
            return trips.rows, sum_total_amount(trips.table([service.total]), service) or 0.0

        lazy = LazyPartitions(days, totals)
        found = dict(lazy)
        for error in lazy.rejected.values():
            log.error(str(error))
        return found
