"""Dagster's run storage for a daemon that runs on demand: storing work starts the daemon.

`deploy/dagster-gcp.yaml` names it. Backfills and queued runs of the UI, the GraphQL API and
Dagster's CLI are all stored through this class. Only processes with `CLOUD_RUN_DAEMON_JOB` in their
environment start the daemon: the webserver of a deployment with such a daemon. In all other
processes this is Dagster's Postgres storage.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from datetime import datetime
from typing import Any, Self

import dagster as dg
from dagster_postgres import PostgresRunStorage
from dagster_postgres.utils import pg_url_from_config

from taxi_assets.dagster_internals.history import OPEN_BACKFILLS

DAEMON_JOB = "CLOUD_RUN_DAEMON_JOB"
"""Environment variable: the daemon's job, as `projects/<id>/locations/<region>/jobs/<name>`."""

WAKING_EVENTS = (dg.DagsterEventType.RUN_ENQUEUED, dg.DagsterEventType.RUN_CANCELING)

MIN_SECONDS_BETWEEN_WAKES = 60
"""Less than `woken_daemon.QUIET_SECONDS`: a daemon that started this recently is still running."""

WAKE_TIMEOUT_SECONDS = 20

logger = logging.getLogger("dagster.waking")


class WakingRunStorage(PostgresRunStorage):
    """Dagster's run storage in Postgres, which starts the daemon's job for stored work."""

    _lock = threading.Lock()
    _woken_at = -float(MIN_SECONDS_BETWEEN_WAKES)

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:
        """Return the storage of the `run_storage` section of `dagster.yaml`."""
        return cls(
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
        )

    def add_backfill(self, partition_backfill: Any) -> None:
        """Store a new backfill and start the daemon."""
        super().add_backfill(partition_backfill)
        self._wake_daemon()

    def update_backfill(self, partition_backfill: Any) -> None:
        """Store a backfill's new state, and start the daemon to resume or cancel it."""
        super().update_backfill(partition_backfill)
        if partition_backfill.status.value in OPEN_BACKFILLS:
            self._wake_daemon()

    def handle_run_event(
        self, run_id: str, event: dg.DagsterEvent, update_timestamp: datetime | None = None
    ) -> None:
        """Store a run's new state, and start the daemon to launch or cancel it."""
        super().handle_run_event(run_id, event, update_timestamp)
        if event.event_type in WAKING_EVENTS:
            self._wake_daemon()

    def _wake_daemon(self) -> None:
        job = os.environ.get(DAEMON_JOB)
        if not job:
            return
        cls = type(self)
        with cls._lock:
            if time.monotonic() - cls._woken_at < MIN_SECONDS_BETWEEN_WAKES:
                return
            if run_daemon_job(job):
                cls._woken_at = time.monotonic()


def run_daemon_job(job: str) -> bool:
    """Start an execution of the daemon's job; return False, with a warning, if that fails.

    The work stays stored: Cloud Scheduler starts the daemon within the hour.
    """
    from google.api_core import exceptions, retry
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import run_v2

    transient = retry.if_exception_type(
        exceptions.ServiceUnavailable, exceptions.InternalServerError, exceptions.TooManyRequests
    )
    try:
        run_v2.JobsClient().run_job(
            name=job,
            retry=retry.Retry(transient, timeout=WAKE_TIMEOUT_SECONDS),
            timeout=WAKE_TIMEOUT_SECONDS,
        )
    except (exceptions.GoogleAPIError, GoogleAuthError) as error:
        logger.warning(
            "%s was not started: %s. What is queued waits for the next wake by Cloud Scheduler; "
            "start it now with `gcloud run jobs execute`.",
            job,
            error,
        )
        return False
    return True
