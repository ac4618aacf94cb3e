"""What the emulator's jobs do otherwise than in the stock one; `bigquery_server.py` says why."""

from __future__ import annotations

import contextlib
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
    from collections.abc import Awaitable, Callable

READ_ONLY = ("taxi_assets", "read_only")
"""Label of jobs that must only read."""
# Without this a hive path adds a column that the file does not have; BigQuery adds none.
INSERT_PARQUET = (
    "INSERT INTO {target} BY NAME SELECT * FROM read_parquet(?, hive_partitioning = false)"
)


def load_in_one_transaction(
    dispose: Callable[[Any, Any], None], load: Callable[[str, Any, Any], None]
) -> Callable[[Any, Any], None]:
    """Make the step that empties the target as the job says also load every file, or nothing.

    Runs under the emulator's write lock, and it does not give way in between.
    """

    def load_all(job: Any, ctx: Any) -> None:
        paths = [executor._resolve_uri(uri, ctx) for uri in job.source_uris]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        run = ctx.engine.execute
        run("BEGIN TRANSACTION")
        try:
            dispose(job, ctx)
            if job.source_format == "PARQUET" and paths:
                run(INSERT_PARQUET.format(target=job.target_ref), [paths])
            else:
                for path in paths:
                    load(path, job, ctx)
            run("COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):
                run("ROLLBACK")
            raise

    return load_all


_accept_job: set[tuple[str, str]] = set()
"""Jobs that are running."""


async def insert_job_once(
    project_id: str,
    request: Request,
    ctx: jobs._Ctx,
    caller: jobs._Caller,
) -> dict[str, Any]:
    """Reject the id of a job that was accepted before: a lost answer must not run it twice."""
    body = await request.json()
    name, value = READ_ONLY
    _is_read_only.set(body.get("configuration", {}).get("labels", {}).get(name) == value)
    job_id = body.get("jobReference", {}).get("jobId")
    if not job_id:
        return await jobs.insert_job(project_id, request, ctx, caller)
    job = (project_id, job_id)
    if job in _accept_job or ctx.catalog.get_job(project_id, job_id):
        raise resource_already_exists(ResourceRef("job", project_id, resource_id=job_id))
    _accept_job.add(job)
    try:
        return await jobs.insert_job(project_id, request, ctx, caller)
    finally:
        _accept_job.remove(job)


_is_read_only: ContextVar[bool] = ContextVar("read_only", default=False)
"""Whether the job of this request must only read."""


def read_only_transaction(
    execute: Callable[..., Awaitable[Any]], classify: Callable[[str], str]
) -> Callable[..., Awaitable[Any]]:
    """Hold a job with the label to one SELECT, in a transaction that cannot write."""

    async def execute_reading(
        project_id: str, job_id: str, sql: str, parameters: Any, ctx: Any, **more: Any
    ) -> Any:
        if not _is_read_only.get():
            return await execute(project_id, job_id, sql, parameters, ctx, **more)
        statements = parse_script(sql).statements
        # The emulator has no word for a UNION: an empty one.
        if len(statements) != 1 or not isinstance(statements[0], SqlStmt):
            raise InvalidQueryError("a read-only job is one SELECT, not a script")
        if classify(sql) not in ("SELECT", ""):
            raise InvalidQueryError(f"a read-only job is one SELECT, not {classify(sql)}")
        ctx.engine.execute("BEGIN TRANSACTION READ ONLY")
        try:
            return await execute(project_id, job_id, sql, parameters, ctx, **more)
        finally:
            ctx.engine.execute("ROLLBACK")

    return execute_reading


def resolve_lake_uri(resolve: Callable[[str, Any], str]) -> Callable[[str, Any], str]:
    """Take no address but `gs://`, and the emulator's own copy of an upload."""

    def resolve_uri(uri: str, ctx: Any) -> str:
        uploads = ctx.settings.upload_staging_dir
        uploaded = uploads and Path(uri.removeprefix("file://")).resolve().parent == uploads
        if not uri.startswith("gs://") and not uploaded:
            raise InvalidQueryError("jobs read and write gs:// only, which is the lake")
        return resolve(uri, ctx)

    return resolve_uri


def is_load_repeated(_path: str, _job: Any, _ctx: Any) -> None:
    """Take the place of the step that loads one file."""
