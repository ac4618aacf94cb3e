"""Load the same month with other tools, into Postgres and Parquet by day, for comparison.

Each tool has a virtual environment, created at first use in the benchmark's folder, in which its
script runs. They write two stores, and no records, checks or raw days. Rows are counted after each
run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import psycopg

from benchmarks.bench import Bench, Measured
from benchmarks.measure import BenchmarkError, run

PACKAGES = {
    "duckdb": ("duckdb==1.5.5", "duckdb-extension-postgres==1.5.5"),
    "dlt": (
        "dlt[postgres,filesystem,parquet]==1.31.0",
        "pandas>=2.3,<3",
        "pyarrow>=22,<27",
        "adbc-driver-postgresql>=1.8,<2",
    ),
}
"""By the name of the peer."""
Totals = tuple[int, int]
"""Rows, and the sum of total_amount in dollars."""


def install(bench: Bench, name: str) -> Path:
    """Return the peer's interpreter, and create its virtual environment if it does not exist."""
    folder = bench.work / "peers" / name
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", *PACKAGES[name]]
        subprocess.run(pip, check=True)
        (folder / "ready").touch()
    return python


def measure(bench: Bench, name: str) -> Measured:
    """Run a peer over the first month.

    Raises:
        BenchmarkError: it failed, or the rows of a store differ from those of the file.
    """
    python, month = install(bench, name), bench.month_file(0)
    lake, schema = bench.work / "peers" / f"{name}-lake", f"peer_{name}"
    env = bench.env | {"PEER_POSTGRES": address(bench), "PEER_SCHEMA": schema}
    bench.settle()
    log = bench.logs / f"{name}.log"
    script = Path(__file__).with_name(f"{name}_month.py")
    sample = run([python, script, month, lake], env, log, bench.servers)
    expected = read_totals(f"read_csv('{month}', nullstr = '') WHERE passenger_count > 0")
    totals_by_store = {
        "Postgres": postgres_totals(bench, schema),
        "Parquet": read_totals(f"'{lake}/**/*.parquet' WHERE total_amount IS NOT NULL"),
    }
    if any(totals != expected for totals in totals_by_store.values()):
        raise BenchmarkError(f"{name}: {totals_by_store}, but the file has {expected}")
    return Measured(sample, json.loads(log.read_text().splitlines()[-1]))


def address(bench: Bench) -> str:
    """Return the connection URL of the benchmark's Postgres, for libpq."""
    it = bench.stores
    place = f"{it['POSTGRES_HOST']}:{it['POSTGRES_PORT']}/{it['POSTGRES_DBNAME']}"
    return f"postgresql://{it['POSTGRES_USER']}:{it['POSTGRES_PASSWORD']}@{place}"


def read_totals(source: str) -> Totals:
    """Return the totals of an expression that DuckDB reads."""
    row = duckdb.sql(f"SELECT count(*), round(sum(total_amount)) FROM {source}").fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def postgres_totals(bench: Bench, schema: str) -> Totals:
    """Return the totals of the table in Postgres, and drop it."""
    with psycopg.connect(address(bench)) as connection:
        query = f"SELECT count(*), round(sum(total_amount)::numeric) FROM {schema}.trips"
        row = connection.execute(query).fetchone()
        connection.execute(f"DROP SCHEMA {schema} CASCADE")
    return (int(row[0]), int(row[1])) if row else (0, 0)
