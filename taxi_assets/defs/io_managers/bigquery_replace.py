"""Move days from staging into the table: by one INSERT, or by a copy job for each partition.

New days are appended by one INSERT, which conflicts with no other INSERT. Stored days are replaced
one by one: a copy job with WRITE_TRUNCATE into `table$20211005` is atomic. Both run beside runs of
other months; transactions that delete would make those wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import date
from itertools import count
from typing import TYPE_CHECKING, Any

from taxi_assets.date_ranges import merge_into_date_ranges
from taxi_assets.defs.io_managers.bigquery_staging import (
    Staging,
    build_insert,
    fill_by_day,
    load_staging,
)
from taxi_assets.defs.io_managers.bigquery_table import quote_identifier
from taxi_assets.defs.io_managers.partition_data import StoredTrips
from taxi_assets.errors import UnavailableError
from taxi_assets.tlc.schema import Service

if TYPE_CHECKING:
    from google.cloud.bigquery import Client, Table

STARTS_AT_ONCE = 8
"""Google's client keeps ten connections."""


@dataclass(frozen=True)
class Staged:
    """Days that are in staging, and what their table held when they were loaded."""

    staging: Staging
    table: Table
    stored: set[date]
    """Days that have rows in the table."""
    rows: Mapping[date, int]
    """Number of staged rows."""

    @property
    def is_by_day(self) -> bool:
        """Whether partitions are copied; a copy job cannot preserve policy tags."""
        return bool(self.stored) and not any(field.policy_tags for field in self.table.schema)


def stage_days(
    client: Client, staging: Staging, table: Table, trips: Mapping[date, StoredTrips]
) -> Staged:
    """Load days into the kind of staging table that their replacement needs."""
    staged = Staged(staging, table, _find_stored_days(client, staging), count_rows(trips))
    if staged.is_by_day:
        fill_by_day(client, staging, table, trips)
    else:
        load_staging(client, staging, trips)
    return staged


def replace_days(client: Client, staged: Staged) -> Iterator[date]:
    """Replace the staged days by the method that their table allows; yield each written day."""
    staging, rows = staged.staging, staged.rows
    if staged.is_by_day:
        yield from _copy_days(client, staging, [day for day in rows if rows[day]])
        empty = [day for day in rows if not rows[day]]
        _delete_days(client, staging, sorted(staged.stored & set(empty)))
        yield from empty
        return
    if staged.stored:
        replace_in_transaction(client, staging)
    else:
        staging.run_query(client, "append", build_insert(staging, staging.target))
    yield from rows


def count_rows(trips: Mapping[date, StoredTrips]) -> dict[date, int]:
    """Return the number of rows of each day."""
    return {day: stored.rows for day, stored in trips.items()}


def build_days_condition(service: Service, days: Sequence[date]) -> str:
    """Build a condition for exactly these days, which prunes to their partitions.

    Days are DATE literals: scripts in the emulator do not accept query parameters.
    """
    column = quote_identifier(service.day_column)
    return " OR ".join(
        f"({column} >= DATE '{window.start}' AND {column} < DATE '{window.end}')"
        for window in merge_into_date_ranges(days)
    )


def _find_stored_days(client: Client, staging: Staging) -> set[date]:
    """Return the days that have rows in the table."""
    day, table = map(quote_identifier, (staging.service.day_column, staging.target))
    condition = build_days_condition(staging.service, staging.days)
    rows = client.query_and_wait(f"SELECT DISTINCT {day} FROM {table} WHERE {condition}")  # noqa: S608 - quoted
    return {row[0] for row in rows}


def _copy_days(client: Client, staging: Staging, days: Sequence[date]) -> Iterator[date]:
    """Replace each day's partition by the staged one; yield each day once it is written."""
    from google.cloud import bigquery
    from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY

    options: dict[str, Any] = {
        "job_config": bigquery.CopyJobConfig(
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
        ),
        "retry": None,
    }
    attempts = {day: count() for day in days}

    def start(day: date) -> Any:
        part = f"{day:%Y%m%d}"
        tables = f"{staging.by_day}${part}", f"{staging.target}${part}"
        return staging.start_write(
            client,
            f"{part}_{next(attempts[day])}",
            lambda job_id: client.copy_table(*tables, job_id=job_id, **options),
        )

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


def _delete_days(client: Client, staging: Staging, days: Sequence[date]) -> None:
    """Delete the rows of days that are empty now; they have no partition to copy."""
    if days:
        condition = build_days_condition(staging.service, days)
        statement = f"DELETE FROM {quote_identifier(staging.target)} WHERE {condition}"  # noqa: S608 - quoted
        staging.run_query(client, "empty", statement)


def replace_in_transaction(client: Client, staging: Staging) -> None:
    """Replace the days of a table with policy tags in one transaction.

    Raises:
        UnavailableError: a concurrent transaction on the table committed first.
    """
    from google.api_core.exceptions import BadRequest

    condition = build_days_condition(staging.service, staging.days)
    script = (
        "BEGIN TRANSACTION;\n"
        f"DELETE FROM {quote_identifier(staging.target)} WHERE {condition};\n"
        f"{build_insert(staging, staging.target)};\n"
        "COMMIT TRANSACTION;"
    )
    try:
        staging.run_query(client, "replace", script)
    except BadRequest as error:
        if "concurrent update" not in str(error):
            raise
        raise UnavailableError(
            f"a concurrent transaction wrote to {staging.target}: BigQuery rolled this one back"
        ) from error
