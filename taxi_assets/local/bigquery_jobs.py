"""Replacements for the emulator's job functions; `bigquery_server.py` has the reasons."""

from __future__ import annotations

import contextlib
import re
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bqemulator.api.routes import jobs
from bqemulator.domain.errors import (
    InvalidQueryError,
    ResourceRef,
    resource_already_exists,
)
from bqemulator.jobs import executor
from bqemulator.scripting.ast import SqlStmt
from bqemulator.scripting.parser import parse_script
from fastapi import Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

READ_ONLY = ("taxi_assets", "read_only")
"""Label of read-only jobs."""
# Unlike DuckDB by default, BigQuery adds no column for a hive path.
READ_PARQUET = "SELECT * FROM read_parquet(?, hive_partitioning = false)"
# The expression is constant in a file, so DuckDB evaluates it once a vector.
READ_HIVE = (
    "SELECT * EXCLUDE _file, CAST(split_part(substr(_file, {start}), '/', 1) AS DATE) AS {key}"
    " FROM read_parquet(?, hive_partitioning = false, filename = '_file')"
)
HIVE_PREFIX = re.compile(r"(gs://[^{}]+)/\{([a-z_]+):DATE\}/?")


@contextlib.contextmanager
def run_transaction(engine: Any) -> Iterator[Callable[..., Any]]:
    """Yield the function that executes a statement of one transaction."""
    engine.execute("BEGIN TRANSACTION")
    try:
        yield engine.execute
        engine.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(Exception):
            engine.execute("ROLLBACK")
        raise


def load_in_one_transaction(
    dispose: Callable[[Any, Any], None], load: Callable[[str, Any, Any], None]
) -> Callable[[Any, Any], None]:
    """Apply the job's write disposition and load all its files in one transaction.

    It runs under the emulator's write lock, without yielding to other requests.
    """

    def load_all(job: Any, ctx: Any) -> None:
        resolve = executor.__dict__["_resolve_uri"]
        paths = [resolve(uri, ctx) for uri in job.source_uris]
        read = _read_parquet(job, lambda uri: resolve(uri, ctx))
        with run_transaction(ctx.engine) as run:
            dispose(job, ctx)
            if job.source_format == "PARQUET" and paths:
                run(f"INSERT INTO {job.target_ref} BY NAME {read}", [paths])
            else:
                for path in paths:
                    load(path, job, ctx)

    return load_all


def _read_parquet(job: Any, resolve: Callable[[str], str]) -> str:
    """Return the query of a load's files, with the day that is in the name of their folder.

    Of BigQuery's hive partitioning one column of type DATE and mode CUSTOM.
    """
    hive = job.raw_config.get("hivePartitioningOptions")
    if not hive:
        return READ_PARQUET
    prefix = HIVE_PREFIX.fullmatch(hive.get("sourceUriPrefix", ""))
    if job.source_format != "PARQUET" or hive.get("mode") != "CUSTOM" or not prefix:
        raise InvalidQueryError("hive partitioning: Parquet, CUSTOM, gs://folder/{column:DATE}")
    root, key = prefix.groups()
    if wrong := [uri for uri in job.source_uris if not uri.startswith(f"{root}/{key}=")]:
        raise InvalidQueryError(f"{wrong[0]} has no {key} in its name after {root}")
    return READ_HIVE.format(start=len(f"{resolve(root)}/{key}=") + 1, key=key)


_running_jobs: set[tuple[str, str]] = set()
"""Project and id of each running job."""


async def insert_job_once(
    project_id: str,
    request: Request,
    ctx: jobs._Ctx,
    caller: jobs._Caller,
) -> dict[str, Any]:
    """Reject a job id that was used before: a client that lost the response repeats its request."""
    body = await request.json()
    name, value = READ_ONLY
    _is_read_only.set(body.get("configuration", {}).get("labels", {}).get(name) == value)
    job_id = body.get("jobReference", {}).get("jobId")
    if not job_id:
        return await jobs.insert_job(project_id, request, ctx, caller)
    job = (project_id, job_id)
    if job in _running_jobs or ctx.catalog.get_job(project_id, job_id):
        raise resource_already_exists(ResourceRef("job", project_id, resource_id=job_id))
    _running_jobs.add(job)
    try:
        return await jobs.insert_job(project_id, request, ctx, caller)
    finally:
        _running_jobs.remove(job)


_is_read_only: ContextVar[bool] = ContextVar("read_only", default=False)
"""Whether the job of this request is read-only."""


def read_only_transaction(
    execute: Callable[..., Awaitable[Any]], classify: Callable[[str], str]
) -> Callable[..., Awaitable[Any]]:
    """Restrict a read-only job to one SELECT in a read-only transaction."""

    async def execute_read_only(
        project_id: str, job_id: str, sql: str, parameters: Any, ctx: Any, **more: Any
    ) -> Any:
        if not _is_read_only.get():
            return await execute(project_id, job_id, sql, parameters, ctx, **more)
        statements = parse_script(sql).statements
        # The emulator classifies a UNION as "".
        if len(statements) != 1 or not isinstance(statements[0], SqlStmt):
            raise InvalidQueryError("a read-only job is one SELECT, not a script")
        if classify(sql) not in ("SELECT", ""):
            raise InvalidQueryError(f"a read-only job is one SELECT, not {classify(sql)}")
        ctx.engine.execute("BEGIN TRANSACTION READ ONLY")
        try:
            return await execute(project_id, job_id, sql, parameters, ctx, **more)
        finally:
            ctx.engine.execute("ROLLBACK")

    return execute_read_only


def resolve_lake_uri(
    resolve: Callable[[str, Any], str], validate: Callable[[str], None]
) -> Callable[[str, Any], str]:
    """Reject every URI except `gs://` and the emulator's own copy of an upload.

    The characters of a `gs://` URI are validated, not those of its path: the lake's own folder may
    be below a folder such as O'Brien.
    """

    def resolve_uri(uri: str, ctx: Any) -> str:
        uploads = ctx.settings.upload_staging_dir
        uploaded = uploads and Path(uri.removeprefix("file://")).resolve().parent == uploads
        if not uri.startswith("gs://") and not uploaded:
            raise InvalidQueryError("jobs read and write the lake (gs://) only")
        if not uploaded:
            validate(uri)
        return resolve(uri, ctx)

    return resolve_uri


def escape_destination(copy: Callable[..., None]) -> Callable[..., None]:
    """Double the quotes of a path that the emulator writes into SQL."""

    def copy_to_file(sql: str, path: str, *arguments: Any, **options: Any) -> None:
        copy(sql, path.replace("'", "''"), *arguments, **options)

    return copy_to_file
