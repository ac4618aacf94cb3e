"""Which part of ours takes the place of which part of Dagster, and the suites that judge it.

Imported by every process of a suite, children included, before the tests are: see `sitecustomize`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

PART = "DAGSTER_SUITES_PART"
"""Environment variable that names the part to substitute; unset in the control run."""
POSTGRES_URL = "SUITES_POSTGRES_URL"
"""Environment variable with the URL of an empty Postgres database."""


def _substitute_event_log() -> None:
    from dagster._core.storage import event_log
    from dagster._core.storage.event_log.sqlite import sqlite_event_log

    from taxi_assets.dagster_internals.event_log import build_batched_class

    stock = sqlite_event_log.SqliteEventLogStorage

    class Ours(build_batched_class(stock)):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.prepare()
            super().__init__(*arguments, **options)

    event_log.SqliteEventLogStorage = Ours
    sqlite_event_log.SqliteEventLogStorage = Ours

    _substitute_instance()


def _substitute_instance() -> None:
    """Have every instance that is made of settings be ours."""
    from dagster._core.instance import ref

    from taxi_assets.dagster_internals import instance
    from taxi_assets.dagster_internals.instance import TaxiInstance

    # The pools of our assets are settings of theirs, which no suite of Dagster's expects.
    instance.set_pool_limits = lambda _: None
    # Nor does one expect the tag of a run's process.
    del TaxiInstance.handle_new_event

    own_class = ref.InstanceRef.custom_instance_class.fget
    stock_defaults = ref.InstanceRef.config_defaults
    ours = TaxiInstance.config_defaults(".")["storage"]

    def config_defaults(base_dir: str) -> dict[str, Any]:
        stock = stock_defaults(base_dir)
        return {**stock, "storage": ours._replace(config_yaml=stock["storage"].config_yaml)}

    ref.InstanceRef.config_defaults = staticmethod(config_defaults)
    ref.InstanceRef.custom_instance_class = property(lambda self: own_class(self) or TaxiInstance)


def _substitute_code_server() -> None:
    from dagster._grpc import server

    from taxi_assets.dagster_internals.code_server import CodeServer

    server.DagsterApiServer = CodeServer


@dataclass(frozen=True)
class Part:
    """A part of ours and the test files that judge it, Dagster's or on Dagster's."""

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
    "postgres_event_log": Part(_substitute_instance, ("on_postgres.py",)),
    "code_server": Part(
        _substitute_code_server,
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
