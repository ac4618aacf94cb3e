"""Verify the rows of the stores by counts and order-independent hashes of stores and month files.

In each store, SQL formats a row as the same text (integers, amounts in cents, times in seconds),
computes its MD5, and sums the first two 32-bit numbers of it. DuckDB computes the same from the
month files, without code of the package.

`python -m benchmarks.verify SERVICE FIRST LAST FILE...` prints the digests as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from benchmarks import stores
from taxi_assets.tlc.column import Column
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES

Digest = tuple[int, int, int]
"""Number of rows, and the sums of both numbers of their hashes."""

# Expressions that format a value as text, by dialect; {0} is the quoted column.
DUCKDB = {
    "id": "CAST({0} AS VARCHAR)",
    "amount": "CAST(CAST(round({0} * 100) AS BIGINT) AS VARCHAR)",
    "time": "CAST(CAST({0} AS TIMESTAMP) AS VARCHAR)",
    "text": "{0}",
}
POSTGRES = {
    "id": "{0}::text",
    "amount": "round({0} * 100)::bigint::text",
    "time": "to_char({0}, 'YYYY-MM-DD HH24:MI:SS')",
    "text": "{0}",
}
BIGQUERY = {
    "id": "CAST({0} AS STRING)",
    "amount": "CAST(CAST(ROUND({0} * 100) AS INT64) AS STRING)",
    "time": "FORMAT_DATETIME('%Y-%m-%d %H:%M:%S', {0})",
    "text": "{0}",
}


def row_text(service: Service, dialect: dict[str, str], name: Callable[[Column], str]) -> str:
    """Return the SQL expression that formats a row as text; null is empty."""
    values = (dialect[column.kind].format(name(column)) for column in service.columns)
    return " || '|' || ".join(f"COALESCE({value}, '')" for value in values)


def of_duckdb(
    service: Service, source: str, name: Callable[[Column], str], condition: str
) -> Digest:
    """Return the digest of the rows that DuckDB reads from `source`."""
    import duckdb  # noqa: PLC0415 - not needed to read this module

    halves = ", ".join(f"sum(('0x' || h[{at}:{at + 7}])::BIGINT)" for at in (1, 9))
    query = (
        f"SELECT count(*), {halves} FROM (SELECT md5({row_text(service, DUCKDB, name)}) AS h"
        f" FROM {source} WHERE {condition})"
    )
    return _digest(duckdb.sql(query).fetchone())


def of_files(service: Service, first: date, last: date, files: list[str]) -> Digest:
    """Return the digest of the expected rows: those with passengers and a pickup in the days.

    `files` are the files of the days' months, in order; rows of other months do not count.
    """
    total = [0, 0, 0]
    begin = first
    for file in files:
        next_month = (begin.replace(day=1) + timedelta(days=31)).replace(day=1)
        digest = of_file(service, begin, min(next_month, last + timedelta(days=1)), file)
        total = [a + b for a, b in zip(total, digest, strict=True)]
        begin = next_month
    return _digest(total)


def of_file(service: Service, first: date, end: date, file: str) -> Digest:
    """Return the digest of the rows with passengers and a pickup in [first, end)."""
    types = {"id": "BIGINT", "amount": "DOUBLE", "time": "TIMESTAMP", "text": "VARCHAR"}
    columns = {column.published: types[column.kind] for column in service.header_columns}
    source = f"read_csv({file!r}, header = true, columns = {columns!r})"
    condition = f"\"{service.pickup}\" >= '{first}' AND \"{service.pickup}\" < '{end}'"
    if passengers := service.find_role("passengers"):
        condition += f" AND {passengers} > 0"

    def name(column: Column) -> str:
        return f'"{column.published}"' if column.published in columns else "NULL"

    return of_duckdb(service, source, name, condition)


def of_lake(service: Service) -> Digest:
    """Return the digest of the lake's Parquet objects."""
    source = f"read_parquet('{stores.lake()}/{service.name}/**/*.parquet', hive_partitioning=false)"
    return of_duckdb(service, source, lambda column: f'"{column.name}"', "true")


def of_postgres(service: Service) -> Digest:
    """Return the digest of the Postgres table."""
    text = row_text(service, POSTGRES, lambda column: f'"{column.name}"')
    halves = ", ".join(
        f"sum(('x' || substr(h, {at}, 8))::bit(32)::bigint)::bigint" for at in (1, 9)
    )
    query = (
        f"SELECT count(*), {halves} FROM"
        f" (SELECT md5({text}) AS h FROM {stores.postgres_table(service)} OFFSET 0) t"
    )
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return _digest(cursor.fetchone())


def of_bigquery(service: Service) -> Digest:
    """Return the digest of the BigQuery table."""
    text = row_text(service, BIGQUERY, lambda column: f"`{column.name}`")
    halves = ", ".join(f"SUM(CAST(CONCAT('0x', SUBSTR(h, {at}, 8)) AS INT64))" for at in (1, 9))
    query = (
        f"SELECT COUNT(*), {halves} FROM (SELECT TO_HEX(MD5({text})) AS h"
        f" FROM `{stores.bigquery_dataset()}.{service.table}`)"
    )
    client = stores.bigquery()
    try:
        (row,) = client.query(query).result()
        return _digest(tuple(row))
    finally:
        client.close()


def _digest(row: Any) -> Digest:
    rows, low, high = row
    return int(rows), int(low or 0), int(high or 0)


def main(service: Service, first: date, last: date, files: list[str]) -> dict[str, str]:
    """Return all digests by name, as `rows:hash`."""
    digests = {
        "files": of_files(service, first, last, files),
        "postgres": of_postgres(service),
        "lake": of_lake(service),
        "bigquery": of_bigquery(service),
    }
    return {name: f"{rows}:{low:x}-{high:x}" for name, (rows, low, high) in digests.items()}


if __name__ == "__main__":
    days = date.fromisoformat(sys.argv[2]), date.fromisoformat(sys.argv[3])
    print(json.dumps(main(SERVICES[sys.argv[1]], *days, sys.argv[4:])))
