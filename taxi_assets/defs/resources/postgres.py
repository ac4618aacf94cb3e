"""Connections to Postgres, to the embedded server or to the one the environment names.

Every statement, COPY included, goes over psycopg, so that one place limits how long a silent server
is waited for (`postgres_connection`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import SecretStr

from taxi_assets import local
from taxi_assets.errors import StoreError, UnavailableError, format_one_line
from taxi_assets.settings import Settings
from taxi_assets.settings.stores import PostgresSettings

if TYPE_CHECKING:
    from taxi_assets.defs.resources.postgres_connection import WatchedConnection

# libpq's words for what waiting does not mend (it gives no SQLSTATE for a failed connection).
REFUSALS = ("authentication failed", "does not exist", "no pg_hba.conf entry", "permission denied")

# A host that vanished is noticed after a minute; the system's own wait is two hours.
GONE: dict[str, Any] = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# An administrator may set these for the role. Silence is limited here, and not a load's duration;
# with `row_security` off a policy that would hide rows from a DELETE is an error; by any other
# isolation a DELETE misses the rows that were committed while it waited for the partition's lock.
SESSION = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "row_security": "off",
    "default_transaction_isolation": "read committed",
    "standard_conforming_strings": "on",
    "extra_float_digits": "1",
    "DateStyle": "ISO",
}
NO_READER = (
    "sql_query needs a login role that can only read: set POSTGRES_READER_USER and "
    "POSTGRES_READER_PASSWORD (docs/operations.md has the SQL that creates it)"
)


class PostgresResource(dg.ConfigurableResource["PostgresResource"]):
    """Postgres as the environment names it (POSTGRES_*), or the embedded one."""

    def schema_name(self) -> str:
        """Schema that holds the tables (POSTGRES_SCHEMA)."""
        return Settings.from_env().postgres.schema_name

    def is_embedded(self) -> bool:
        """Whether it is the embedded server."""
        return Settings.from_env().postgres.host is None

    def address(self) -> str:
        """Host, port and database, for messages."""
        settings = _resolve_address()
        return f"{settings.host}:{settings.port}/{settings.dbname}"

    @contextmanager
    def connect(self) -> Iterator[WatchedConnection]:
        """A connection; what is not committed is rolled back at the end.

        Raises:
            StoreError: the server refuses these credentials or this database.
            UnavailableError: it cannot be reached now.
        """
        with closing(
            _open_connection(_resolve_address(), "POSTGRES_USER, POSTGRES_PASSWORD")
        ) as connection:
            yield connection

    @contextmanager
    def connect_reader(self) -> Iterator[WatchedConnection]:
        """A connection of the role that can only read (POSTGRES_READER_USER).

        Raises:
            StoreError: no such role is configured, or the server refuses it.
            UnavailableError: the server cannot be reached now.
        """
        settings = _resolve_address()
        if not settings.reader_user:
            raise StoreError(NO_READER)
        reader = settings.model_copy(
            update={"user": settings.reader_user, "password": settings.reader_password}
        )
        names = "POSTGRES_READER_USER, POSTGRES_READER_PASSWORD"
        with closing(_open_connection(reader, names)) as connection:
            yield connection


def _open_connection(settings: PostgresSettings, names: str) -> WatchedConnection:
    import psycopg  # noqa: PLC0415 - heavy at import

    from taxi_assets.defs.resources.postgres_connection import WatchedConnection  # noqa: PLC0415

    address = f"{settings.host}:{settings.port}/{settings.dbname}"
    try:
        connection = WatchedConnection.connect(
            host=settings.host,
            port=settings.port,
            dbname=settings.dbname,
            user=settings.user,
            password=settings.password.get_secret_value(),
            connect_timeout=settings.connect_timeout,
            application_name="taxi_assets",
            client_encoding="UTF8",
            **GONE,
        )
    except psycopg.Error as error:
        said = format_one_line(error)[:200]
        if any(words in str(error) for words in REFUSALS):
            raise StoreError(
                f"Postgres at {address} refuses user {settings.user!r} "
                f"({said}): check {names} and POSTGRES_DBNAME"
            ) from error
        raise UnavailableError(
            f"Postgres at {address} cannot be reached ({said}): start it, "
            "or check POSTGRES_HOST and POSTGRES_PORT"
        ) from error
    connection.silence_limit = settings.timeout
    # Not `SET`: an older server lacks one of them.
    connection.execute(
        "SELECT set_config(name, (%s::jsonb) ->> name, false) FROM pg_settings"
        " WHERE name = ANY(%s)",
        [json.dumps(SESSION), list(SESSION)],
    )
    connection.commit()
    return connection


def _resolve_address() -> PostgresSettings:
    settings = Settings.from_env()
    if settings.postgres.host is not None:
        return settings.postgres
    stack = local.ensure_stack_running(settings.home)
    embedded = {
        "host": stack.postgres_host,
        "port": stack.postgres_port,
        "dbname": stack.postgres_dbname,
        "user": stack.postgres_user,
        "password": SecretStr(stack.postgres_password),
        "reader_user": stack.postgres_reader,
        "reader_password": SecretStr(stack.postgres_reader_password),
    }
    return settings.postgres.model_copy(update=embedded)
