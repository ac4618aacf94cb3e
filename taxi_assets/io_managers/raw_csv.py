"""Raw slices: a day's published lines, byte for byte, zstd-packed in the lake."""

from __future__ import annotations

import csv
import hashlib
import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import IO, Any

import dagster as dg
import pyarrow as pa

from taxi_assets.days import bounded_map
from taxi_assets.io_managers.base import DaysIOManager, Records, origin_metadata
from taxi_assets.record import DayRecord
from taxi_assets.resources.lake import (
    Lake,
    LakeResource,
    facts_of,
    outside_key,
    raw_key,
    unreadable_key,
    with_facts,
)
from taxi_assets.services import Service
from taxi_assets.slices import Origin, RawSlice
from taxi_assets.trips.month import BLANK, CODEC, OUTSIDE, UNREADABLE, RawMonth


@dataclass
class Spool:
    """Packed lines of one place, on their way to the lake, and the hash of what they unpack to."""

    file: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    sha256: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    """Bytes of the lines."""

    def add(self, lines: pa.Buffer, packed: bytes) -> None:
        """Append lines."""
        self.file.write(packed)
        self.sha256.update(lines)
        self.size += lines.size

    def packed(self) -> bytes:
        """All of it, and the spool is gone."""
        self.file.seek(0)
        with self.file:
            return self.file.read()


class RawCsvIOManager(DaysIOManager[list[RawMonth], RawSlice]):
    """One zstd CSV object a day; beside them a month's outside and unreadable lines."""

    def __init__(self, services: Mapping[str, Service], lake: LakeResource) -> None:
        super().__init__(services)
        self.lake = lake

    def store(self, service: Service, value: list[RawMonth], log: dg.DagsterLogManager) -> Records:
        """Pass over each month file once; nothing is put before the file was read to its end."""
        del service
        lake = self.lake.lake
        for month in value:
            spools = {day.day: Spool() for day in month.days}
            spools |= {key: Spool() for key in (OUTSIDE, UNREADABLE)}
            for part in month.pass_over(log.info):
                # Blank lines are the file's too: they are kept with the unreadable ones.
                spool = spools[UNREADABLE if part.key == BLANK else part.key]
                spool.add(part.lines, part.packed)
            _put_rest(lake, month, spools)
            put = bounded_map(lambda day: _put_day(lake, month, day, spools[day.day]), month.days)  # noqa: B023 - consumed here
            yield from zip(month.days, put, strict=True)

    def open_day(self, service: Service, day: date) -> RawSlice | None:
        """The day's lines under the header they were published with."""
        packed = self.lake.lake.get(raw_key(service, day))
        if packed is None:
            return None
        facts = facts_of(packed)
        with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
            lines = stream.read_buffer()
        return RawSlice(day, lines, int(facts["rows"]), Origin.of(facts))

    def place(self, service: Service) -> str:
        """Folder of the raw slices."""
        return self.lake.lake.path(f"_raw/{service.name}")


def _put_day(lake: Lake, month: RawMonth, day: date, spool: Spool) -> DayRecord:
    file = month.file
    origin = Origin(file.url, file.sha256, file.synthetic).facts()
    rows = month.day_rows(day)
    key = raw_key(file.service, day)
    packed = CODEC.compress(month.header, asbytes=True) + spool.packed()
    stored = lake.put(key, with_facts({**origin, "rows": rows}, packed))
    metadata = {
        "dagster/partition_row_count": rows,
        "rows": rows,
        "bytes": spool.size + len(month.header),
        "stored_bytes": stored,
        "dagster/uri": lake.path(key),
        "month_file_rows": month.file_rows,
        "rows_outside_month": month.rows[OUTSIDE],
        "rows_unreadable": month.rows[UNREADABLE],
        **origin_metadata(origin),
        "source_bytes": file.size,
        "source_etag": file.etag or "",
        "source_last_modified": file.last_modified or "",
    }
    return DayRecord(metadata, data_version=spool.sha256.hexdigest()[:32])


def _put_rest(lake: Lake, month: RawMonth, spools: Mapping[int, Spool]) -> None:
    """Lines of the month that belong to none of its days, each once, with the reasons."""
    service, which = month.file.service, month.file.month
    origin = Origin(month.file.url, month.file.sha256, month.file.synthetic).facts()
    header = CODEC.compress(month.header, asbytes=True)
    for key, place in ((outside_key, OUTSIDE), (unreadable_key, UNREADABLE)):
        facts = {**origin, "rows": month.rows[place]}
        lake.put(key(service, which), with_facts(facts, header + spools[place].packed()))
    reasons = unreadable_key(service, which) + ".reasons.csv"
    if not month.unreadable:
        lake.delete(reasons)
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["line", "reason"])
    writer.writerows((one.line, one.reason) for one in month.unreadable)
    lake.put(reasons, text.getvalue().encode())
