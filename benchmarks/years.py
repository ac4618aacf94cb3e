"""`python -m benchmarks.years SERVICE ROWS REPEATS MONTHS...`: rewrite a day in a growing table.

It prints as JSON the seconds of each rewrite of a day, and the bytes of the table, for Postgres
tables of MONTHS months with ROWS rows per day. The IO manager does the rewrite: DELETE, COPY,
VACUUM. The variables are those of `benchmarks.stores`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pa_fs

from benchmarks import stores
from taxi_assets.defs.io_managers.partition_data import (
    CLEANED,
    Label,
    StoredTrips,
    encode_trips,
    open_stored_trips,
)
from taxi_assets.defs.io_managers.postgres import PostgresTripsIOManager
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.tlc.column import Column
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import sum_total_amount

FIRST = date(2021, 1, 1)
LOG = logging.getLogger(__name__)
RANDOM = np.random.default_rng(2021)


def values(column: Column, day: date, rows: int) -> object:
    """Return the values of a column; times increase through the day."""
    start = np.datetime64(datetime.combine(day, datetime.min.time()), "us")
    match column.kind:
        case "id":
            return RANDOM.integers(1, 264, rows)
        case "amount":
            return RANDOM.integers(100, 9_000, rows) / 100
        case "time":
            return start + np.linspace(0, 86_399, rows).astype("timedelta64[s]")
        case _:
            return np.full(rows, "N")


def store_day(lake: Lake, service: Service, day: date, rows: int) -> StoredTrips:
    """Store a day of generated trips in the lake."""
    columns = {column.name: values(column, day, rows) for column in service.columns}
    table = pa.table(columns, schema=service.arrow_schema)
    facts = {
        str(service.total): sum_total_amount(table, service),
        "url": "made up",
        "synthetic": True,
    }
    lake.put(f"{day}.parquet", encode_trips(table, facts))
    stored = open_stored_trips(
        lake, f"{day}.parquet", Label(service.name, CLEANED, str(day)), service
    )
    if stored is None:
        raise FileNotFoundError(day)
    return stored


@contextmanager
def temporary_lake() -> Iterator[Lake]:
    """Create a folder and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="taxi-years-") as folder:
        yield Lake(pa_fs.LocalFileSystem(), folder, "years", "hive")


@contextmanager
def schema(months: int) -> Iterator[None]:
    """Set POSTGRES_SCHEMA to the schema of the table of `months` months."""
    before = os.environ["POSTGRES_SCHEMA"]
    os.environ["POSTGRES_SCHEMA"] = f"{before}_{months}"
    try:
        yield
    finally:
        os.environ["POSTGRES_SCHEMA"] = before


def size(service: Service) -> int:
    """Return the bytes of the table with its partitions and indexes."""
    table = stores.postgres_table(service)
    query = f"SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_partition_tree('{table}')"
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return int(cursor.fetchone()[0])


def main(name: str, rows: int, repeats: int, sizes: list[int]) -> dict[str, dict[str, Any]]:
    """Fill the tables, then rewrite the middle day of each; repeats are interleaved."""
    service = SERVICES[name]
    manager = PostgresTripsIOManager({name: service}, PostgresResource())

    def store(days: dict[date, StoredTrips]) -> None:
        list(manager.store(service, days, LOG))  # type: ignore[arg-type]

    days = {months: [FIRST + timedelta(n) for n in range(months * 365 // 12)] for months in sizes}
    seconds: dict[int, list[float]] = {months: [] for months in sizes}
    with temporary_lake() as lake:
        for months, all_days in days.items():
            for at in range(0, len(all_days), 31):
                with schema(months):
                    chunk = all_days[at : at + 31]
                    store({day: store_day(lake, service, day, rows) for day in chunk})
        stores.settle()
        for _ in range(repeats):
            for months, all_days in days.items():
                middle = all_days[len(all_days) // 2]
                with schema(months):
                    again = {middle: store_day(lake, service, middle, rows)}
                    began = time.perf_counter()
                    store(again)
                    seconds[months].append(time.perf_counter() - began)
    results: dict[str, dict[str, Any]] = {}
    for months, all_days in days.items():
        with schema(months):
            results[str(months)] = {
                "days": len(all_days),
                "rows": rows * len(all_days),
                "bytes": size(service),
                "seconds": seconds[months],
            }
    return results


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:]]
    print(json.dumps(main(sys.argv[1], numbers[0], numbers[1], numbers[2:])))
