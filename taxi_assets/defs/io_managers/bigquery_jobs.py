"""BigQuery's jobs under ids of our own, and calls that the rows do not depend on.

Defined here: how a job is started once although answers get lost, and how long a call is repeated
whose failure is a warning. What the jobs do is in `bigquery_staging.py` and `bigquery_replace.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from taxi_assets.errors import format_one_line

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud.bigquery import Client

LABEL_SECONDS = 30
"""How long a call is repeated that the rows do not depend on."""
PREFIX = "taxi"
"""How the ids of our jobs begin."""


def start_once(client: Client, job_id: str, start: Callable[[str], Any]) -> Any:
    """Start a job under an id of its own; if it was accepted and the answer lost, pick it up.

    An answer that is no JSON is lost too: a proxy's page, or half of Google's.
    """
    from google.api_core.exceptions import Conflict, NotFound  # noqa: PLC0415 - heavy at import
    from google.cloud.bigquery import DEFAULT_RETRY  # noqa: PLC0415
    from requests import JSONDecodeError  # noqa: PLC0415

    job_id = f"{PREFIX}{job_id}"
    try:
        return start(job_id)
    except (Conflict, JSONDecodeError):
        # For a while the id is taken and the job not found (googleapis/python-bigquery 2134).
        missing = DEFAULT_RETRY.with_predicate(lambda error: isinstance(error, NotFound))
        return missing(client.get_job)(job_id)


def start_query(client: Client, job_id: str, sql: str, check_lock: Callable[[], None]) -> Any:
    """Start a query that writes; the month's lock is checked before each request.

    The job commits by itself, and its request is repeated for longer than a lease runs.
    """
    from google.cloud.bigquery import DEFAULT_RETRY  # noqa: PLC0415 - heavy at import

    at_once: dict[str, Any] = {"retry": None, "job_retry": None}

    def start(job_id: str) -> Any:
        check_lock()
        return client.query(sql, job_id=job_id, **at_once)

    return start_once(client, job_id, DEFAULT_RETRY(start))


def sum_job_costs(
    client: Client, name: str, since: int, log: dg.DagsterLogManager
) -> dict[str, int]:
    """Return what the jobs of a write cost, as the bill counts it; empty if it is not known.

    Bytes billed of queries (load and copy jobs are free) and slot milliseconds of all. `name` is
    that of the staging table, which begins the ids of its jobs.
    """
    with warn_only(log, "reading what the write cost"):
        began = datetime.fromtimestamp(since, UTC) - timedelta(minutes=5)
        billed = slots = 0
        for job in client.list_jobs(min_creation_time=began, retry=retry_briefly()):
            if job.job_id.startswith(f"{PREFIX}{name}"):
                # Google's client has properties for queries alone; the answer has them for all.
                statistics = job._properties.get("statistics", {})  # noqa: SLF001
                billed += int(statistics.get("query", {}).get("totalBytesBilled", 0))
                slots += int(statistics.get("totalSlotMs", 0))
        return {"bytes_billed": billed, "slot_ms": slots}
    return {}


def retry_briefly() -> Retry:
    """Repeat a call that is not worth ten minutes, which is how long Google's client goes on."""
    from google.cloud.bigquery import DEFAULT_RETRY  # noqa: PLC0415 - heavy at import

    return DEFAULT_RETRY.with_timeout(LABEL_SECONDS)


@contextmanager
def warn_only(log: dg.DagsterLogManager, what: str) -> Iterator[None]:
    """Log whatever goes wrong as a warning: the rows are where they belong without it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - any error of a server, a client or a proxy
        log.warning(f"{what} failed, the rows are not concerned: {format_one_line(error)}")
