"""Connections to Postgres, to the embedded server or to the one the environment names.

psycopg for all that is written, ADBC where rows are read into Arrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import dagster as dg

from taxi_assets import local
from taxi_assets.errors import StoreError, UnavailableError, one_line
from taxi_assets.settings import PostgresSettings, Settings

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection as ArrowConnection
    from psycopg import Connection

# libpq's words for what waiting does not mend (it gives no SQLSTATE for a failed connection).
REFUSALS = ("authentication failed", "does not exist", "no pg_hba.conf entry", "permission denied")

# A host that vanished is noticed after a minute; the system's own wait is two hours.
GONE = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


class PostgresResource(dg.ConfigurableResource["PostgresResource"]):
    """Postgres as the environment names it (POSTGRES_*), or the embedded one."""

    def schema_name(self) -> str:
        """Schema that holds the tables (POSTGRES_SCHEMA)."""
        return Settings.from_env().postgres.schema

    def address(self) -> str:
        """Host, port and database, for messages."""
        settings = _resolved()
        return f"{settings.host}:{settings.port}/{settings.dbname}"

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection; what is not committed is rolled back at the end.

        Raises:
            StoreError: the server refuses these credentials or this database.
            UnavailableError: it cannot be reached now.
        """
        import psycopg  # noqa: PLC0415 - heavy at import

        with closing(self._opened(psycopg.connect, psycopg.Error)) as connection:
            yield connection

    @contextmanager
    def connect_arrow(self) -> Iterator[ArrowConnection]:
        """A connection whose cursors give Arrow tables; raises what `connect` raises."""
        from adbc_driver_postgresql import dbapi  # noqa: PLC0415 - heavy at import

        with self._opened(dbapi.connect, dbapi.Error) as connection:
            yield connection

    def _opened(self, connect: Callable[[str], Any], refused: type[Exception]) -> Any:
        settings = _resolved()
        try:
            return connect(_uri(settings))
        except refused as error:
            said = one_line(error)[:200]
            if any(words in str(error) for words in REFUSALS):
                raise StoreError(
                    f"Postgres at {self.address()} refuses user {settings.user!r} "
                    f"({said}): check POSTGRES_USER, POSTGRES_PASSWORD and "
                    "POSTGRES_DBNAME"
                ) from error
            raise UnavailableError(
                f"Postgres at {self.address()} cannot be reached ({said}): start it, "
                "or check POSTGRES_HOST and POSTGRES_PORT"
            ) from error


def _resolved() -> PostgresSettings:
    settings = Settings.from_env()
    if settings.postgres.host is not None:
        return settings.postgres
    stack = local.use(settings.home)
    return PostgresSettings(
        host=stack.postgres_host,
        port=stack.postgres_port,
        dbname=stack.postgres_dbname,
        user=stack.postgres_user,
        password=stack.postgres_password,
        schema=settings.postgres.schema,
    )


def _uri(settings: PostgresSettings) -> str:
    user = f"{quote(settings.user, safe='')}:{quote(settings.password, safe='')}"
    options = urlencode(
        {
            "connect_timeout": settings.connect_timeout,
            "application_name": "taxi_assets",
            "client_encoding": "UTF8",
            **GONE,
        }
    )
    host = settings.host or ""
    if host.startswith("/"):  # the folder of a socket
        host = quote(host, safe="")
    return f"postgresql://{user}@{host}:{settings.port}/{quote(settings.dbname, safe='')}?{options}"
