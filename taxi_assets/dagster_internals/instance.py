"""Dagster's instance with the event logs of `event_log`, created by one process at a time.

The timeline shows every run, whichever command starts it.

`dagster.yaml` names the class as its `instance_class`. Without that line Dagster's own instance
works on the same database or files, more slowly. Any storage in `dagster.yaml` works.
"""

from __future__ import annotations

import inspect
import logging
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from filelock import FileLock

from taxi_assets.dagster_internals import tags
from taxi_assets.dagster_internals.console import ExpectedErrors, filter_logs
from taxi_assets.dagster_internals.event_log import add_batches
from taxi_assets.dagster_internals.latest_partitions import end_with_last_partition
from taxi_assets.dagster_internals.lost_runs import PROCESS, end_lost_runs, name_process
from taxi_assets.dagster_internals.pools import set_pool_limits
from taxi_assets.dagster_internals.private_names import SQLITE_STORAGE
from taxi_assets.dagster_internals.stored_once import remake_empty_file

LOCATION, REPOSITORY = "taxi_assets.definitions", "__repository__"
"""Names of the code location and of Dagster's default repository, the same in every deployment."""
LOST_RUNS_SECONDS = 20.0
"""Interval between two searches for the runs of killed processes."""
MAX_SECONDS = 120
"""Longest wait for another process that creates the files."""
PLANNED_BATCH_SIZE = "1000"
"""Number of planned events per transaction; a month's run has 155."""

if TYPE_CHECKING:
    StockStorage = object
else:
    StockStorage = SQLITE_STORAGE.find() or object


class TaxiInstance(dg.DagsterInstance):
    """Dagster's instance, whose event log stores a stage's records in one transaction."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if "event_storage" in options:
            os.environ.setdefault(tags.EVENT_BATCH_SIZE, PLANNED_BATCH_SIZE)
            add_batches(options["event_storage"])
        self._has_pool_limits = False
        self._last_search = -LOST_RUNS_SECONDS
        filter_logs()
        end_with_last_partition()
        super().__init__(*arguments, **options)

    def get_handlers(self) -> Sequence[logging.Handler]:
        """Return the handlers of a run's log; its loggers print after them."""
        return [*super().get_handlers(), ExpectedErrors()]

    def get_concurrency_config(self) -> Any:
        """Store the limits of pools, then return the concurrency section of `dagster.yaml`.

        The daemon calls this at the start of each pass over the queue, before it reads the pools
        and counts the runs in progress, which must not include those of killed processes.
        """
        if time.monotonic() - self._last_search >= LOST_RUNS_SECONDS:
            self._last_search = time.monotonic()
            end_lost_runs(self)
        if not self._has_pool_limits:
            self._has_pool_limits = True
            try:
                set_pool_limits(self)
            except BaseException:
                self._has_pool_limits = False
                raise
        return super().get_concurrency_config()

    @classmethod
    def config_schema(cls) -> Mapping[str, Any]:
        """Add no fields to `dagster.yaml`."""
        return {}

    @staticmethod
    def config_defaults(base_dir: str) -> Mapping[str, Any]:
        """Return the defaults of the parts that `dagster.yaml` does not name.

        `base_dir` is the instance's folder: `DAGSTER_HOME`, an argument, or a temporary folder.
        """
        arguments = inspect.signature(dg.DagsterInstance.from_ref).parameters
        defaults: Mapping[str, Any] = arguments["instance_ref"].annotation.config_defaults(base_dir)
        if StockStorage is object:
            return defaults
        storage = defaults["storage"]._replace(
            module_name=__name__, class_name=LockedSqliteStorage.__name__
        )
        return {**defaults, "storage": storage}

    def create_run_for_job(
        self, job_def: dg.JobDefinition, *arguments: Any, **run: Any
    ) -> dg.DagsterRun:
        """Create a run that appears on the timeline and in the list of jobs.

        `dagster job execute`, `dg launch` and `execute_in_process` name no code location, and the
        UI omits runs without one from both pages.
        """
        if run.get("remote_job_origin") is None:
            run["remote_job_origin"] = build_job_origin(job_def.name)
        return super().create_run_for_job(job_def, *arguments, **run)

    def handle_new_event(self, event: Any, **options: Any) -> None:
        """Store an event; as a run starts, name its process."""
        is_start = event.dagster_event_type == dg.DagsterEventType.RUN_START
        if is_start and self.has_run(event.run_id):
            self.add_run_tags(event.run_id, {PROCESS: name_process(event.run_id)})
        super().handle_new_event(event, **options)


class LockedSqliteStorage(StockStorage):
    """Dagster's SQLite storage, whose files one process creates while others wait.

    If two processes create the files of an empty folder at once, one may fail in Dagster's
    migration (6 of 20 pairs, Dagster 1.13.27).
    """

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        lock = os.path.join(base_dir, ".storage.lock")  # noqa: PTH118 - Dagster's string
        with FileLock(lock, timeout=MAX_SECONDS):
            super().__init__(base_dir, inst_data)  # type: ignore[call-arg]
            events: Any = self.event_log_storage  # type: ignore[attr-defined]
            remake_empty_file(Path(events.path_for_shard("index")))

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> Any:
        """Create the storage of a `base_dir`."""
        stock: Any = cls
        return stock.from_local(config_value["base_dir"], inst_data)


def build_job_origin(job: str) -> Any:
    """Return the origin of a run's job; None if this Dagster has another stored form of it.

    Dagster reads values that older versions stored, so the stored form outlives its classes.
    """
    serialized = tags.build_job_origin(LOCATION, REPOSITORY, job)
    try:
        return dg.deserialize_value(serialized)
    except Exception as error:  # noqa: BLE001 - the kinds of Dagster's errors are private
        warnings.warn(
            f"runs of the command line do not appear on the timeline: {type(error).__name__}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
