"""The baseline of a large Parquet month: the same outputs by one straight-line script.

`python -m benchmarks.large_baseline SERVICE YYYY-MM FILE` prints the seconds of each stage as
JSON. A row group at a time is in memory; each day is written as published, once more in the
service's types, copied into Postgres and loaded into BigQuery. No Dagster, records, checks or
verification.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import stores
from benchmarks.baseline import Clock, load_bigquery
from taxi_assets.defs.io_managers.binary_copy import copy_rows_binary
from taxi_assets.tlc.header import match_header
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES


def split_days(path: Path, service: Service, first: date, end: date) -> list[Path]:
    """Write each day's rows as published; returns the files, by day."""
    header = match_header(tuple(pq.read_schema(path).names), service, by_name=True)
    folder = stores.lake() / "_raw" / service.name / str(first)[:7]
    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[date, pq.ParquetWriter] = {}
    with pq.ParquetFile(path) as month:
        for at in range(month.num_row_groups):
            rows = month.read_row_group(at)
            days = rows.column(header.pickup_index).cast(pa.date32()).to_numpy()
            for day in np.unique(days).tolist():
                if first <= day < end:
                    target = folder / f"{day.day:02d}.parquet"
                    if day not in writers:
                        writers[day] = pq.ParquetWriter(target, rows.schema, compression="zstd")
                    writers[day].write_table(rows.filter(pa.array(days == np.datetime64(day))))
    for writer in writers.values():
        writer.close()
    return [folder / f"{day.day:02d}.parquet" for day in sorted(writers)]


def write_lake(files: list[Path], service: Service, first: date) -> tuple[list[Path], list[str]]:
    """Write each day in the service's types; returns the files and their URIs."""
    written, uris = list[Path](), list[str]()
    for file in files:
        rows = pq.read_table(file)
        header = match_header(tuple(rows.schema.names), service, by_name=True)
        columns = [
            rows.column(header.places[column.name]).cast(column.arrow)
            if column.name in header.places
            else pa.nulls(rows.num_rows, column.arrow)
            for column in service.columns
        ]
        day = first.replace(day=int(file.stem))
        key = f"{service.name}/{service.day_column}={day}/trips.parquet"
        target = stores.lake() / key
        target.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_arrays(columns, schema=service.arrow_schema)
        pq.write_table(table, target, compression="zstd", compression_level=1)
        written.append(target)
        uris.append(f"gs://{stores.lake().name}/{key}")
    return written, uris


def copy_to_postgres(files: list[Path], service: Service) -> None:
    """Binary COPY of all days into a fresh table, in one transaction."""
    import psycopg  # noqa: PLC0415 - heavy at import

    def tables() -> Iterator[pa.Table]:
        for file in files:
            yield pq.ParquetFile(file).read()

    target = stores.postgres_table(service)
    columns = ", ".join(f'"{column.name}" {column.postgres}' for column in service.columns)
    with psycopg.connect(stores.postgres_address()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {target.split('.')[0]}")
        cursor.execute(f"CREATE TABLE {target} ({columns})")
        copy_rows_binary(cursor, target, service.arrow_schema, tables())


def main(service: Service, month: str, path: Path) -> dict[str, float]:
    """Everything once; seconds by stage."""
    first = date.fromisoformat(f"{month}-01")
    end = (first + timedelta(days=31)).replace(day=1)
    clock = Clock()
    raw = split_days(path, service, first, end)
    clock.lap("split and write raw days")
    files, uris = write_lake(raw, service, first)
    clock.lap("Parquet a day")
    copy_to_postgres(files, service)
    clock.lap("COPY to Postgres")
    load_bigquery(uris, service, first, end)
    clock.lap("load BigQuery")
    return clock.stages


if __name__ == "__main__":
    print(json.dumps(main(SERVICES[sys.argv[1]], sys.argv[2], Path(sys.argv[3]))))
