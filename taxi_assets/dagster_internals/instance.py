"""Dagster's instance with `event_log.py`, made by one process at a time, whose runs all show.

`dagster.yaml` names the class as its `instance_class`; without that line Dagster's own storage
works on the same files, only slower. A `storage` in `dagster.yaml` (Postgres, another folder)
takes its place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Self

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from filelock import FileLock

from taxi_assets.dagster_internals.event_log import BatchedSqliteEventLogStorage

LOCATION, REPOSITORY = "taxi_assets.definitions", "__repository__"
"""Names of the code location and of Dagster's default repository, the same in every deployment."""
MAX_SECONDS = 120
"""For which a process waits for another one to make the files."""


class TaxiInstance(dg.DagsterInstance):
    """Dagster's instance, whose storage is `BatchedSqliteStorage` unless `dagster.yaml` has one."""

    @classmethod
    def config_schema(cls) -> Mapping[str, Any]:
        """Add no fields to `dagster.yaml`."""
        return {}

    @staticmethod
    def config_defaults(base_dir: str) -> Mapping[str, ConfigurableClassData | None]:
        """Return what Dagster uses for parts that `dagster.yaml` leaves out, by name.

        `base_dir` is the instance's folder, wherever it comes from: `DAGSTER_HOME`, an argument,
        a temporary folder.
        """
        storage = ConfigurableClassData(
            __name__, BatchedSqliteStorage.__name__, json.dumps({"base_dir": base_dir})
        )
        return {**InstanceRef.config_defaults(base_dir), "storage": storage}

    def create_run_for_job(
        self, job_def: dg.JobDefinition, *arguments: Any, **run: Any
    ) -> dg.DagsterRun:
        """Create a run that the timeline and the list of jobs show, whoever starts it.

        `dagster job execute`, `dg launch` and `execute_in_process` name no code location, and the
        UI leaves runs without one out of both pages.
        """
        if run.get("remote_job_origin") is None:
            repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(LOCATION), REPOSITORY)
            run["remote_job_origin"] = RemoteJobOrigin(repository, job_def.name)
        return super().create_run_for_job(job_def, *arguments, **run)


class BatchedSqliteStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage with an event log that writes in batches.

    Of two processes that make the files of an empty folder at once, one fails in Dagster's
    migration (6 of 20 pairs, Dagster 1.13.27): here the second waits for the first.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        lock = os.path.join(base_dir, ".storage.lock")  # noqa: PTH118 - Dagster's string
        with FileLock(lock, timeout=MAX_SECONDS):
            super().__init__(base_dir, inst_data)
        folder = os.path.join(base_dir, "history", "runs")  # noqa: PTH118 - as Dagster's own
        self._event_log_storage = BatchedSqliteEventLogStorage(folder)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Make the storage of a `base_dir`, as Dagster asks for it."""
        return cls.from_local(config_value["base_dir"], inst_data)
