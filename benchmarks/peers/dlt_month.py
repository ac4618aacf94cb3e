"""Load a month with dlt: Arrow batches to Postgres by ADBC, and to Parquet by pickup day.

`benchmarks.peers` runs it in a separate virtual environment: `dlt_month.py MONTH.csv.gz LAKE`, with
the address of Postgres in PEER_POSTGRES and the schema in PEER_SCHEMA. It prints seconds by stage
as JSON. dlt runs a pipeline for each destination, so the file is read twice, and has a table for
each day, because its filesystem destination does not partition Parquet by a column.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

import dlt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

PICKUP = "tpep_pickup_datetime"
TIMES = (PICKUP, "tpep_dropoff_datetime")
NAIVE = {name: {"data_type": "timestamp", "timezone": False} for name in TIMES}


def read(month: str) -> Iterator[pa.Table]:
    """Yield the trips with passengers, in batches."""
    types = {
        **dict.fromkeys(TIMES, pa.timestamp("us")),
        "passenger_count": pa.int64(),
        "store_and_fwd_flag": pa.string(),
    }
    options = pa_csv.ConvertOptions(column_types=types, strings_can_be_null=True)
    blocks = pa_csv.ReadOptions(block_size=16 << 20)
    for batch in pa_csv.open_csv(month, read_options=blocks, convert_options=options):
        table = pa.Table.from_batches([batch])
        yield table.filter(pc.fill_null(pc.greater(table["passenger_count"], 0), False))


def by_day(month: str) -> Iterator[Any]:
    """Yield the rows of each pickup day as a table of that name."""
    table = pa.concat_tables(read(month))
    table = table.take(pc.sort_indices(table[PICKUP]))
    ends = pc.run_end_encode(table[PICKUP].cast(pa.date32()).combine_chunks())
    start = 0
    for day, end in zip(ends.values.to_pylist(), ends.run_ends.to_pylist(), strict=True):
        yield dlt.mark.with_table_name(table.slice(start, end - start), f"{day:%Y-%m-%d}")
        start = end


def main(month: str, lake: str) -> dict[str, float]:
    """Run a pipeline for each store, and return seconds by stage."""
    shutil.rmtree(lake, ignore_errors=True)
    Path(lake).mkdir(parents=True)
    clock = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as work:
        for name, destination, rows, dataset in (
            (
                "trips",
                dlt.destinations.postgres(os.environ["PEER_POSTGRES"]),
                read,
                os.environ["PEER_SCHEMA"],
            ),
            (
                "days",
                dlt.destinations.filesystem(
                    f"file://{Path(lake).absolute()}",
                    naming_convention="direct",
                    warn_unsafe_layout_separators=False,
                    layout="day={table_name}/{load_id}.{file_id}.{ext}",
                ),
                by_day,
                "yellow",
            ),
        ):
            resource = dlt.resource(
                rows(month), name=name, write_disposition="replace", columns=NAIVE
            )
            pipeline = dlt.pipeline(
                f"peer_{name}", destination=destination, dataset_name=dataset, pipelines_dir=work
            )
            pipeline.run(resource, loader_file_format="parquet").raise_on_failed_jobs()
            clock.append(time.perf_counter())
    seconds = [later - earlier for earlier, later in pairwise(clock)]
    return dict(zip(("Postgres", "Parquet a day"), seconds, strict=True))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
