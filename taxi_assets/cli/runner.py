"""Run the chunks of a plan: through the queue if a daemon is running, else in this process."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus
from filelock import FileLock, Timeout

from taxi_assets.cli.day_states import ASSETS
from taxi_assets.cli.interrupts import record_interrupts
from taxi_assets.cli.month_plan import Chunk
from taxi_assets.cli.spans import UsageError
from taxi_assets.dagster_internals.lost_runs import PROCESS, end_lost_runs, name_process
from taxi_assets.dagster_internals.run_queue import has_live_queue, queue_run
from taxi_assets.defs.alerts.alert_sensors import describe_cause
from taxi_assets.defs.automation.sensors import CONFIRM
from taxi_assets.defs.jobs.daily import get_daily_job_name
from taxi_assets.errors import TerminalError
from taxi_assets.partitions import PARTITION, RANGE, list_run_days
from taxi_assets.tlc.schema import Service

POLL_SECONDS = 1.0
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
ENDED = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)
UNFINISHED = [status for status in DagsterRunStatus if status not in ENDED]


class QueueDiedError(TerminalError):
    """The daemon stopped while runs wait in its queue."""


@dataclass
class Progress:
    """The stored days and rows, counted in the event log of the runs that this command started."""

    instance: dg.DagsterInstance
    cursors: dict[str, str | None] = field(default_factory=dict[str, str | None])
    stored: int = 0
    """Number of stored partitions."""
    rows: int = 0
    """Number of published rows of stored days."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def follow(self, run_id: str) -> None:
        """Count a run's events from now on."""
        self.cursors.setdefault(run_id, None)

    def count(self) -> tuple[int, int]:
        """Read new events of the runs, and return all stored partitions and rows so far."""
        with self.lock:
            for event in self.read_events():
                self.stored += 1
                if event.asset_key.path[-1] == "raw_trips":
                    self.rows += int(str(event.metadata["rows"].value))
            return self.stored, self.rows

    def read_events(self) -> Iterator[dg.AssetMaterialization]:
        """Yield the new materializations of the runs."""
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
                    if event := record.event_log_entry.asset_materialization:
                        yield event
                self.cursors[run_id], more = page.cursor, page.has_more


@dataclass(frozen=True)
class Outcome:
    """The result of a run."""

    run_id: str
    failure: str | None
    """Cause of a failed run; None if it succeeded."""


def list_unfinished_runs(instance: dg.DagsterInstance, service: Service) -> list[dg.DagsterRun]:
    """Return the service's runs that are queued or have not ended."""
    return list(
        instance.get_runs(dg.RunsFilter(job_name=get_daily_job_name(service), statuses=UNFINISHED))
    )


@contextmanager
def hold_backfill_lock(instance: dg.DagsterInstance, service: Service) -> Iterator[None]:
    """Hold the lock of a service's backfill; first end the runs of killed ones of this machine.

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
        end_lost_runs(instance, get_daily_job_name(service))
        yield
    finally:
        lock.release()


def build_run_tags(chunk: Chunk) -> dict[str, str]:
    """Return the tags that name a run's days."""
    first, last = chunk.window.start, max(chunk.window)
    if first == last:
        return {PARTITION: str(first)}
    return {RANGE[0]: str(first), RANGE[1]: str(last)}


def run_chunk(service: Service, chunk: Chunk, progress: Progress) -> Outcome:
    """Run a chunk in this process."""
    keys, tags = _list_keys(service, chunk), build_run_tags(chunk)
    return run_daily_job(service, progress, tags, keys, _build_config(chunk))


def run_daily_job(
    service: Service,
    progress: Progress,
    tags: Mapping[str, str],
    assets: Sequence[dg.AssetKey] | None = None,
    run_config: Mapping[str, Any] | None = None,
) -> Outcome:
    """Run a service's job in this process, or some of its assets and all of their checks.

    Raises:
        KeyboardInterrupt: it was interrupted; Dagster has ended the run.
    """
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    run_id = str(uuid.uuid4())
    progress.follow(run_id)
    with record_interrupts() as was_interrupted:
        result = load_job(get_daily_job_name(service)).execute_in_process(
            run_config={**QUIET, **(run_config or {})},
            instance=progress.instance,
            asset_selection=assets,
            run_id=run_id,
            # A process that is killed before the run starts leaves it, too.
            tags={**tags, PROCESS: name_process(run_id)},
            raise_on_error=False,
        )
    if was_interrupted():
        raise KeyboardInterrupt
    failure = None if result.success else describe_failure(progress.instance, run_id)
    return Outcome(run_id, failure)


def load_job(name: str) -> dg.JobDefinition:
    """Return a job of the definitions; the process of a queued run finds this function by name."""
    from taxi_assets.definitions import defs

    return defs.resolve_job_def(name)


def submit_chunk(instance: dg.DagsterInstance, service: Service, chunk: Chunk) -> str:
    """Queue a run of a chunk, and return its id."""
    job = (get_daily_job_name(service),)
    return queue_run(
        instance,
        dg.build_reconstructable_job(__name__, load_job.__name__, job),
        _list_keys(service, chunk),
        _build_config(chunk),
        build_run_tags(chunk),
    )


def wait_for_runs(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> Iterator[Outcome]:
    """Yield each run once it has ended.

    Raises:
        QueueDiedError: runs are left, but no daemon reports any longer.
    """
    waiting = list(run_ids)
    while waiting:
        runs = {run.run_id: run for run in instance.get_runs(dg.RunsFilter(run_ids=waiting))}
        for run_id in list(waiting):
            run = runs.get(run_id)
            if run is None or run.is_finished:
                waiting.remove(run_id)
                yield Outcome(run_id, _find_failure(instance, run))
        if waiting and not has_live_queue(instance):
            raise QueueDiedError(
                f"no daemon reports any more; {len(waiting)} runs wait in the queue: start "
                "dagster-daemon (or dg dev), then run this again"
            )
        if waiting:
            time.sleep(POLL_SECONDS)


def _find_failure(instance: dg.DagsterInstance, run: dg.DagsterRun | None) -> str | None:
    if run is None:
        return "the run was deleted"
    return None if run.is_success else describe_failure(instance, run.run_id)


def describe_failure(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return the cause of a failed run in one line."""
    records = instance.get_records_for_run(
        run_id,
        of_type={DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE},
    ).records
    events = [record.event_log_entry.get_dagster_event() for record in records]
    failures = [event for event in events if event.is_step_failure] or events[-1:]
    return describe_cause(failures[0]) if failures else ""


def map_days_to_runs(runs: Sequence[dg.DagsterRun]) -> dict[Any, str]:
    """Return the run id of each day in the given runs."""
    return {day: run.run_id for run in runs for day in list_run_days(run.tags)}


def _list_keys(service: Service, chunk: Chunk) -> list[dg.AssetKey] | None:
    """Return the assets of a chunk; None for all of them, whose run is one of the entire job."""
    if set(chunk.assets) == set(ASSETS):
        return None
    return [dg.AssetKey([service.name, name]) for name in chunk.assets]


def _build_config(chunk: Chunk) -> Mapping[str, Any]:
    return CONFIRM if chunk.is_restated else {}
