"""Clients of the two servers, the ones that users of the package have."""

from typing import Any

import adbc_driver_postgresql.dbapi as postgres
from google.api_core.client_options import ClientOptions
from google.cloud import bigquery
from google.oauth2.credentials import Credentials

from taxi_assets.local import Stack


def postgres_uri(stack: Stack, password: str | None = None) -> str:
    secret = stack.postgres_password if password is None else password
    return (
        f"postgresql://{stack.postgres_user}:{secret}@{stack.postgres_host}:{stack.postgres_port}"
        f"/{stack.postgres_dbname}"
    )


def postgres_rows(stack: Stack, *statements: str) -> list[Any]:
    """Run statements in one transaction each; return the rows of the last one."""
    with postgres.connect(postgres_uri(stack), autocommit=True) as link, link.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall()


def bigquery_client(stack: Stack) -> bigquery.Client:
    return bigquery.Client(
        project="taxi-local",
        credentials=Credentials(stack.bigquery_token),
        client_options=ClientOptions(api_endpoint=stack.bigquery_endpoint),
    )
