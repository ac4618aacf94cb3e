"""The baseline: a straight-line script with the same outputs, without Dagster, records or checks.

`python -m benchmarks.baseline SERVICE YYYY-MM FILE` prints the seconds of each stage as JSON. Rows
stay in memory between stages, pyarrow uses its own threads, and each store is written once, as a
first load. The script writes one Parquet object per day; a run writes two (the cleaned partition
and the lake), so that another machine can continue from it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from benchmarks import stores
from taxi_assets.date_ranges import Month
from taxi_assets.defs.io_managers.postgres_copy import copy_rows_binary
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES

if TYPE_CHECKING:
    from google.cloud.bigquery import Client

DATE = len("2021-01-05")
CODEC = pa.Codec("zstd", 1)


class Clock:
    """Measures the seconds of each stage, in order."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.stages[stage] = now - self.last
        self.last = now


def decompress(path: Path) -> pa.Buffer:
    """Decompress the CSV into memory."""
    with pa.input_stream(str(path), compression="gzip") as stream:
        return stream.read_buffer()


def write_raw_days(lines: pa.Buffer, service: Service, month: str) -> None:
    """Write each day's lines, byte for byte, as zstd; skip lines of other months.

    The first field has at most one digit, so the pickup time is found without a CSV parser.
    """
    if service.pickup_index != 1:
        raise ValueError(f"{service.name}: the pickup time is not the second field")
    text = np.frombuffer(lines, np.uint8)
    starts = np.flatnonzero(text == ord("\n")) + 1
    starts, offsets = starts[:-1], starts.astype(np.int32)
    header = lines.slice(0, int(starts[0]))
    pickups = starts + np.where(text[starts] == ord(","), 1, 2)
    stamps = text[pickups[:, None] + np.arange(DATE)]
    inside = (stamps[:, : len(month)] == np.frombuffer(month.encode(), np.uint8)).all(axis=1)
    digits = stamps[:, -2:].astype(np.int8) - ord("0")
    days = np.where(inside, digits[:, 0] * 10 + digits[:, 1], 0)
    order = np.argsort(days, kind="stable")
    rows = pa.Array.from_buffers(pa.binary(), len(days), [None, pa.py_buffer(offsets), lines]).take(
        pa.array(order)
    )
    _, moved, values = rows.buffers()
    bounds = np.append(np.searchsorted(days[order], np.arange(1, days.max() + 1)), len(days))
    at = np.frombuffer(moved, np.int32)[bounds]
    for day, (begin, end) in enumerate(zip(at[:-1].tolist(), at[1:].tolist(), strict=True), 1):
        target = stores.lake() / "_raw" / service.name / month / f"{day:02d}.csv.zst"
        target.parent.mkdir(parents=True, exist_ok=True)
        packed = CODEC.compress(values.slice(begin, end - begin), asbytes=True)
        target.write_bytes(CODEC.compress(header, asbytes=True) + packed)


def parse(lines: pa.Buffer, service: Service) -> pa.Table:
    """Parse the lines into the service's types."""
    table = pa_csv.read_csv(
        pa.BufferReader(lines),
        convert_options=pa_csv.ConvertOptions(
            column_types={c.published: c.arrow for c in service.header_columns},
            strings_can_be_null=True,
            null_values=[""],
        ),
    )
    table = table.rename_columns([column.name for column in service.header_columns])
    for column in service.columns[len(service.header) :]:  # newer than the file
        table = table.append_column(column.name, pa.nulls(table.num_rows, column.arrow))
    return table


def filter_rows(table: pa.Table, service: Service, first: date, end: date) -> pa.Table:
    """Return the month's rows with passengers."""
    pickup = table[service.pickup_column]
    inside = pc.and_(
        pc.greater_equal(pickup, pa.scalar(first).cast(pickup.type)),
        pc.less(pickup, pa.scalar(end).cast(pickup.type)),
    )
    if passengers := service.find_role("passengers"):
        inside = pc.and_(inside, pc.greater(table[passengers], 0))
    return table.filter(inside)


def write_parquet_days(table: pa.Table, service: Service) -> list[str]:
    """Write one object per day to the lake, and return their URIs."""
    days = table[service.pickup_column].cast(pa.date32())
    order = pc.sort_indices(days)
    table, runs = table.take(order), pc.run_end_encode(days.take(order).combine_chunks())
    begin, uris = 0, list[str]()
    for day, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        key = f"{service.name}/{service.day_column}={day}/trips.parquet"
        target = stores.lake() / key
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            table.slice(begin, end - begin), target, compression="zstd", compression_level=1
        )
        uris.append(f"gs://{stores.lake().name}/{key}")
        begin = end
    return uris


def load_postgres(tables: Iterable[pa.Table], service: Service) -> None:
    """Load a new table by binary COPY, in one transaction."""
    import psycopg  # noqa: PLC0415 - heavy at import

    target = stores.postgres_table(service)
    columns = ", ".join(f'"{column.name}" {column.postgres}' for column in service.columns)
    with psycopg.connect(stores.postgres_address()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {target.split('.')[0]}")
        cursor.execute(f"CREATE TABLE {target} ({columns})")
        copy_rows_binary(cursor, target, service.arrow_schema, tables)


def load_bigquery(uris: list[str], service: Service, first: date, end: date) -> None:
    """Load a staging table by a job, then a new table in one transaction."""
    from google.cloud import bigquery as google  # noqa: PLC0415 - heavy at import

    client, dataset = stores.bigquery(), stores.bigquery_dataset()
    client.create_dataset(dataset, exists_ok=True)
    target, staging = f"{dataset}.{service.table}", f"{dataset}.staging_{service.name}"
    schema = [google.SchemaField(column.name, column.bigquery) for column in service.columns]
    table = google.Table(target, [*schema, google.SchemaField(service.day_column, "DATE")])
    table.time_partitioning = google.TimePartitioning(field=service.day_column)
    client.create_table(table)
    client.delete_table(staging, not_found_ok=True)
    client.create_table(google.Table(staging, schema))
    _load(client, uris, staging, schema)
    names = ", ".join(f"`{column.name}`" for column in service.columns)
    client.query(
        "BEGIN TRANSACTION;\n"
        f"DELETE FROM `{target}` WHERE {service.day_column} >= DATE '{first}'"
        f" AND {service.day_column} < DATE '{end}';\n"
        f"INSERT INTO `{target}` ({names}, {service.day_column})"
        f" SELECT {names}, DATE({service.pickup_column}) FROM `{staging}`;\n"
        "COMMIT TRANSACTION;"
    ).result()
    client.delete_table(staging)
    client.close()


def _load(client: Client, uris: list[str], staging: str, schema: list[Any]) -> None:
    from google.cloud import bigquery as google  # noqa: PLC0415 - heavy at import

    config = google.LoadJobConfig(source_format=google.SourceFormat.PARQUET, schema=schema)
    client.load_table_from_uri(uris, staging, job_config=config).result()


def load_stores(
    clock: Clock, tables: Iterable[pa.Table], uris: list[str], service: Service, month: Month
) -> None:
    """Load Postgres and BigQuery: the last two stages of every baseline."""
    load_postgres(tables, service)
    clock.lap("COPY to Postgres")
    load_bigquery(uris, service, month.window.start, month.window.end)
    clock.lap("load BigQuery")


def print_stages(baseline: Callable[[Clock, Service, Month, Path], None]) -> None:
    """Run a baseline for SERVICE YYYY-MM FILE of the command line; print seconds by stage."""
    name, month, path = sys.argv[1:]
    clock = Clock()
    baseline(clock, SERVICES[name], Month(int(month[:4]), int(month[5:])), Path(path))
    print(json.dumps(clock.stages))


def run_baseline(clock: Clock, service: Service, month: Month, path: Path) -> None:
    """Run every stage once."""
    lines = decompress(path)
    clock.lap("decompress")
    write_raw_days(lines, service, str(month))
    clock.lap("split and pack raw days")
    table = parse(lines, service)
    clock.lap("parse")
    table = filter_rows(table, service, month.window.start, month.window.end)
    clock.lap("filter")
    uris = write_parquet_days(table, service)
    clock.lap("Parquet a day")
    load_stores(clock, [table], uris, service, month)


if __name__ == "__main__":
    print_stages(run_baseline)
