"""Raw slices in the lake: a day's rows as published.

A CSV month's are its header and the day's lines, byte for byte, zstd-packed; a Parquet month's are
Parquet of the published columns and types.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import dagster as dg

from taxi_assets.date_ranges import Month
from taxi_assets.defs.io_managers.base import PartitionIOManager, Records
from taxi_assets.defs.io_managers.partition_data import (
    Label,
    RawPartition,
    SourceFile,
    rejecting_damage,
)
from taxi_assets.defs.io_managers.raw_objects import open_raw
from taxi_assets.defs.io_managers.restatement import (
    FACT,
    RawRecord,
    Restatement,
    build_page_key,
    delete_old_former_rows,
    keep_former_rows,
)
from taxi_assets.defs.io_managers.sealed_objects import DamagedError, open_parquet, open_sealed_zstd
from taxi_assets.defs.metadata.day_metadata import object_metadata
from taxi_assets.defs.metadata.table_metadata import URI
from taxi_assets.defs.month_split import SplitMonth
from taxi_assets.defs.resources.lake import (
    LINES,
    ROWS,
    Lake,
    LakeResource,
    build_outside_key,
    build_raw_key,
    build_unreadable_key,
)
from taxi_assets.lazy_partitions import LazyPartitions
from taxi_assets.settings import Settings
from taxi_assets.tlc.raw_month import OUTSIDE, UNREADABLE, RawMonth
from taxi_assets.tlc.schema import Service

RawDays = tuple[SplitMonth, LazyPartitions[RawRecord]]
"""A month file split into days, and the record of each."""
KeyOf = Callable[[Service, Any, str], str]

RAW, OUTSIDE_ASSET, UNREADABLE_ASSET = "raw_trips", "outside_month", "unreadable"
"""What raw objects say they are."""


@dataclass(frozen=True)
class MonthCounts:
    """Rows of a month file, and those of them that are in no day."""

    file: int
    outside: int
    """Pickup in another month."""
    unreadable: int
    """Fields or a pickup time that cannot be read."""


def file_rows(lake: Lake, service: Service, month: Month) -> MonthCounts | None:
    """Return what the last pass over a month file counted; None if the lake does not have it.

    Raises:
        PartitionRejectedError: an object of the month's outside or unreadable rows is damaged.
    """
    for kind in (LINES, ROWS):
        outside = _read_facts(
            lake, build_outside_key(service, month, kind), OUTSIDE_ASSET, service, month
        )
        unreadable = _read_facts(
            lake, build_unreadable_key(service, month, kind), UNREADABLE_ASSET, service, month
        )
        if "month_file_rows" in outside and unreadable:
            return MonthCounts(outside["month_file_rows"], outside["rows"], unreadable["rows"])
    return None


class RawTripsIOManager(PartitionIOManager[Iterable[RawDays], RawPartition]):
    """One object a day; beside them a month's outside and unreadable rows."""

    def __init__(self, services: Mapping[str, Service], lake: LakeResource) -> None:
        super().__init__(services)
        self.lake = lake

    def store(
        self, service: Service, value: Iterable[RawDays], log: dg.DagsterLogManager
    ) -> Records:
        """Replace the objects of each month, the rows of no day first."""
        del service, log
        lake = self.hold_month_locks(self.lake.lake)
        for split, records in value:
            objects = MonthObjects(lake, split)
            objects.put_rest()
            yield from records.map_with_day(objects.put_day).iterate_outcomes()
            keep = timedelta(days=Settings.from_env().runs.raw_retention_days)
            delete_old_former_rows(lake, split.month.file.service, keep)

    def read_partition(self, service: Service, day: date) -> RawPartition | None:
        """Open the day's lines under the header they were published with, or its rows.

        Raises:
            PartitionRejectedError: the object is damaged, foreign, of another day, or unreadable.
        """
        lake, label = self.lake.lake, Label(service.name, RAW, str(day))
        for kind in (LINES, ROWS):
            key = build_raw_key(service, day, kind)
            with rejecting_damage(lake, key, label):
                stored = lake.get(key)
                if stored is not None:
                    content, facts = open_raw(stored, kind)
                    label.check(facts)
                    rows, file = _check_row_count(facts), SourceFile.of(facts)
                    return RawPartition(day, content, rows, file, Restatement.of(facts))
        return None

    def store_restatement_page(self, service: Service, month: Month, page: bytes) -> None:
        """Replace the page about a month's last restatement."""
        lake = self.hold_month_locks(self.lake.lake)
        lake.put(build_page_key(service, month), page, "text/html; charset=utf-8")

    def place(self, service: Service) -> str:
        """Return the folder of the raw partitions."""
        return self.lake.lake.path(f"_raw/{service.name}")


def _check_row_count(facts: Mapping[str, Any]) -> int:
    rows = facts.get("rows")
    if not isinstance(rows, int):
        raise DamagedError(f"is no raw object: its facts say rows = {rows!r}")
    return rows


def _read_facts(lake: Lake, key: str, asset: str, service: Service, month: Month) -> dict[str, Any]:
    """Return what a month's object says of itself; empty if there is none."""
    with rejecting_damage(lake, key, Label(service.name, RAW, str(month))):
        stored = lake.get(key)
        if stored is None:
            return {}
        facts = open_sealed_zstd(stored)[0] if key.endswith(LINES) else open_parquet(stored)[1]
        Label(service.name, asset, str(month)).check(facts)
        _check_row_count(facts)
        return facts


@dataclass(frozen=True)
class MonthObjects:
    """A split month on its way into the lake."""

    lake: Lake
    split: SplitMonth

    def put_day(self, day: date, record: RawRecord) -> RawRecord:
        """Replace a day's object; the former one of a restated day is kept."""
        began = time.perf_counter()
        service, change, facts = self.split.month.file.service, record.restatement, {}
        if change is not None:
            if not change.former_object:
                change = replace(change, former_object=keep_former_rows(self.lake, service, day))
            facts = {FACT: change.facts()}
        key, size = self._put(build_raw_key, day, self._content(day, day.day, RAW, **facts))
        seconds = round(self.split.seconds + time.perf_counter() - began, 3)
        metadata = {"stored_bytes": size, "seconds": seconds, **object_metadata(self.lake, key)}
        if change is not None:
            page = build_page_key(service, self.split.month.file.month)
            metadata["former_rows"] = object_metadata(self.lake, change.former_object)[URI]
            metadata["restatement_page"] = object_metadata(self.lake, page)[URI]
        return replace(record, restatement=change, metadata={**record.metadata, **metadata})

    def put_rest(self) -> None:
        """Replace the objects of the rows that are in no day, and the reasons beside them."""
        month = self.split.month
        counted = {"month_file_rows": month.file_rows}
        which = month.file.month
        outside = self._content(which, OUTSIDE, OUTSIDE_ASSET, **counted)
        self._put(build_outside_key, which, outside)
        unreadable = self._content(which, UNREADABLE, UNREADABLE_ASSET, **counted)
        self._put(build_unreadable_key, which, unreadable)
        for kind in (LINES, ROWS):
            key = f"{build_unreadable_key(month.file.service, month.file.month, kind)}.reasons.csv"
            if month.unreadable and kind == self._ending:
                self.lake.put(key, _list_reasons(month))
            else:
                self.lake.delete(key)

    def _content(self, partition: date | Month, place: int, asset: str, **facts: Any) -> bytes:
        """Build the object of a place of the file."""
        file = self.split.month.file
        label = Label(file.service.name, asset, str(partition)).facts()
        carried = {**label, **SourceFile.of_file(file).facts(), **facts}
        carried["rows"] = self.split.month.rows[place]
        return self.split.spools[place].content(carried)

    def _put(self, key_of: KeyOf, partition: date | Month, content: bytes) -> tuple[str, int]:
        """Replace an object; that of the month published the other way goes."""
        service = self.split.month.file.service
        key = key_of(service, partition, self._ending)
        size = self.lake.put(key, content)
        self.lake.delete(key_of(service, partition, LINES if self._ending == ROWS else ROWS))
        return key, size

    @property
    def _ending(self) -> str:
        return ROWS if self.split.month.is_parquet else LINES


def _list_reasons(month: RawMonth) -> bytes:
    """Return the reason for each invalid row, as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["row" if month.is_parquet else "line", "reason"])
    writer.writerows((one.line, one.reason) for one in month.unreadable)
    return text.getvalue().encode()
