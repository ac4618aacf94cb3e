"""Connect to the three stores, empty them, and settle before a measurement.

`python -m benchmarks.stores settle` and `... empty SERVICE` run before measured commands. The
variables are those of `python -m taxi_assets.local env`, plus POSTGRES_SCHEMA and BIGQUERY_DATASET,
which give the baseline separate tables.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES

if TYPE_CHECKING:
    from google.cloud.bigquery import Client


def postgres_address() -> str:
    """Return the connection URL for libpq."""
    env = os.environ
    user, password = quote(env["POSTGRES_USER"], safe=""), quote(env["POSTGRES_PASSWORD"], safe="")
    place = f"{env['POSTGRES_HOST']}:{env['POSTGRES_PORT']}/{env['POSTGRES_DBNAME']}"
    return f"postgresql://{user}:{password}@{place}"


def postgres() -> Any:
    """Open an ADBC connection."""
    from adbc_driver_postgresql import dbapi  # noqa: PLC0415 - heavy at import

    return dbapi.connect(postgres_address(), autocommit=True)


def postgres_table(service: Service) -> str:
    """Return the service's table with its schema."""
    return f'"{os.environ["POSTGRES_SCHEMA"]}"."{service.table}"'


def bigquery() -> Client:
    """Open a client of the emulator."""
    from google.api_core.client_options import ClientOptions  # noqa: PLC0415 - heavy at import
    from google.cloud import bigquery as google  # noqa: PLC0415
    from google.oauth2.credentials import Credentials  # noqa: PLC0415

    return google.Client(
        project=os.environ["GCP_PROJECT"],
        credentials=Credentials(os.environ["BIGQUERY_TOKEN"]),
        client_options=ClientOptions(api_endpoint=os.environ["BIGQUERY_ENDPOINT"]),
    )


def bigquery_dataset() -> str:
    """Return `project.dataset`."""
    return f"{os.environ['GCP_PROJECT']}.{os.environ['BIGQUERY_DATASET']}"


def lake() -> Path:
    """Return the folder of the bucket."""
    return Path(os.environ["TAXI_LAKE"])


def empty(service: Service) -> None:
    """Remove a service from all stores, for a first load."""
    with postgres() as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {postgres_table(service)} CASCADE")
    client = bigquery()
    client.delete_table(f"{bigquery_dataset()}.{service.table}", not_found_ok=True)
    client.close()
    for folder in ("", "_raw", "_cleaned"):
        shutil.rmtree(lake() / folder / service.name, ignore_errors=True)


def settle() -> None:
    """Write dirty pages to disk, so that they are not written during the next run."""
    with postgres() as connection, connection.cursor() as cursor:
        cursor.execute("CHECKPOINT")
    os.sync()


def count(service: Service) -> dict[str, int]:
    """Return the number of rows of a service in each store."""
    import duckdb  # noqa: PLC0415 - not needed to empty and settle

    with postgres() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {postgres_table(service)}")
        (in_postgres,) = cursor.fetchone()
    files = f"{lake()}/{service.name}/*/*.parquet"
    (in_lake,) = duckdb.sql(f"SELECT count(*) FROM '{files}'").fetchone() or (0,)
    client = bigquery()
    query = f"SELECT count(*) FROM `{bigquery_dataset()}.{service.table}`"
    ((in_bigquery,),) = [tuple(row) for row in client.query(query).result()]
    client.close()
    return {"postgres": int(in_postgres), "lake": int(in_lake), "bigquery": int(in_bigquery)}


if __name__ == "__main__":
    if sys.argv[1] == "count":
        print(json.dumps(count(SERVICES[sys.argv[2]])))
        sys.exit()
    if sys.argv[1] == "empty":
        empty(SERVICES[sys.argv[2]])
    settle()
