"""Run the chunks of a plan: through the queue where a daemon works on it, else in this process."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus
from filelock import FileLock, Timeout

from taxi_assets.cli.month_plan import Chunk
from taxi_assets.cli.spans import UsageError
from taxi_assets.dagster_internals.run_queue import RunQueue, has_live_queue
from taxi_assets.defs.automation.sensors import CONFIRM
from taxi_assets.defs.jobs.daily import get_daily_job_name
from taxi_assets.errors import TerminalError, format_one_line
from taxi_assets.partitions import PARTITION, RANGE, list_run_days
from taxi_assets.tlc.schema import Service

PROCESS_TAG = "taxi/backfill_process"
"""On runs of this command's own process: none of them outlives it."""
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
ENDED = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)
UNFINISHED = [status for status in DagsterRunStatus if status not in ENDED]


class QueueDiedError(TerminalError):
    """The daemon stopped while runs wait in its queue."""


@dataclass
class Progress:
    """What has landed, counted from the event log of the runs that this command started."""

    instance: dg.DagsterInstance
    cursors: dict[str, str | None] = field(default_factory=dict[str, str | None])
    stored: int = 0
    """Days of assets that were stored."""
    rows: int = 0
    """Published rows of the days whose raw rows were stored."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def follow(self, run_id: str) -> None:
        """Count a run's events from now on."""
        self.cursors.setdefault(run_id, None)

    def count(self) -> tuple[int, int]:
        """Read what the runs have logged since the last call; return all days and rows so far."""
        with self.lock:
            self._read()
            return self.stored, self.rows

    def _read(self) -> None:
        for run_id in list(self.cursors):
            more = True
            while more:
                page = self.instance.get_records_for_run(
                    run_id,
                    self.cursors[run_id],
                    of_type=DagsterEventType.ASSET_MATERIALIZATION,
                    limit=500,
                )
                for record in page.records:
                    event = record.event_log_entry.asset_materialization
                    if event is not None:
                        self.stored += 1
                        if event.asset_key.path[-1] == "raw_trips":
                            self.rows += int(str(event.metadata["rows"].value))
                self.cursors[run_id], more = page.cursor, page.has_more


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run_id: str
    succeeded: bool
    cause: str = ""


def unfinished_runs(instance: dg.DagsterInstance, service: Service) -> list[dg.DagsterRun]:
    """Return the service's runs that are queued or have not ended, by the instance."""
    return list(
        instance.get_runs(dg.RunsFilter(job_name=get_daily_job_name(service), statuses=UNFINISHED))
    )


@contextmanager
def only_backfill(instance: dg.DagsterInstance, service: Service) -> Iterator[None]:
    """Hold a service's backfill; what a killed one left as running is ended first.

    Raises:
        UsageError: another process backfills the service.
    """
    folder = Path(instance.root_directory, "backfills")
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = FileLock(folder / f"{service.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"another backfill of {service.name} runs on this instance ({instance.root_directory})"
            ": wait for it, or stop it"
        ) from None
    try:
        for run in unfinished_runs(instance, service):
            if PROCESS_TAG in run.tags:
                instance.report_run_failed(run, "The process of taxi-assets backfill was killed.")
        yield
    finally:
        lock.release()


def run_tags(chunk: Chunk) -> dict[str, str]:
    """Return the tags that name a run's days."""
    first, last = chunk.window.start, max(chunk.window)
    if first == last:
        return {PARTITION: str(first)}
    return {RANGE[0]: str(first), RANGE[1]: str(last)}


def run_here(
    instance: dg.DagsterInstance, service: Service, chunk: Chunk, progress: Progress
) -> Outcome:
    """Run a chunk in this process, to its end."""
    from taxi_assets.definitions import defs  # noqa: PLC0415 - takes two seconds

    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    run_id = str(uuid.uuid4())
    progress.follow(run_id)
    result = defs.resolve_job_def(get_daily_job_name(service)).execute_in_process(
        run_config={**QUIET, **_config(chunk)},
        instance=instance,
        asset_selection=_keys(service, chunk),
        run_id=run_id,
        tags={**run_tags(chunk), PROCESS_TAG: str(os.getpid())},
        raise_on_error=False,
    )
    if result.success:
        return Outcome(run_id, succeeded=True)
    return Outcome(run_id, succeeded=False, cause=failure_of(instance, run_id))


def submit(queue: RunQueue, service: Service, chunk: Chunk) -> str:
    """Put a chunk into the instance's queue; return its run's id."""
    return queue.submit(
        get_daily_job_name(service), _keys(service, chunk), _config(chunk), run_tags(chunk)
    )


def wait_for_runs(
    instance: dg.DagsterInstance,
    run_ids: Sequence[str],
    stop: threading.Event,
    seconds: float = 1.0,
) -> Iterator[Outcome]:
    """Yield each run once it has ended.

    Raises:
        QueueDiedError: runs are left and no daemon reports any more.
    """
    waiting = list(run_ids)
    while waiting and not stop.is_set():
        for run in instance.get_runs(dg.RunsFilter(run_ids=waiting, statuses=list(ENDED))):
            waiting.remove(run.run_id)
            succeeded = run.status == DagsterRunStatus.SUCCESS
            yield Outcome(
                run.run_id, succeeded, "" if succeeded else failure_of(instance, run.run_id)
            )
        if not waiting:
            return
        known = {run.run_id for run in instance.get_runs(dg.RunsFilter(run_ids=waiting))}
        for run_id in [one for one in waiting if one not in known]:
            waiting.remove(run_id)
            yield Outcome(run_id, succeeded=False, cause="the run was deleted")
        if waiting and not has_live_queue(instance):
            raise QueueDiedError(
                f"no daemon reports any more; {len(waiting)} runs wait in the queue: start "
                "dagster-daemon (or dagster dev), then run this again"
            )
        stop.wait(seconds)


def failure_of(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return the cause of a failed run in one line."""
    records = instance.get_records_for_run(
        run_id,
        of_type={DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE},
    ).records
    for record in records:
        event = record.event_log_entry.get_dagster_event()
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data and data.user_failure_data.description:
                return format_one_line(data.user_failure_data.description)
            return format_one_line(data.error.message if data.error else event.message)
    return (
        format_one_line(records[-1].event_log_entry.get_dagster_event().message) if records else ""
    )


def days_in_runs(runs: Sequence[dg.DagsterRun]) -> dict[Any, str]:
    """Return the id of the run of each day that runs cover."""
    return {day: run.run_id for run in runs for day in list_run_days(run.tags)}


def _keys(service: Service, chunk: Chunk) -> list[dg.AssetKey]:
    return [dg.AssetKey([service.name, name]) for name in chunk.assets]


def _config(chunk: Chunk) -> Mapping[str, Any]:
    return CONFIRM if chunk.is_restated else {}
