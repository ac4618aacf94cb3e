"""The lake: one Parquet object a day under the folder that people read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import date

import dagster as dg

from taxi_assets.days import bounded_map
from taxi_assets.io_managers.base import (
    DaysIOManager,
    Records,
    object_metadata,
    trips_metadata,
)
from taxi_assets.record import DayRecord
from taxi_assets.resources.lake import LakeResource, trips_key
from taxi_assets.services import Service
from taxi_assets.slices import TripsSlice, open_lake_trips


class LakeParquetIOManager(DaysIOManager[Mapping[date, TripsSlice], TripsSlice]):
    """Puts a day's cleaned object into the lake by a copy that stays in the bucket."""

    def __init__(self, services: Mapping[str, Service], lake: LakeResource) -> None:
        super().__init__(services)
        self.lake = lake

    def store(
        self, service: Service, value: Mapping[date, TripsSlice], log: dg.DagsterLogManager
    ) -> Records:
        """Replace the days' objects."""
        del log
        lake = self.lake.lake

        def put(day: date) -> DayRecord:
            began = time.perf_counter()
            trips = value[day]
            key = trips_key(service, day, lake.layout)
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

        yield from zip(value, bounded_map(put, value), strict=True)

    def open_day(self, service: Service, day: date) -> TripsSlice | None:
        """The day's object, every byte of it verified."""
        return open_lake_trips(self.lake.lake, service, day)

    def place(self, service: Service) -> str:
        """Folder of the service's days."""
        return self.lake.lake.path(service.name)
