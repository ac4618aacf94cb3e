"""Load a month with DuckDB: to Postgres by its extension, and to Parquet by pickup day.

`benchmarks.peers` runs it in a separate virtual environment: `duckdb_month.py MONTH.csv.gz LAKE`,
with the address of Postgres in PEER_POSTGRES and the schema in PEER_SCHEMA. It prints seconds by
stage as JSON.
"""

import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import duckdb

INTEGERS = (
    "VendorID", "passenger_count", "RatecodeID", "PULocationID", "DOLocationID", "payment_type",
)  # fmt: skip
TIMES = ("tpep_pickup_datetime", "tpep_dropoff_datetime")


def column_type(name: str) -> str:
    """Return the type of a column of yellow's files."""
    if name in INTEGERS:
        return "BIGINT"
    if name in TIMES:
        return "TIMESTAMP"
    return "VARCHAR" if name == "store_and_fwd_flag" else "DOUBLE"


def postgres_extension() -> Path:
    """Copy the wheel's extension to the file name that DuckDB expects, and return the path."""
    spec = importlib.util.find_spec("duckdb_extension_postgres")
    folders = (spec and spec.submodule_search_locations) or ()
    (extension,) = [path for folder in folders for path in Path(folder).rglob("*.duckdb_extension")]
    named = Path(tempfile.mkdtemp()) / "postgres_scanner.duckdb_extension"
    return Path(shutil.copy(extension, named))


def main(month: str, lake: str) -> dict[str, float]:
    """Read the month, write both stores, and return seconds by stage."""
    shutil.rmtree(lake, ignore_errors=True)
    Path(lake).mkdir(parents=True)
    schema = os.environ["PEER_SCHEMA"]
    clock = [time.perf_counter()]
    with duckdb.connect(config={"preserve_insertion_order": False}) as db:
        db.execute("SET autoinstall_known_extensions = false")
        db.execute(f"LOAD '{postgres_extension()}'")
        db.execute(f"ATTACH '{os.environ['PEER_POSTGRES']}' AS pg (TYPE postgres)")
        header = db.execute(f"SELECT * FROM read_csv('{month}', all_varchar = true) LIMIT 0")
        types = {name: column_type(name) for name, *_ in header.description or ()}
        db.execute(
            f"CREATE TEMP TABLE trips AS SELECT * FROM read_csv('{month}', header = true,"
            f" columns = {types}, nullstr = '') WHERE passenger_count > 0"
        )
        clock.append(time.perf_counter())
        reset = f"CREATE SCHEMA IF NOT EXISTS {schema}; DROP TABLE IF EXISTS {schema}.trips"
        db.execute(f"CALL postgres_execute('pg', '{reset}')")
        db.execute("CALL pg_clear_cache()")
        db.execute(f"CREATE TABLE pg.{schema}.trips AS SELECT * FROM trips")
        clock.append(time.perf_counter())
        db.execute(
            f"COPY (SELECT *, tpep_pickup_datetime::DATE AS day FROM trips) TO '{lake}'"
            " (FORMAT parquet, PARTITION_BY (day), OVERWRITE_OR_IGNORE)"
        )
    clock.append(time.perf_counter())
    seconds = [later - earlier for earlier, later in pairwise(clock)]
    return dict(zip(("read", "Postgres", "Parquet a day"), seconds, strict=True))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
