"""`python -m benchmarks.large_month YYYY-MM FILE ROWS`: generate a month of high-volume trips.

Parquet with the columns, types and row groups that TLC publishes; 20 million rows are a typical
month. Rows are roughly in the order of their pickups; a few are in other months.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from taxi_assets.date_ranges import Month

Ints = npt.NDArray[np.int64]

ROW_GROUP = 1 << 20
"""Rows of a row group in TLC's files: more than a day has."""
SECOND = 1_000_000
WANDER = 2_400
"""Maximum number of seconds by which rows are out of order."""
STRAY_EVERY = 400_000
BASES = [f"B{number:05d}" for number in range(2_764, 2_890)]
LICENSES, LICENSE_SHARES = ["HV0003", "HV0005", "HV0004"], [0.73, 0.26, 0.01]


def write_large_month(month: Month, path: Path, rows: int) -> None:
    """Generate the file, one row group at a time."""
    rng = np.random.default_rng([month.year, month.month, rows])
    first = (month.window.start - date(1970, 1, 1)).days * 86_400
    seconds = len(month.window) * 86_400
    writer: pq.ParquetWriter | None = None
    for begin in range(0, rows, ROW_GROUP):
        n = min(ROW_GROUP, rows - begin)
        pickups = first + (begin + np.arange(n)) * seconds // rows
        pickups = np.clip(pickups + rng.integers(-WANDER, WANDER, n), first, first + seconds - 1)
        pickups[::STRAY_EVERY] -= 40 * 86_400
        table = _trips(rng, pickups)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="snappy")
        writer.write_table(table, row_group_size=ROW_GROUP)
    if writer:
        writer.close()


def _trips(rng: np.random.Generator, pickups: Ints) -> pa.Table:
    n = len(pickups)

    def chance(share: float) -> Any:
        return rng.random(n) < share

    def flags(share: float) -> pa.Array:
        return _texts(["N", "Y"], chance(share).astype(np.int8))

    def fee(dollars: float, share: float) -> pa.Array:
        return _cents(np.where(chance(share), dollars, 0))

    bases = rng.integers(0, len(BASES), n)
    miles = rng.gamma(1.5, 3.2, n)
    duration = (miles * 190 + rng.integers(60, 900, n)).astype(np.int64)
    fare = 3 + miles * 2.4 + duration / 150
    waited = rng.integers(60, 900, n)
    return pa.table(
        {
            "hvfhs_license_num": _texts(LICENSES, rng.choice(3, n, p=LICENSE_SHARES)),
            "dispatching_base_num": _texts(BASES, bases),
            "originating_base_num": _texts(BASES, bases, chance(0.27)),
            "request_datetime": _times(pickups - waited),
            "on_scene_datetime": _times(pickups - waited // 5, chance(0.27)),
            "pickup_datetime": _times(pickups),
            "dropoff_datetime": _times(pickups + duration),
            "PULocationID": pa.array(rng.integers(1, 266, n), pa.int64()),
            "DOLocationID": pa.array(rng.integers(1, 266, n), pa.int64()),
            "trip_miles": pa.array(np.round(miles, 3), pa.float64()),
            "trip_time": pa.array(duration, pa.int64()),
            "base_passenger_fare": _cents(fare),
            "tolls": fee(6.94, 0.08),
            "bcf": _cents(fare * 0.03),
            "sales_tax": _cents(fare * 0.08875),
            "congestion_surcharge": fee(2.75, 0.35),
            "airport_fee": fee(2.5, 0.08),
            "tips": _cents(np.where(chance(0.15), rng.random(n) * 9, 0)),
            "driver_pay": _cents(fare * 0.78),
            "shared_request_flag": flags(0.02),
            "shared_match_flag": flags(0.005),
            "access_a_ride_flag": _texts([" ", "N"], chance(0.93).astype(np.int8)),
            "wav_request_flag": flags(0.001),
            "wav_match_flag": flags(0.07),
        }
    )


def _times(seconds: Ints, missing: Any = None) -> pa.Array:
    return pa.array(seconds * SECOND, pa.int64(), mask=missing).cast(pa.timestamp("us"))


def _cents(dollars: Any) -> pa.Array:
    return pa.array(np.round(dollars, 2), pa.float64())


def _texts(values: list[str], places: Any, missing: Any = None) -> pa.Array:
    at = pa.array(places, pa.int32(), mask=missing)
    return pa.array(values, pa.string()).take(at)


if __name__ == "__main__":
    which, target, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    part = target.with_suffix(".part")
    write_large_month(Month(int(which[:4]), int(which[5:])), part, count)
    part.replace(target)
