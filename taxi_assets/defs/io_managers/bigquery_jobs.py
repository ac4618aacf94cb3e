"""Start BigQuery's jobs exactly once, and repeat optional calls only briefly.

Each job has an id that this module chooses, so a lost response does not start the job twice. The
failure of an optional call is a warning. `bigquery_staging` and `bigquery_replace` define the jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
from requests import JSONDecodeError

from taxi_assets.errors import format_one_line

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud.bigquery import Client

LABEL_SECONDS = 30
"""Maximum time for repeating an optional call."""
PREFIX = "taxi"
"""Prefix of the ids of our jobs."""


def start_once(client: Client, job_id: str, start: Callable[[str], Any]) -> Any:
    """Start a job with the id; if BigQuery accepted it and the response was lost, fetch the job.

    A response that is not JSON counts as lost: the page of a proxy, or a truncated response.
    """
    from google.api_core.exceptions import Conflict, NotFound
    from google.cloud.bigquery import DEFAULT_RETRY

    job_id = f"{PREFIX}{job_id}"
    try:
        return start(job_id)
    except (Conflict, JSONDecodeError):
        # For a while the id is in use but the job is not found (googleapis/python-bigquery 2134).
        missing = DEFAULT_RETRY.with_predicate(lambda error: isinstance(error, NotFound))
        return missing(client.get_job)(job_id)


def sum_job_costs(
    client: Client, name: str, since: int, log: dg.DagsterLogManager
) -> dict[str, int]:
    """Return the billed cost of the jobs of a write; empty if it is unknown.

    `bytes_billed` counts queries (load and copy jobs are free), `slot_ms` all jobs. `name` is the
    name of the staging table, which is the prefix of the ids of its jobs.
    """
    with warn_only(log, "reading the cost of the write"):
        began = datetime.fromtimestamp(since, UTC) - timedelta(minutes=5)
        billed = slots = 0
        for job in client.list_jobs(min_creation_time=began, retry=retry_briefly()):
            if job.job_id.startswith(f"{PREFIX}{name}"):
                # Google's client has properties for queries only; the response has all jobs.
                statistics = job._properties.get("statistics", {})  # noqa: SLF001
                billed += int(statistics.get("query", {}).get("totalBytesBilled", 0))
                slots += int(statistics.get("totalSlotMs", 0))
        return {"bytes_billed": billed, "slot_ms": slots}
    return {}


def retry_briefly() -> Retry:
    """Return a retry of `LABEL_SECONDS`; the default of Google's client is ten minutes."""
    from google.cloud.bigquery import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(LABEL_SECONDS)


@contextmanager
def warn_only(log: dg.DagsterLogManager, action: str) -> Iterator[None]:
    """Log any error as a warning: the rows are stored without the action."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - any error of a server, a client or a proxy
        log.warning(f"{action} failed, the rows are stored: {format_one_line(error)}")
