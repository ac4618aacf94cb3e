"""Dagster's instance with the event logs of `event_log`, made by one process at a time.

Every run shows on the timeline, whoever starts it.

`dagster.yaml` names the class as its `instance_class`. Without that line Dagster's own instance
works on the same database or files, only slower. Whatever storage `dagster.yaml` names is used.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from filelock import FileLock

from taxi_assets.dagster_internals import tags
from taxi_assets.dagster_internals.event_log import with_batches
from taxi_assets.dagster_internals.pools import set_pool_limits
from taxi_assets.dagster_internals.private_names import INSTANCE_DEFAULTS, SQLITE_STORAGE

LOCATION, REPOSITORY = "taxi_assets.definitions", "__repository__"
"""Names of the code location and of Dagster's default repository, the same in every deployment."""
MAX_SECONDS = 120
"""For which a process waits for another one to make the files."""
PLANNED_AT_ONCE = "1000"
"""Planned events that are stored in one transaction; a month's run has 155."""

if TYPE_CHECKING:
    StockStorage = object
else:
    StockStorage = SQLITE_STORAGE.find() or object


class TaxiInstance(dg.DagsterInstance):
    """Dagster's instance, whose event log stores a stage's records in one transaction."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if "event_storage" in options:
            os.environ.setdefault(tags.EVENT_BATCH_SIZE, PLANNED_AT_ONCE)
            options["event_storage"] = with_batches(options["event_storage"])
        self._has_pool_limits = False
        super().__init__(*arguments, **options)

    def get_concurrency_config(self) -> Any:
        """Return what `dagster.yaml` says of concurrency, once the limits of pools are stored.

        The daemon calls this at the begin of each pass over the queue, before it reads the pools.
        """
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
        """Return what Dagster uses for parts that `dagster.yaml` leaves out, by name.

        `base_dir` is the instance's folder, wherever it comes from: `DAGSTER_HOME`, an argument,
        a temporary folder.
        """
        reference = INSTANCE_DEFAULTS.find() or _type_of_references()
        defaults: Mapping[str, Any] = reference.config_defaults(base_dir)
        if StockStorage is object:
            return defaults
        storage = defaults["storage"]._replace(
            module_name=__name__, class_name=LockedSqliteStorage.__name__
        )
        return {**defaults, "storage": storage}

    def create_run_for_job(
        self, job_def: dg.JobDefinition, *arguments: Any, **run: Any
    ) -> dg.DagsterRun:
        """Create a run that the timeline and the list of jobs show, whoever starts it.

        `dagster job execute`, `dg launch` and `execute_in_process` name no code location, and the
        UI leaves runs without one out of both pages.
        """
        if run.get("remote_job_origin") is None:
            run["remote_job_origin"] = _origin(job_def.name)
        return super().create_run_for_job(job_def, *arguments, **run)


class LockedSqliteStorage(StockStorage):
    """Dagster's SQLite storage, whose files one process makes while others wait.

    Of two processes that make the files of an empty folder at once, one fails in Dagster's
    migration (6 of 20 pairs, Dagster 1.13.27).
    """

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        lock = os.path.join(base_dir, ".storage.lock")  # noqa: PTH118 - Dagster's string
        with FileLock(lock, timeout=MAX_SECONDS):
            super().__init__(base_dir, inst_data)  # type: ignore[call-arg]

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> Any:
        """Make the storage of a `base_dir`, as Dagster asks for it."""
        stock: Any = cls
        return stock.from_local(config_value["base_dir"], inst_data)


def _origin(job: str) -> Any:
    """Return what a run says of where its job is from; None if this Dagster says it otherwise.

    Dagster reads what older versions stored, so its stored form outlives its classes.
    """
    stored = tags.job_origin(LOCATION, REPOSITORY, job)
    try:
        return dg.deserialize_value(stored)
    except Exception as error:  # noqa: BLE001 - Dagster's own, private
        warnings.warn(
            f"runs of the command line do not show on the timeline: {type(error).__name__}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def _type_of_references() -> Any:
    """Return the type of the argument that Dagster makes instances from."""
    return inspect.signature(dg.DagsterInstance.from_ref).parameters["instance_ref"].annotation
