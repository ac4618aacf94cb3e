"""Cleaned slices: a day's typed trips as Parquet beside the raw slice."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import date

import dagster as dg

from taxi_assets.dagster_internals.partition_records import DayRecord
from taxi_assets.defs.io_managers.base import DaysIOManager, Records
from taxi_assets.defs.io_managers.partition_data import (
    CLEANED,
    CleanedDay,
    Label,
    TripsSlice,
    encode,
    open_trips,
)
from taxi_assets.defs.metadata.day_metadata import object_metadata
from taxi_assets.defs.resources.lake import LakeResource, cleaned_key
from taxi_assets.lazy_partitions import Days
from taxi_assets.tlc.schema import Service


class FrameIOManager(DaysIOManager[Days[CleanedDay], TripsSlice]):
    """One Parquet object a day, typed by the service's schema."""

    def __init__(self, services: Mapping[str, Service], lake: LakeResource) -> None:
        super().__init__(services)
        self.lake = lake

    def store(
        self, service: Service, value: Days[CleanedDay], log: dg.DagsterLogManager
    ) -> Records:
        """Replace the days' objects."""
        del log
        lake = self.while_locked(self.lake.lake)

        def put(day: date, cleaned: CleanedDay) -> DayRecord:
            key = cleaned_key(service, day)
            facts = {**_label(service, day).facts(), **cleaned.facts()}
            size = lake.put(key, encode(cleaned.table, facts))
            seconds = round(time.perf_counter() - cleaned.began, 3)
            place = object_metadata(lake, key)
            return cleaned.record.adding({"bytes": size, "seconds": seconds, **place})

        yield from value.map_days(put).outcomes()

    def open_day(self, service: Service, day: date) -> TripsSlice | None:
        """The day's slice, every byte of it verified."""
        return open_trips(self.lake.lake, cleaned_key(service, day), _label(service, day))

    def place(self, service: Service) -> str:
        """Folder of the cleaned slices."""
        return self.lake.lake.path(f"_cleaned/{service.name}")


def _label(service: Service, day: date) -> Label:
    return Label(service.name, CLEANED, str(day))
