"""Which part of ours takes the place of which part of Dagster, and the suites that judge it.

Imported by every process of a suite, children included, before the tests are: see `sitecustomize`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PART = "DAGSTER_SUITES_PART"
"""Environment variable that names the part to substitute; unset in the control run."""


def _substitute_event_log() -> None:
    from dagster._core.storage import event_log
    from dagster._core.storage.event_log.sqlite import sqlite_event_log

    from taxi_assets.dagster_internals.event_log import BatchedSqliteEventLogStorage

    event_log.SqliteEventLogStorage = BatchedSqliteEventLogStorage
    sqlite_event_log.SqliteEventLogStorage = BatchedSqliteEventLogStorage


def _substitute_run_launcher() -> None:
    from dagster._core import launcher
    from dagster._core.launcher import default_run_launcher
    from dagster._grpc import server

    from taxi_assets.dagster_internals.code_server import CodeServer
    from taxi_assets.dagster_internals.run_launcher import WatchedRunLauncher

    launcher.DefaultRunLauncher = WatchedRunLauncher
    default_run_launcher.DefaultRunLauncher = WatchedRunLauncher
    server.DagsterApiServer = CodeServer


@dataclass(frozen=True)
class Part:
    """A part of ours and the test files of Dagster that judge it."""

    substitute: Callable[[], None]
    suites: Sequence[str]


PARTS = {
    "event_log": Part(
        _substitute_event_log,
        (
            "storage_tests/test_event_log.py",
            "storage_tests/test_local_instance.py",
            "storage_tests/test_asset_events.py",
            "storage_tests/test_partition_status_cache.py",
        ),
    ),
    "run_launcher": Part(
        _substitute_run_launcher,
        (
            "launcher_tests/test_default_run_launcher.py",
            "launcher_tests/test_persistent_grpc_run_launcher.py",
        ),
    ),
}


def substitute() -> None:
    """Put the part that the environment names in place of Dagster's."""
    if name := os.environ.get(PART):
        PARTS[name].substitute()
