"""Piped into the code server's container: rows of each store, and of the source, for some days.

`python - <service> <day>...` makes the months of the sample again, cleans them by the pure
functions, reads the stores with their own clients, and prints `{"<store>": {"<day>": rows}}` and
the hash of each store's rows. It fails where a store does not hold the source's rows.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import tempfile
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from taxi_assets.date_ranges import group_days_by_month
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.defs.resources.lake import LakeResource
from taxi_assets.defs.resources.lake_keys import build_trips_key
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.tlc.sample import write_sample_month
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import clean_partition, convert_to_frame


def read_source(service: Service, days: list[date]) -> pa.Table:
    frames = []
    for month, month_days in group_days_by_month(days).items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "month.csv.gz")
            write_sample_month(service, month, path)
            content = gzip.decompress(path.read_bytes())
        frame = clean_partition(pa.py_buffer(content), service).frame
        frames.append(frame[frame[service.pickup_column].dt.date.isin(month_days)])
    return pa.Table.from_pandas(pd.concat(frames), service.arrow_schema, preserve_index=False)


def read_postgres(service: Service, days: list[date]) -> pa.Table:
    resource = PostgresResource()
    columns = ", ".join(column.name for column in service.columns)
    table = f"{resource.schema_name()}.{service.table}"
    with resource.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {columns} FROM {table} WHERE {service.pickup_column} >= '{days[0]}'"
            f" AND {service.pickup_column} < DATE '{days[-1]}' + 1"
        )
        columns_of_rows = zip(*cursor.fetchall(), strict=True)
    schema = service.arrow_schema
    return pa.table(
        [pa.array(values, f.type) for values, f in zip(columns_of_rows, schema, strict=True)],
        schema=schema,
    )


def read_lake(service: Service, days: list[date]) -> pa.Table:
    lake = LakeResource().lake
    names = [column.name for column in service.columns]
    keys = [build_trips_key(service, day, lake.layout) for day in days]
    tables = [
        pq.ParquetFile(lake.filesystem.open_input_file(f"{lake.root}/{key}")).read(names)
        for key in keys
    ]
    return pa.concat_tables(tables)


def read_bigquery(service: Service, days: list[date]) -> pa.Table:
    resource = BigQueryResource()
    columns = ", ".join(column.name for column in service.columns)
    with resource.client() as client:
        rows = client.query(
            f"SELECT {columns} FROM `{resource.dataset}.{service.table}` WHERE"
            f" {service.day_column} BETWEEN DATE '{days[0]}' AND DATE '{days[-1]}'"
        ).result()
        return rows.to_arrow(create_bqstorage_client=False)


def main() -> int:
    service = SERVICES[sys.argv[1]]
    days = [date.fromisoformat(day) for day in sys.argv[2:]]
    names = [column.name for column in service.columns]
    rows, hashes = {}, {}
    for read in (read_source, read_postgres, read_lake, read_bigquery):
        frame = convert_to_frame(read(service, days).cast(service.arrow_schema))
        frame = frame.sort_values(names, na_position="first")
        store = read.__name__.removeprefix("read_")
        of_day = frame.groupby(frame[service.pickup_column].dt.date).size()
        rows[store] = {str(day): int(of_day.get(day, 0)) for day in days}
        text = frame.to_csv(index=False, float_format="%.17g")
        hashes[store] = hashlib.sha256(text.encode()).hexdigest()
    print(json.dumps({"rows": rows, "hashes": hashes}))
    return len(set(hashes.values())) != 1


if __name__ == "__main__":
    sys.exit(main())
