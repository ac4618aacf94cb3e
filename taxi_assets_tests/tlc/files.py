"""Month files of a few lines, and what a pass over one of them gives."""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from pathlib import Path

import pyarrow as pa

from taxi_assets.date_ranges import Month
from taxi_assets.defs.io_managers.sealed_objects import open_parquet, open_sealed_zstd
from taxi_assets.defs.month_split import Spool, open_spool
from taxi_assets.tlc.cache import MonthFile
from taxi_assets.tlc.raw_month import BLANK, OUTSIDE, UNREADABLE, RawMonth
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES

YELLOW = SERVICES["yellow"]
FEBRUARY = Month(2021, 2)
EVERY_KEY = {*range(1, 32), OUTSIDE, UNREADABLE, BLANK}
HEADER = ",".join(YELLOW.header).encode() + b"\n"
PICKUP = "2021-02-03 04:05:06"


def row(pickup: str = PICKUP, **values: str) -> bytes:
    """A yellow trip as a line without terminator; other columns by their published names."""
    trip = {
        **dict.fromkeys(YELLOW.header, "1"),
        "tpep_pickup_datetime": pickup,
        "tpep_dropoff_datetime": "2021-02-03 04:15:06",
        "store_and_fwd_flag": "N",
        "trip_distance": ".50",
        **values,
    }
    return ",".join(trip.values()).encode()


def month_file(path: Path, service: Service = YELLOW, month: Month = FEBRUARY) -> MonthFile:
    size = path.stat().st_size
    return MonthFile(service, month, path, str(path), size, "", None, None, synthetic=False)


def raw_month(
    path: Path,
    service: Service = YELLOW,
    month: Month = FEBRUARY,
    days: list[date] | None = None,
    max_invalid_ratio: float = 1.0,
) -> RawMonth:
    return RawMonth(
        month_file(path, service, month),
        list(month.window) if days is None else days,
        max_invalid_ratio,
    )


def passed_over(month: RawMonth) -> dict[int, bytes]:
    """The lines of each place, unpacked from what a pass hands on."""
    packed: defaultdict[int, list[bytes]] = defaultdict(list)
    for part in month.read_days(lambda _: None):
        packed[part.key].append(part.packed)
    return {key: unpacked(b"".join(parts)) for key, parts in packed.items()}


def unpacked(packed: bytes) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        return stream.read()


def slice_of(*lines: bytes, header: bytes = HEADER) -> pa.Buffer:
    """A day's slice: header and lines."""
    return pa.py_buffer(header.rstrip() + b"\n" + b"".join(line + b"\n" for line in lines))


def slices_of(month: RawMonth) -> dict[int, pa.Buffer | pa.Table]:
    """What the lake gets of a month, read back, by day of the month, OUTSIDE and UNREADABLE."""
    spools: dict[int, Spool] = {}
    for part in month.read_days(lambda _: None):
        if part.key != BLANK:
            spools.setdefault(part.key, open_spool(month)).add(part)
    stored = {key: pa.py_buffer(spools[key].build_content({})) for key in sorted(spools)}
    if month.is_parquet:
        return {key: open_parquet(one)[0].read() for key, one in stored.items()}
    packed = {key: open_sealed_zstd(one)[1] for key, one in stored.items()}
    return {key: pa.py_buffer(unpacked(one)) for key, one in packed.items()}
