"""The IO manager of `raw_trips`: a day's published rows as an object in the lake.

The object of a CSV month has the header and the day's lines, byte for byte, compressed with zstd.
That of a Parquet month is Parquet with the published columns and types.
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
    reject_damage,
)
from taxi_assets.defs.io_managers.raw_objects import open_raw
from taxi_assets.defs.io_managers.restatement import (
    RESTATEMENT,
    RawRecord,
    Restatement,
    build_page_key,
    copy_former_rows,
    delete_old_former_rows,
)
from taxi_assets.defs.io_managers.sealed_objects import DamagedError, open_parquet, open_sealed_zstd
from taxi_assets.defs.metadata.day_metadata import build_object_metadata, build_other_object
from taxi_assets.defs.month_split import SplitMonth
from taxi_assets.defs.resources.lake import Lake, LakeResource
from taxi_assets.defs.resources.lake_keys import (
    LINES,
    ROWS,
    build_outside_key,
    build_raw_key,
    build_unreadable_key,
)
from taxi_assets.lazy_partitions import LazyPartitions
from taxi_assets.settings import Settings
from taxi_assets.tlc.csv_split import OUTSIDE, UNREADABLE
from taxi_assets.tlc.raw_month import RawMonth
from taxi_assets.tlc.schema import Service

RawDays = tuple[SplitMonth, LazyPartitions[RawRecord]]
"""A month file split into days, and the record of each."""
KeyOf = Callable[[Service, Any, str], str]

RAW, OUTSIDE_ASSET, UNREADABLE_ASSET = "raw_trips", "outside_month", "unreadable"
"""The labels of raw objects."""


def read_month_counts(lake: Lake, service: Service, month: Month) -> tuple[int | None, int, int]:
    """Return the rows of a month file, its rows of other months, and its unreadable rows.

    They are those of the last pass over the file; None, 0 and 0 if the lake does not have them.

    Raises:
        PartitionRejectedError: an object of the month's outside or unreadable rows is damaged.
    """
    for kind in (LINES, ROWS):
        outside = _read_metadata(
            lake, build_outside_key(service, month, kind), OUTSIDE_ASSET, service, month
        )
        unreadable = _read_metadata(
            lake, build_unreadable_key(service, month, kind), UNREADABLE_ASSET, service, month
        )
        if "month_file_rows" in outside and unreadable:
            return outside["month_file_rows"], outside["rows"], unreadable["rows"]
    return None, 0, 0


@dataclass(eq=False)
class RawTripsIOManager(PartitionIOManager[Iterable[RawDays], RawPartition]):
    """Stores one object per day, and objects of a month's outside and unreadable rows."""

    lake: LakeResource

    def store(
        self, service: Service, value: Iterable[RawDays], log: dg.DagsterLogManager
    ) -> Records:
        """Replace the objects of each month, those without a day first."""
        del service, log
        lake = self.hold_month_locks(self.lake.lake)
        for split, records in value:
            objects = MonthObjects(lake, split)
            objects.put_rest()
            yield from records.map_with_day(objects.put_day).iterate_outcomes()
            retention = timedelta(days=Settings.from_env().runs.raw_retention_days)
            delete_old_former_rows(lake, split.month.file.service, retention)

    def read_partition(self, service: Service, day: date) -> RawPartition | None:
        """Open a day's lines under their published header, or its rows.

        Raises:
            PartitionRejectedError: the object is damaged, foreign, of another day, or unreadable.
        """
        lake, label = self.lake.lake, Label(service.name, RAW, str(day))
        for kind in (LINES, ROWS):
            key = build_raw_key(service, day, kind)
            with reject_damage(lake, key, label):
                stored = lake.get(key)
                if stored is not None:
                    content, metadata = open_raw(stored, kind)
                    label.check(metadata)
                    rows, file = _check_row_count(metadata), SourceFile.from_metadata(metadata)
                    restatement = Restatement.from_metadata(metadata)
                    return RawPartition(day, content, rows, file, restatement)
        return None

    def store_restatement_page(self, service: Service, month: Month, page: bytes) -> None:
        """Replace the page about a month's last restatement."""
        lake = self.hold_month_locks(self.lake.lake)
        lake.put_page(build_page_key(service, month), page)

    def describe_place(self, service: Service) -> str:
        """Return the folder of the raw partitions."""
        return self.lake.lake.path(f"_raw/{service.name}")


def _check_row_count(metadata: Mapping[str, Any]) -> int:
    rows = metadata.get("rows")
    if not isinstance(rows, int):
        raise DamagedError(f"is not a raw object: its metadata has rows = {rows!r}")
    return rows


def _read_metadata(
    lake: Lake, key: str, asset: str, service: Service, month: Month
) -> dict[str, Any]:
    """Return the metadata of a month's object; empty if it does not exist."""
    with reject_damage(lake, key, Label(service.name, RAW, str(month))):
        stored = lake.get(key)
        if stored is None:
            return {}
        metadata = open_sealed_zstd(stored)[0] if key.endswith(LINES) else open_parquet(stored)[1]
        Label(service.name, asset, str(month)).check(metadata)
        _check_row_count(metadata)
        return metadata


@dataclass(frozen=True)
class MonthObjects:
    """Writes the objects of a split month."""

    lake: Lake
    split: SplitMonth

    def put_day(self, day: date, record: RawRecord) -> RawRecord:
        """Replace a day's object; of a restated day, copy the former object first."""
        began = time.perf_counter()
        service, change, more = self.split.month.file.service, record.restatement, {}
        if change is not None:
            if not change.former_object:
                change = replace(change, former_object=copy_former_rows(self.lake, service, day))
            more = {RESTATEMENT: change.to_metadata()}
        key, size = self._put(build_raw_key, day, self._build_content(day, day.day, RAW, **more))
        seconds = round(self.split.seconds + time.perf_counter() - began, 3)
        metadata = {
            "stored_bytes": size,
            "seconds": seconds,
            **build_object_metadata(self.lake, key),
        }
        if change is not None:
            page = build_page_key(service, self.split.month.file.month)
            metadata["former_rows"] = build_other_object(self.lake, change.former_object)
            metadata["restatement_page"] = build_other_object(self.lake, page)
        return replace(record, restatement=change, metadata={**record.metadata, **metadata})

    def put_rest(self) -> None:
        """Replace the objects of the rows without a day, and the reasons of unreadable rows."""
        month = self.split.month
        counts = {"month_file_rows": month.file_rows}
        partition = month.file.month
        outside = self._build_content(partition, OUTSIDE, OUTSIDE_ASSET, **counts)
        self._put(build_outside_key, partition, outside)
        unreadable = self._build_content(partition, UNREADABLE, UNREADABLE_ASSET, **counts)
        self._put(build_unreadable_key, partition, unreadable)
        for kind in (LINES, ROWS):
            key = f"{build_unreadable_key(month.file.service, month.file.month, kind)}.reasons.csv"
            if month.unreadable and kind == self._ending:
                self.lake.put(key, _list_reasons(month))
            else:
                self.lake.delete(key)

    def _build_content(self, partition: date | Month, key: int, asset: str, **more: Any) -> bytes:
        """Build the object of the rows with a key."""
        file = self.split.month.file
        label = Label(file.service.name, asset, str(partition)).to_metadata()
        metadata = {**label, **SourceFile.of_file(file).to_metadata(), **more}
        metadata["rows"] = self.split.month.rows[key]
        return self.split.spools[key].build_content(metadata)

    def _put(self, key_of: KeyOf, partition: date | Month, content: bytes) -> tuple[str, int]:
        """Replace an object, and delete that of the month in the other format."""
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
    writer.writerows((row.line, row.reason) for row in month.unreadable)
    return text.getvalue().encode()
