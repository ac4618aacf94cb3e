"""Move days from staging into the table: by one INSERT, or by a copy job for each partition.

New days are appended by one INSERT, which conflicts with no other INSERT. Stored days are replaced
one by one: a copy job with WRITE_TRUNCATE into `table$20211005` is atomic. Both run beside runs of
other months; transactions that delete would make those wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from datetime import date
from itertools import count
from typing import TYPE_CHECKING, Any

from taxi_assets.date_ranges import merge_into_date_ranges
from taxi_assets.defs.io_managers.bigquery_jobs import start_once, start_query
from taxi_assets.defs.io_managers.bigquery_staging import Staging, build_insert
from taxi_assets.defs.io_managers.bigquery_table import quote_identifier
from taxi_assets.errors import UnavailableError
from taxi_assets.tlc.schema import Service

if TYPE_CHECKING:
    from google.cloud.bigquery import Client, Table

STARTS_AT_ONCE = 8
"""Google's client keeps ten connections."""
CheckLock = Callable[[], None]
"""Raises if the run has lost the lock of its months."""


def build_days_condition(service: Service, days: Sequence[date]) -> str:
    """Build a condition for exactly these days, which prunes to their partitions.

    Days are DATE literals: scripts in the emulator do not accept query parameters.
    """
    column = quote_identifier(service.day_column)
    return " OR ".join(
        f"({column} >= DATE '{window.start}' AND {column} < DATE '{window.end}')"
        for window in merge_into_date_ranges(days)
    )


def find_stored_days(
    client: Client, service: Service, target: str, days: Sequence[date]
) -> set[date]:
    """Return the days that have rows in the table."""
    rows = client.query_and_wait(
        f"SELECT DISTINCT {quote_identifier(service.day_column)} FROM {quote_identifier(target)}"  # noqa: S608
        f" WHERE {build_days_condition(service, days)}"
    )
    return {row[0] for row in rows}


def append_days(client: Client, staging: Staging, target: str, check_lock: CheckLock) -> None:
    """Append the staged rows in one INSERT; the table must not have rows of their days."""
    statement = build_insert(staging, target)
    start_query(client, staging.job_id("append"), statement, check_lock).result()


def copy_days(
    client: Client, staging: Staging, target: str, days: Sequence[date], check_lock: CheckLock
) -> Iterator[date]:
    """Replace each day's partition by the staged one; yield each day once it is written."""
    from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY

    attempts = {day: count() for day in days}

    def start(day: date) -> Any:
        part = f"{day:%Y%m%d}"
        job_id = staging.job_id(f"{part}_{next(attempts[day])}")
        source, into = f"{staging.by_day}${part}", f"{target}${part}"
        return _start_copy(client, job_id, source, into, check_lock)

    # All start before the first is waited for.
    started, failure = _start_all(days, start)

    def finish(day: date, jobs: list[Any]) -> None:
        """Wait for the day's job; after a rate limit or an internal error start another one."""
        (jobs.pop() if jobs else start(day)).result()

    for day, job in started.items():
        DEFAULT_JOB_RETRY(finish)(day, [job])
        yield day
    if failure:
        raise failure


def _start_all(
    days: Sequence[date], start: Callable[[date], Any]
) -> tuple[dict[date, Any], BaseException | None]:
    """Start a job for each day; return the started jobs in order, and the first error.

    Several start in parallel: a response of Google takes most of a second. An error stops the rest.
    """
    pool = ThreadPoolExecutor(STARTS_AT_ONCE)
    try:
        jobs = {day: pool.submit(start, day) for day in days}
        wait(jobs.values(), return_when=FIRST_EXCEPTION)
    finally:
        pool.shutdown(cancel_futures=True)
    begun = {day: job for day, job in jobs.items() if not job.cancelled()}
    failures = [error for job in begun.values() if (error := job.exception())]
    started = {day: job.result() for day, job in begun.items() if not job.exception()}
    return started, failures[0] if failures else None


def _start_copy(
    client: Client, job_id: str, source: str, target: str, check_lock: CheckLock
) -> Any:
    from google.cloud import bigquery

    config = bigquery.CopyJobConfig(
        write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
        create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
    )
    at_once: dict[str, Any] = {"retry": None}

    def start(job_id: str) -> Any:
        check_lock()
        return client.copy_table(source, target, job_id=job_id, job_config=config, **at_once)

    return start_once(client, job_id, bigquery.DEFAULT_RETRY(start))


def delete_days(
    client: Client, staging: Staging, target: str, days: Sequence[date], check_lock: CheckLock
) -> None:
    """Delete the rows of days that are empty now; they have no partition to copy."""
    if days:
        condition = build_days_condition(staging.service, days)
        statement = f"DELETE FROM {quote_identifier(target)} WHERE {condition}"  # noqa: S608 - quoted
        start_query(client, staging.job_id("empty"), statement, check_lock).result()


def has_policy_tags(table: Table) -> bool:
    """Return whether policy tags protect columns; a copy job can neither read nor preserve them."""
    return any(field.policy_tags for field in table.schema)


def replace_in_transaction(
    client: Client, staging: Staging, target: str, check_lock: CheckLock
) -> None:
    """Replace the days of a table with policy tags in one transaction.

    Raises:
        UnavailableError: a concurrent transaction on the table committed first.
    """
    from google.api_core.exceptions import BadRequest

    condition = build_days_condition(staging.service, staging.days)
    script = (
        "BEGIN TRANSACTION;\n"
        f"DELETE FROM {quote_identifier(target)} WHERE {condition};\n"
        f"{build_insert(staging, target)};\n"
        "COMMIT TRANSACTION;"
    )
    job = start_query(client, staging.job_id("replace"), script, check_lock)
    try:
        job.result()
    except BadRequest as error:
        if "concurrent update" not in str(error):
            raise
        raise UnavailableError(
            f"a concurrent transaction wrote to {target}: BigQuery rolled this one back"
        ) from error
