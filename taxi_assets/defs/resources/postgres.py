"""Connections to Postgres: to the embedded server, or to the server that the environment names.

Every statement, including COPY, uses psycopg, so one module limits the wait for a silent server
(`postgres_connection`).
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import SecretStr

from taxi_assets import local
from taxi_assets.defs.resources.fields import override, read_settings_with_fields
from taxi_assets.errors import StoreError, UnavailableError, format_one_line
from taxi_assets.settings import Settings
from taxi_assets.settings.stores import PostgresSettings

if TYPE_CHECKING:
    from taxi_assets.defs.resources.postgres_connection import WatchedConnection

# libpq's texts for permanent errors (it has no SQLSTATE for a failed connection).
PERMANENT_ERRORS = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "permission denied",
)

# Detects a vanished host after a minute; the default of the system is two hours.
KEEPALIVE: dict[str, Any] = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# Overrides settings of the role. The client limits silence, not the duration of a load. With
# `row_security` off, a policy that would hide rows from a DELETE is an error. With any other
# isolation a DELETE misses rows that were committed while it waited for the lock of the partition.
SESSION = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "row_security": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "standard_conforming_strings": "on",
    "extra_float_digits": "1",
    "DateStyle": "ISO",
}
NO_READER = (
    "sql_query needs a login role that can only read: set POSTGRES_READER_USER and "
    "POSTGRES_READER_PASSWORD (docs/operations.md has the SQL that creates it)"
)


class PostgresResource(dg.ConfigurableResource["PostgresResource"]):
    """The Postgres that the fields or the environment (POSTGRES_*) name, or the embedded server.

    If `host` is set, only the fields count.
    """

    host: str | None = override(
        "POSTGRES_HOST",
        "Host of Postgres. If it is set, the other fields count instead of their variables: no "
        "password is sent to another server",
    )
    port: int | None = override("POSTGRES_PORT", "Port of that host")
    dbname: str | None = override("POSTGRES_DBNAME", "Database of trips")
    user: str | None = override("POSTGRES_USER", "Owner of the tables")
    password: str | None = override("POSTGRES_PASSWORD", "Its password")
    reader_user: str | None = override("POSTGRES_READER_USER", "Role of sql_query")
    reader_password: str | None = override("POSTGRES_READER_PASSWORD", "Its password")
    schema_of_trips: str | None = override("POSTGRES_SCHEMA", "Schema of the tables")
    timeout: int | None = override("POSTGRES_TIMEOUT", "Seconds without a sign of life")

    def schema_name(self) -> str:
        """Return the schema of the tables."""
        return self._settings().postgres.schema_name

    def is_embedded(self) -> bool:
        """Return whether it is the embedded server."""
        return self._settings().postgres.host is None

    def _settings(self) -> Settings:
        return read_settings_with_fields(self, destination="host")

    def address(self) -> str:
        """Return host, port and database, for messages."""
        settings = self._resolve_address()
        return f"{settings.host}:{settings.port}/{settings.dbname}"

    def connect(self) -> AbstractContextManager[WatchedConnection]:
        """Open a connection; uncommitted changes are rolled back at the end.

        Raises:
            StoreError: the server rejects these credentials or this database.
            UnavailableError: the server cannot be reached now.
        """
        names = "POSTGRES_USER, POSTGRES_PASSWORD"
        return closing(_open_connection(self._resolve_address(), names, self.is_embedded()))

    def connect_reader(self) -> AbstractContextManager[WatchedConnection]:
        """Open a connection as the role that can only read (POSTGRES_READER_USER).

        Raises:
            StoreError: no such role is configured, or the server rejects it.
            UnavailableError: the server cannot be reached now.
        """
        settings = self._resolve_address()
        if not settings.reader_user:
            raise StoreError(NO_READER)
        reader = settings.model_copy(
            update={"user": settings.reader_user, "password": settings.reader_password}
        )
        names = "POSTGRES_READER_USER, POSTGRES_READER_PASSWORD"
        return closing(_open_connection(reader, names, self.is_embedded()))

    def _resolve_address(self) -> PostgresSettings:
        settings = self._settings()
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


def _open_connection(settings: PostgresSettings, names: str, embedded: bool) -> WatchedConnection:
    import psycopg

    from taxi_assets.defs.resources.postgres_connection import (  # noqa: PLC0415 - imports psycopg
        WatchedConnection,
        override_user_variables,
    )

    overrides = override_user_variables(embedded=embedded)
    parameters: dict[str, Any] = {
        **overrides,
        **KEEPALIVE,
        "host": settings.host,
        "port": settings.port,
        "dbname": settings.dbname,
        "user": settings.user,
        "password": settings.password.get_secret_value(),
        "connect_timeout": settings.connect_timeout,
        "application_name": "taxi_assets",
        "client_encoding": "UTF8",
    }
    address = f"{settings.host}:{settings.port}/{settings.dbname}"
    try:
        connection = WatchedConnection.connect(**parameters)
    except psycopg.Error as error:
        reason = format_one_line(error)[:200]
        if any(text in str(error) for text in PERMANENT_ERRORS):
            raise StoreError(
                f"Postgres at {address} rejects user {settings.user!r} "
                f"({reason}): check {names} and POSTGRES_DBNAME"
            ) from error
        raise UnavailableError(
            f"Postgres at {address} cannot be reached ({reason}): start it, "
            "or check POSTGRES_HOST and POSTGRES_PORT"
        ) from error
    connection.silence_limit, connection.overrides = settings.timeout, overrides
    # `SET` would fail: an older server does not have all of these settings.
    connection.execute(
        "SELECT set_config(name, (%s::jsonb) ->> name, false) FROM pg_settings"
        " WHERE name = ANY(%s)",
        [json.dumps(SESSION), list(SESSION)],
    )
    connection.commit()
    return connection
