"""Raw slices in the lake: a day's rows as published.

A CSV month's are its header and the day's lines, byte for byte, zstd-packed; a Parquet month's are
Parquet of the published columns and types.
"""

from __future__ import annotations

import csv
import io
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from taxi_assets.dagster_internals.partition_records import DayRecord
from taxi_assets.date_ranges import Month
from taxi_assets.defs.io_managers.base import (
    DaysIOManager,
    Records,
    object_metadata,
    origin_metadata,
)
from taxi_assets.defs.io_managers.partition_data import Label, Origin, RawSlice, rejecting_damage
from taxi_assets.defs.io_managers.sealed_objects import DamagedError, open_parquet, open_zstd
from taxi_assets.defs.io_managers.spool import Spool, spool_of
from taxi_assets.defs.metadata.table_metadata import PARTITION_ROWS, SCHEMA, published_schema
from taxi_assets.defs.resources.lake import (
    LINES,
    ROWS,
    Lake,
    LakeResource,
    outside_key,
    raw_key,
    unreadable_key,
)
from taxi_assets.errors import room_in
from taxi_assets.lazy_partitions import Days
from taxi_assets.settings import Settings
from taxi_assets.tlc.header import LONGEST_HEADER
from taxi_assets.tlc.raw_month import BLANK, OUTSIDE, UNREADABLE, RawMonth
from taxi_assets.tlc.schema import Service

RAW, OUTSIDE_ASSET, UNREADABLE_ASSET = "raw_trips", "outside_month", "unreadable"
"""What raw objects say they are."""

BLOCK = 16 << 20
"""Bytes that are unpacked at a time: most days are one block."""


@dataclass(frozen=True)
class FileRows:
    """Rows of a month file, and those of them that are in no day."""

    file: int
    outside: int
    """Pickup in another month."""
    unreadable: int
    """Fields or a pickup time that cannot be read."""


def file_rows(lake: Lake, service: Service, month: Month) -> FileRows | None:
    """What the last pass over a month file counted; None where the lake does not say.

    Raises:
        DayRefusedError: an object of the month's outside or unreadable rows is damaged.
    """
    for kind in (LINES, ROWS):
        outside = _facts(lake, outside_key(service, month, kind), OUTSIDE_ASSET, service, month)
        unreadable = _facts(
            lake, unreadable_key(service, month, kind), UNREADABLE_ASSET, service, month
        )
        if "month_file_rows" in outside and unreadable:
            return FileRows(outside["month_file_rows"], outside["rows"], unreadable["rows"])
    return None


class RawTripsIOManager(DaysIOManager[list[RawMonth], RawSlice]):
    """One object a day; beside them a month's outside and unreadable rows."""

    def __init__(self, services: Mapping[str, Service], lake: LakeResource) -> None:
        super().__init__(services)
        self.lake = lake

    def store(self, service: Service, value: list[RawMonth], log: dg.DagsterLogManager) -> Records:
        """Pass over each month file once; nothing is put before the file was read to its end."""
        del service
        lake = self.while_locked(self.lake.lake)
        for month in value:
            began = time.perf_counter()
            places = (*(day.day for day in month.days), OUTSIDE, UNREADABLE)
            spools = {key: spool_of(month) for key in places}
            with room_in(Path(tempfile.gettempdir()), "TMPDIR"):
                for part in month.pass_over(log.info):
                    # Blank lines are the file's too: they are kept with the unreadable ones.
                    spools[UNREADABLE if part.key == BLANK else part.key].add(part)
            _put_rest(lake, month, spools)
            # They were read together: an equal share each.
            share = (time.perf_counter() - began) / len(month.days)
            put = Days(
                month.days,
                lambda day: _put_day(lake, month, day, spools[day.day], share),  # noqa: B023 - consumed here
            )
            yield from put.outcomes()

    def open_day(self, service: Service, day: date) -> RawSlice | None:
        """The day's lines under the header they were published with, or its rows.

        Raises:
            DayRefusedError: the object is damaged, foreign, another day's, or cannot be opened.
        """
        lake, label = self.lake.lake, Label(service.name, RAW, str(day))
        for kind in (LINES, ROWS):
            key = raw_key(service, day, kind)
            with rejecting_damage(lake, key, label):
                stored = lake.get(key)
                if stored is not None:
                    content, facts = _open(stored, kind)
                    label.check(facts)
                    return RawSlice(day, content, _row_count(facts), Origin.of(facts))
        return None

    def place(self, service: Service) -> str:
        """Folder of the raw slices."""
        return self.lake.lake.path(f"_raw/{service.name}")


def _open(stored: pa.Buffer, kind: str) -> tuple[pa.Buffer | pa.Table, dict[str, Any]]:
    """Verify and unpack a day's lines or rows; return them and the facts about them."""
    if kind == ROWS:
        parquet, facts = open_parquet(stored)
        return parquet.read(use_threads=False), facts
    facts, packed = open_zstd(stored)
    return _unpack(packed, Settings.from_env().limits.max_day_bytes), facts


def _unpack(packed: pa.Buffer, max_bytes: int) -> pa.Buffer:
    """Unpack a day's lines; a few KB of somebody else's object may stand for GBs."""
    blocks, size = list[pa.Buffer](), 0
    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        while (block := stream.read_buffer(BLOCK)).size:
            blocks.append(block)
            size += block.size
            if size > max_bytes + LONGEST_HEADER:
                raise DamagedError(f"unpacks to over {max_bytes:,} bytes (TAXI_MAX_DAY_BYTES)")
    return blocks[0] if len(blocks) == 1 else pa.py_buffer(b"".join(blocks))


def _row_count(facts: Mapping[str, Any]) -> int:
    rows = facts.get("rows")
    if not isinstance(rows, int):
        raise DamagedError(f"is no raw object: its facts say rows = {rows!r}")
    return rows


def _facts(lake: Lake, key: str, asset: str, service: Service, month: Month) -> dict[str, Any]:
    """What a month's object says of itself; empty where there is none."""
    with rejecting_damage(lake, key, Label(service.name, RAW, str(month))):
        stored = lake.get(key)
        if stored is None:
            return {}
        facts = open_zstd(stored)[0] if key.endswith(LINES) else open_parquet(stored)[1]
        Label(service.name, asset, str(month)).check(facts)
        _row_count(facts)
        return facts


def _put_day(lake: Lake, month: RawMonth, day: date, spool: Spool, seconds: float) -> DayRecord:
    began = time.perf_counter()
    file = month.file
    origin = Origin(file.url, file.sha256, file.synthetic).facts()
    rows = month.day_rows(day)
    data_version = spool.data_version()
    key = raw_key(file.service, day, _kind(month))
    label = Label(file.service.name, RAW, str(day))
    stored = lake.put(key, spool.content({**label.facts(), **origin, "rows": rows}))
    lake.delete(raw_key(file.service, day, _other(month)))
    metadata = {
        PARTITION_ROWS: rows,
        "rows": rows,
        "bytes": spool.size + len(month.line),
        "stored_bytes": stored,
        "seconds": round(seconds + time.perf_counter() - began, 3),
        **object_metadata(lake, key),
        "month_file_rows": month.file_rows,
        "rows_outside_month": month.rows[OUTSIDE],
        "rows_unreadable": month.rows[UNREADABLE],
        **_columns(month),
        **origin_metadata(origin),
        "source_bytes": file.size,
        "source_etag": file.etag or "",
        "source_last_modified": file.last_modified or "",
        "preview": spool.preview(),
        **_schema(month),
    }
    return DayRecord(metadata, data_version)


def _kind(month: RawMonth) -> str:
    return ROWS if month.is_parquet else LINES


def _other(month: RawMonth) -> str:
    """What an earlier run may have left, of the same month published the other way."""
    return LINES if month.is_parquet else ROWS


def _schema(month: RawMonth) -> dict[str, Any]:
    """The columns as published: text in a CSV month, typed in a Parquet month."""
    if month.header is None:
        return {}
    names = month.header.names
    kinds = ["string"] * len(names) if month.schema is None else map(str, month.schema.types)
    return {SCHEMA: published_schema(names, tuple(kinds), month.file.service)}


def _columns(month: RawMonth) -> dict[str, str]:
    """Columns in which the file and the schema differ."""
    if month.header is None:
        return {}
    return {
        "columns_only_in_raw": ", ".join((*month.header.raw_only, *month.header.unknown)),
        "columns_absent": ", ".join(month.header.absent),
    }


def _put_rest(lake: Lake, month: RawMonth, spools: Mapping[int, Spool]) -> None:
    """Rows of the month that belong to none of its days, each once, with the reasons."""
    service, which = month.file.service, month.file.month
    origin = Origin(month.file.url, month.file.sha256, month.file.synthetic).facts()
    for key, place, asset in (
        (outside_key, OUTSIDE, OUTSIDE_ASSET),
        (unreadable_key, UNREADABLE, UNREADABLE_ASSET),
    ):
        label = Label(service.name, asset, str(which)).facts()
        facts = {**label, **origin, "rows": month.rows[place], "month_file_rows": month.file_rows}
        lake.put(key(service, which, _kind(month)), spools[place].content(facts))
        lake.delete(key(service, which, _other(month)))
    lake.delete(_reasons(month, _other(month)))
    reasons = _reasons(month, _kind(month))
    if not month.unreadable:
        lake.delete(reasons)
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["row" if month.is_parquet else "line", "reason"])
    writer.writerows((one.line, one.reason) for one in month.unreadable)
    lake.put(reasons, text.getvalue().encode())


def _reasons(month: RawMonth, kind: str) -> str:
    return unreadable_key(month.file.service, month.file.month, kind) + ".reasons.csv"
