"""The baseline of a large Parquet month: a straight-line script with the same outputs.

`python -m benchmarks.large_baseline SERVICE YYYY-MM FILE` prints the seconds of each stage as
JSON. One row group at a time is in memory; each day is written as published and in the service's
types, copied into Postgres and loaded into BigQuery, without Dagster, records, checks or
verification.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import stores
from benchmarks.baseline import Clock, load_stores, print_stages
from taxi_assets.date_ranges import Month
from taxi_assets.tlc.header import match_header
from taxi_assets.tlc.schema import Service


def split_days(path: Path, service: Service, first: date, end: date) -> list[Path]:
    """Write each day's rows as published, and return the files in order of the days."""
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
    """Write each day in the service's types, and return the files and their URIs."""
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


def run_baseline(clock: Clock, service: Service, month: Month, path: Path) -> None:
    """Run every stage once."""
    first = month.window.start
    raw = split_days(path, service, first, month.window.end)
    clock.lap("split and write raw days")
    files, uris = write_lake(raw, service, first)
    clock.lap("Parquet a day")
    tables = (pq.ParquetFile(file).read() for file in files)
    load_stores(clock, tables, uris, service, month)


if __name__ == "__main__":
    print_stages(run_baseline)
