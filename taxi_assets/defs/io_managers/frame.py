"""Cleaned slices: a day's pandas frame as Parquet beside the raw slice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa

from taxi_assets.dagster_internals.partition_records import DayRecord
from taxi_assets.defs.io_managers.base import (
    DaysIOManager,
    Records,
    object_metadata,
    origin_metadata,
)
from taxi_assets.defs.io_managers.partition_data import (
    CLEANED,
    CleanedDay,
    Label,
    TripsSlice,
    encode,
    open_trips,
    open_trips_footer,
    total_of,
)
from taxi_assets.defs.metadata.table_metadata import (
    LINEAGE,
    PARTITION_ROWS,
    SCHEMA,
    column_schema,
    content_metadata,
    median_metadata,
    picture_metadata,
    published_lineage,
)
from taxi_assets.defs.resources.cleaning import cleaning_version
from taxi_assets.defs.resources.lake import Lake, LakeResource, cleaned_key
from taxi_assets.errors import DayRefusedError
from taxi_assets.lazy_partitions import Days
from taxi_assets.report.day_picture import Figures, picture
from taxi_assets.report.day_words import describe_day
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.clean import to_table
from taxi_assets.trips.content_hash import ContentHash
from taxi_assets.trips.profile import profile

WEEKS = 4
"""Earlier same weekdays that a day is compared with."""


class FrameIOManager(DaysIOManager[Days[CleanedDay], TripsSlice]):
    """One Parquet object a day, typed by the service's schema."""

    def __init__(self, services: Mapping[str, Service], lake: LakeResource) -> None:
        super().__init__(services)
        self.lake = lake

    def store(
        self, service: Service, value: Days[CleanedDay], log: dg.DagsterLogManager
    ) -> Records:
        """Replace the days' slices."""
        lake = self.while_locked(self.lake.lake)
        earlier = SameWeekdays(lake, service, log.warning)

        def put(day: date, cleaned: CleanedDay) -> DayRecord:
            table = to_table(cleaned.frame, service)
            total = round(total_of(table), 2)
            figures = Figures(
                profile(table, service),
                cleaned.dropped,
                total if service.total else None,
                cleaned.origin.synthetic,
            )
            facts = {
                **_label(service, day).facts(),
                **cleaned.origin.facts(),
                "total_amount": total,
                "dropped": dict(cleaned.dropped),
                "rules": list(cleaned.rules),
                "profile": figures.profile.facts(),
            }
            key = cleaned_key(service, day)
            stored = lake.put(key, encode(table, facts))
            before = earlier.before(day)
            earlier.add(day, figures)
            metadata = {
                "summary": _summary(figures, before),
                "picture": _shown(service, day, figures, before),
                **content_metadata(figures.profile, service),
                PARTITION_ROWS: table.num_rows,
                "rows": table.num_rows,
                "raw_rows": cleaned.raw_rows,
                "dropped": sum(cleaned.dropped.values()),
                **{f"dropped_{reason}": rows for reason, rows in cleaned.dropped.items() if rows},
                "total_amount": total,
                "rules": ", ".join(cleaned.rules) or "none",
                **median_metadata(figures.profile),
                **_unknown_labels(cleaned),
                "bytes": stored,
                "seconds": round(time.perf_counter() - cleaned.began, 3),
                **object_metadata(lake, key),
                **origin_metadata(cleaned.origin.facts()),
                SCHEMA: column_schema(service, "arrow", tuple(cleaned.rules)),
                LINEAGE: published_lineage(
                    cleaned.published, dg.AssetKey([service.name, "raw_trips"])
                ),
            }
            version = cleaning_version(cleaned.rules, cleaned.row_limit)
            return DayRecord(metadata, _data_version(table), version)

        yield from value.map_days(put).outcomes()

    def open_day(self, service: Service, day: date) -> TripsSlice | None:
        """The day's slice, every byte of it verified."""
        return open_trips(self.lake.lake, cleaned_key(service, day), _label(service, day))

    def place(self, service: Service) -> str:
        """Folder of the cleaned slices."""
        return self.lake.lake.path(f"_cleaned/{service.name}")


class SameWeekdays:
    """The same weekdays of the four weeks before a day, as far as the lake has them.

    They are read from the footers of earlier slices; days of the run are remembered instead, each
    other one is read once. So a chunk reads at most 28 footers, however long it is.
    """

    def __init__(self, lake: Lake, service: Service, warn: Callable[[str], object]) -> None:
        self.lake = lake
        self.service = service
        self.warn = warn
        self.known: dict[date, Figures | None] = {}

    def add(self, day: date, figures: Figures) -> None:
        """Remember a day of the run once it is stored."""
        self.known[day] = figures

    def before(self, day: date) -> list[Figures]:
        """Latest first."""
        days = [day - timedelta(weeks=weeks) for weeks in range(1, WEEKS + 1)]
        return [figures for one in days if (figures := self._of(one))]

    def _of(self, day: date) -> Figures | None:
        if day not in self.known:
            trips = self._footer(day)
            known = None
            if trips is not None and trips.profile is not None:
                known = Figures(trips.profile, trips.dropped)
            self.known[day] = known
        return self.known[day]

    def _footer(self, day: date) -> TripsSlice | None:
        """An earlier day's footer; a damaged one costs its line in the picture, not this day."""
        label = _label(self.service, day)
        try:
            return open_trips_footer(self.lake, cleaned_key(self.service, day), label)
        except DayRefusedError as error:
            self.warn(f"not compared with: {error}")
            return None


def _label(service: Service, day: date) -> Label:
    return Label(service.name, CLEANED, str(day))


def _shown(service: Service, day: date, figures: Figures, before: list[Figures]) -> Any:
    """The day's picture, and in words what it is."""
    compared = f"beside {len(before)} earlier {day:%A}s" if before else "no earlier day to compare"
    text = f"{service.name} trips of {day}: hours, fares, distances, dropped rows, {compared}"
    return picture_metadata(picture(service, day, figures, before), text)


def _summary(figures: Figures, before: list[Figures]) -> str:
    """The day in one sentence."""
    usual = [one.profile.rows for one in before]
    text = describe_day(figures.profile.rows, figures.revenue, usual, figures.dropped)
    return f"{text} (synthetic sample)" if figures.synthetic else text


def _unknown_labels(cleaned: CleanedDay) -> dict[str, Any]:
    """Return the labels that TLC's dictionary does not have, where there are any."""
    return {"unknown_labels": dict(cleaned.unknown_labels)} if cleaned.unknown_labels else {}


def _data_version(table: pa.Table) -> str:
    """Hash of the rows: a rule or a file that changed none of them makes nothing stale."""
    content = ContentHash()
    for batch in table.combine_chunks().to_batches():
        content.update(batch)
    return content.hexdigest(table.schema.remove_metadata())[:32]
