"""The lake: one Parquet object a day under the folder that people read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import date

import dagster as dg

from taxi_assets.dagster_internals.partition_records import DayRecord
from taxi_assets.defs.io_managers.base import Records, StoreIOManager, Totals
from taxi_assets.defs.io_managers.partition_data import TripsSlice, open_lake_trips
from taxi_assets.defs.metadata.day_metadata import object_metadata, trips_metadata
from taxi_assets.defs.resources.lake import LakeResource, trips_key
from taxi_assets.lazy_partitions import Days
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.clean import total_of


class LakeParquetIOManager(StoreIOManager[TripsSlice]):
    """Puts a verified copy of a day's cleaned object into the lake."""

    def __init__(self, services: Mapping[str, Service], lake: LakeResource) -> None:
        super().__init__(services)
        self.lake = lake

    def store(
        self, service: Service, value: Mapping[date, TripsSlice], log: dg.DagsterLogManager
    ) -> Records:
        """Replace the days' objects."""
        del log
        lake = self.while_locked(self.lake.lake)

        def put(day: date) -> DayRecord:
            began = time.perf_counter()
            trips = value[day]
            key = trips_key(service, day, lake.layout)
            if lake.local:
                lake.put(key, trips.content())
            else:  # it never leaves the server, which verifies what it stores
                lake.copy(trips.key, key)
            # A day is in the folder once, also when another run wrote it in the other layout.
            lake.delete(trips_key(service, day, "date" if lake.layout == "hive" else "hive"))
            size = lake.size(key)
            seconds = time.perf_counter() - began
            return DayRecord(
                {
                    "bytes": size,
                    **object_metadata(lake, key),
                    **trips_metadata(trips, service, "cleaned_trips", "arrow", seconds),
                }
            )

        yield from Days(list(value), put).outcomes()

    def open_day(self, service: Service, day: date) -> TripsSlice | None:
        """The day's object, every byte of it verified."""
        return open_lake_trips(self.lake.lake, service, day)

    def place(self, service: Service) -> str:
        """Folder of the service's days."""
        return self.lake.lake.path(service.name)

    def read_totals(
        self, service: Service, days: Sequence[date], log: dg.DagsterLogManager
    ) -> Totals:
        """Rows and sums of the days, as their objects have them.

        A day whose object cannot be read is logged and left out: its check fails, and no other one.
        """

        def totals(day: date) -> tuple[int, float]:
            trips = self.open_day(service, day)
            if trips is None:
                return 0, 0.0
            return trips.rows, (service.total and total_of(trips.table([service.total]))) or 0.0

        lazy = Days(days, totals)
        found = dict(lazy)
        for error in lazy.refused.values():
            log.error(str(error))
        return found
