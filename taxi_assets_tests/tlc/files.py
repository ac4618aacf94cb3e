"""Month files of a few lines, and the result of a pass over one of them."""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from pathlib import Path

import pyarrow as pa

from taxi_assets.date_ranges import Month
from taxi_assets.defs.io_managers.sealed_objects import open_parquet, open_sealed_zstd
from taxi_assets.defs.month_split import Spool, open_spool
from taxi_assets.tlc.cache import MonthFile
from taxi_assets.tlc.csv_split import BLANK, OUTSIDE, UNREADABLE
from taxi_assets.tlc.raw_month import RawMonth
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES

YELLOW = SERVICES["yellow"]
FEBRUARY = Month(2021, 2)
EVERY_KEY = {*range(1, 32), OUTSIDE, UNREADABLE, BLANK}
HEADER = ",".join(YELLOW.header).encode() + b"\n"
PICKUP = "2021-02-03 04:05:06"


def make_line(pickup: str = PICKUP, **values: str) -> bytes:
    """Return a yellow trip as a line without terminator; other columns by published name."""
    trip = {
        **dict.fromkeys(YELLOW.header, "1"),
        "tpep_pickup_datetime": pickup,
        "tpep_dropoff_datetime": "2021-02-03 04:15:06",
        "store_and_fwd_flag": "N",
        "trip_distance": ".50",
        **values,
    }
    return ",".join(trip.values()).encode()


def make_month_file(path: Path, service: Service = YELLOW, month: Month = FEBRUARY) -> MonthFile:
    size = path.stat().st_size
    return MonthFile(service, month, path, str(path), size, "", None, None, synthetic=False)


def open_raw_month(
    path: Path,
    service: Service = YELLOW,
    month: Month = FEBRUARY,
    days: list[date] | None = None,
    max_invalid_ratio: float = 1.0,
) -> RawMonth:
    return RawMonth(
        make_month_file(path, service, month),
        list(month.window) if days is None else days,
        max_invalid_ratio,
    )


def collect_lines(month: RawMonth) -> dict[int, bytes]:
    """Return the lines of each place, unpacked from the parts of a pass."""
    packed: defaultdict[int, list[bytes]] = defaultdict(list)
    for part in month.read_days(lambda _: None):
        packed[part.key].append(part.packed)
    return {key: unpack(b"".join(parts)) for key, parts in packed.items()}


def unpack(packed: bytes) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        return stream.read()


def make_slice(*lines: bytes, header: bytes = HEADER) -> pa.Buffer:
    """Return a day's slice: header and lines."""
    return pa.py_buffer(header.rstrip() + b"\n" + b"".join(line + b"\n" for line in lines))


def read_slices(month: RawMonth) -> dict[int, pa.Buffer | pa.Table]:
    """Return the lake's objects of a month, read back, by day, OUTSIDE and UNREADABLE."""
    spools: dict[int, Spool] = {}
    for part in month.read_days(lambda _: None):
        if part.key != BLANK:
            spools.setdefault(part.key, open_spool(month)).add(part)
    stored = {key: pa.py_buffer(spools[key].build_content({})) for key in sorted(spools)}
    if month.is_parquet:
        return {key: open_parquet(content)[0].read() for key, content in stored.items()}
    packed = {key: open_sealed_zstd(content)[1] for key, content in stored.items()}
    return {key: pa.py_buffer(unpack(content)) for key, content in packed.items()}
