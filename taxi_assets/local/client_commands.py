"""Clients of the embedded stack: their environment variables, `psql`, and DuckDB over the lake.

Code that connects a user's own tools to the data belongs here; code that loads data does not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from taxi_assets.local.postgres_folder import find_wheel_programs
from taxi_assets.local.state_directory import LocalStackError, Stack
from taxi_assets.settings import Settings

if TYPE_CHECKING:
    import duckdb

VIEWS = "lake.duckdb"
"""File of views under TAXI_HOME."""


def build_postgres_variables(stack: Stack, schema: str, *, reader: bool = False) -> dict[str, str]:
    """Return the environment variables of libpq's clients, for the owner or the read-only role."""
    return {
        "PGHOST": stack.postgres_host,
        "PGPORT": str(stack.postgres_port),
        "PGDATABASE": stack.postgres_dbname,
        "PGUSER": stack.postgres_reader if reader else stack.postgres_user,
        "PGPASSWORD": stack.postgres_reader_password if reader else stack.postgres_password,
        "PGOPTIONS": f"-c search_path={schema},public",
    }


def find_psql() -> str:
    """Return the `psql` on the PATH, or else that of the embedded server."""
    if path := shutil.which("psql"):
        return path
    return str(find_wheel_programs() / "bin" / "psql")


def run_psql(stack: Stack, schema: str, arguments: Sequence[str]) -> int:
    """Run psql with the read-only role, and return its exit code."""
    variables = build_postgres_variables(stack, schema, reader=True)
    # The user's own PGSSLMODE, PGHOSTADDR or PGSERVICE are for another server.
    others = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return subprocess.run([find_psql(), *arguments], env=others | variables, check=False).returncode  # noqa: S603 - psql


def find_globs(lake: Path) -> dict[str, str]:
    """Return a glob for each service's objects in the lake, in either layout.

    A folder without folders of days is not a service's: `exports/`.
    """
    globs: dict[str, str] = {}
    for folder in sorted(lake.iterdir()) if lake.is_dir() else []:
        if not folder.name.startswith(("_", ".")) and any(folder.glob("*/**/*.parquet")):
            globs[folder.name] = f"{folder}/**/*.parquet"
    return globs


def write_views(settings: Settings) -> Path:
    """Write a DuckDB file of views over the lake, and return its path.

    A view is `<service>_tripdata`, and has a second name, that of the tables in the other stores.
    Columns are matched by name: a column is null in objects that are older than the column.

    Raises:
        LocalStackError: the lake is a bucket, or has no day.
    """
    import duckdb

    from taxi_assets.tlc.services import SERVICES  # noqa: PLC0415 - imports pyarrow

    if settings.lake.path is None:
        raise LocalStackError(
            f"the lake is gs://{settings.lake.bucket}: this command reads a lake folder"
        )
    globs = find_globs(settings.lake.path)
    if not globs:
        raise LocalStackError(
            f"{settings.lake.path} has no days yet: run taxi-assets quickstart first"
        )
    path = settings.home / VIEWS
    path.unlink(missing_ok=True)
    schema = settings.postgres.schema_name
    with duckdb.connect(str(path)) as connection:
        connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        for service, pattern in globs.items():
            quoted = pattern.replace("'", "''")
            connection.execute(
                f'CREATE VIEW "{service}_tripdata" AS FROM read_parquet('
                f"'{quoted}', union_by_name = true, hive_partitioning = true)"
            )
            if service in SERVICES:
                table = SERVICES[service].table
                connection.execute(
                    f'CREATE VIEW "{schema}"."{table}" AS FROM main."{service}_tripdata"'
                )
    return path


def run_duckdb(settings: Settings, arguments: Sequence[str]) -> int:
    """Run queries on the views, from the arguments or standard input; return the exit code."""
    import duckdb

    path = write_views(settings)
    if not arguments and sys.stdin.isatty() and (shell := shutil.which("duckdb")):
        return subprocess.run([shell, "-readonly", str(path)], check=False).returncode  # noqa: S603
    failed = 0
    with duckdb.connect(str(path), read_only=True) as connection:
        for query in arguments or _read_queries(path):
            try:
                _print_result(connection, query)
            except duckdb.Error as error:
                print(error, file=sys.stderr)
                failed = 1
    return failed


def _print_result(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    for statement in connection.extract_statements(query):
        if result := connection.sql(statement):
            result.show(max_width=shutil.get_terminal_size((120, 40)).columns)


def _read_queries(path: Path) -> Iterator[str]:
    """Yield each typed query up to its semicolon, or all piped input."""
    if not sys.stdin.isatty():
        yield sys.stdin.read()
        return
    print(f"{path}: SHOW TABLES; lists the views, Ctrl-D ends")
    query = ""
    while True:
        try:
            query += input("... " if query else "duckdb> ") + "\n"
        except EOFError:
            return
        if query.rstrip().endswith(";"):
            yield query
            query = ""
