"""The private names of Dagster that this package leans on, each with what happens without it.

Every private import, attribute and string of Dagster is an entry here or in `tags`; a test compares
both with the code. docs/dagster-internals.md adds the reason, the upstream issue and the canary
test of each. Nothing here runs a pipeline.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class PrivateName:
    """A private class, function or attribute of Dagster."""

    module: str
    attribute: str
    """Name in the module; behind a dot, an attribute of that class or of its objects."""
    without: str
    """What Dagster does by itself when the name is gone, as the end of a sentence."""

    def find(self) -> Any:
        """Return what the name stands for; None, with a warning, if this Dagster has no such."""
        try:
            found: Any = import_module(self.module)
            for part in self.attribute.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            self.warn()
            return None
        return found

    def find_owner(self) -> Any:
        """Return the class that has the attribute; None, with a warning, if there is none."""
        if self.find() is None:
            return None
        return getattr(import_module(self.module), self.attribute.partition(".")[0])

    def is_on(self, owner: object) -> bool:
        """Return whether a class or object has the attribute; warn if it does not."""
        found = hasattr(owner, self.attribute.rpartition(".")[2])
        if not found:
            self.warn()
        return found

    def warn(self) -> None:
        """Warn that Dagster's own way is taken."""
        warnings.warn(
            f"this Dagster has no {self.module}.{self.attribute}: {self.without}",
            RuntimeWarning,
            stacklevel=3,
        )


ASSET_KEY = PrivateName(
    "dagster",
    "OutputContext._asset_key",
    "Dagster adds a record of its own to each partition's, without its metadata",
)
CHECK_TARGET = PrivateName(
    "dagster._core.definitions.asset_checks.asset_check_evaluation",
    "AssetCheckEvaluationTargetMaterializationData",
    "check results do not name the materialization that they judge",
)
RECEIVED_INTERRUPT = PrivateName(
    "dagster._utils.interrupts",
    "_received_interrupt",
    "a step that is interrupted is tried again as its retry policy says; ask for the end of the "
    "run again",
)
SQLITE_EVENT_LOG = PrivateName(
    "dagster._core.storage.event_log",
    "SqliteEventLogStorage",
    "events are stored one at a time, which is slower",
)
POSTGRES_CONNECT = PrivateName(
    "dagster_postgres",
    "PostgresEventLogStorage._connect",
    "events are stored one at a time, which is slower",
)
SQLITE_STORAGE = PrivateName(
    "dagster._core.storage.sqlite_storage",
    "DagsterSqliteStorage",
    "of two processes that make the files of an empty DAGSTER_HOME at once, one may fail",
)
INSTANCE_DEFAULTS = PrivateName(
    "dagster._core.instance.ref",
    "InstanceRef",
    "its type is read from the signature of DagsterInstance.from_ref",
)
ORPHANED_RUNS = PrivateName(
    "dagster._grpc.server",
    "DagsterApiServer._check_for_orphaned_runs",
    "a run that dies while Dagster's database is away stays STARTED until the code server restarts",
)
EVENTS_TABLE = PrivateName(
    "dagster._core.storage.event_log.schema",
    "SqlEventLogStorageTable",
    "old runs are kept",
)
CHECKS_TABLE = PrivateName(
    "dagster._core.storage.event_log.schema",
    "AssetCheckExecutionsTable",
    "old runs are kept",
)
BACKFILLS_TABLE = PrivateName(
    "dagster._core.storage.runs.schema",
    "BulkActionsTable",
    "old backfills are kept, and a woken daemon does not stay for one that has no run in progress",
)

WORKSPACE = PrivateName(
    "dagster._cli.workspace.cli_target",
    "get_workspace_from_cli_opts",
    "`taxi-assets backfill` runs in its own process and not by the queue",
)
WORKSPACE_OPTIONS = PrivateName(
    "dagster_shared.cli",
    "WorkspaceOpts",
    "`taxi-assets backfill` runs in its own process and not by the queue",
)
JOB_SELECTOR = PrivateName(
    "dagster._core.definitions.selector",
    "JobSubsetSelector",
    "`taxi-assets backfill` runs in its own process and not by the queue",
)

NAMES = (
    ASSET_KEY,
    CHECK_TARGET,
    RECEIVED_INTERRUPT,
    SQLITE_EVENT_LOG,
    POSTGRES_CONNECT,
    SQLITE_STORAGE,
    INSTANCE_DEFAULTS,
    ORPHANED_RUNS,
    EVENTS_TABLE,
    CHECKS_TABLE,
    BACKFILLS_TABLE,
    WORKSPACE,
    WORKSPACE_OPTIONS,
    JOB_SELECTOR,
)
