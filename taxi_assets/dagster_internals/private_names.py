"""The private names of Dagster that this package uses, and the effect if one no longer exists.

Every private import, attribute and string of Dagster is an entry here or in `tags`; a test compares
both with the code. docs/dagster-internals.md adds the reason, the upstream issue and the canary
test of each.
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
    """Name in the module; after a dot, an attribute of that class or of its objects."""
    without: str
    """Effect if the name does not exist, as the end of a sentence."""

    def find(self) -> Any:
        """Return the object of this name; None, with a warning, if it does not exist."""
        try:
            value: Any = import_module(self.module)
            for part in self.attribute.split("."):
                value = getattr(value, part)
        except (ImportError, AttributeError):
            self.warn()
            return None
        return value

    def find_owner(self) -> Any:
        """Return the class of the attribute; None, with a warning, if it does not exist."""
        if self.find() is None:
            return None
        return getattr(import_module(self.module), self.attribute.partition(".")[0])

    def is_on(self, owner: object) -> bool:
        """Return whether a class or object has the attribute; warn if it does not."""
        exists = hasattr(owner, self.attribute.rpartition(".")[2])
        if not exists:
            self.warn()
        return exists

    def warn(self) -> None:
        """Warn that Dagster's own behaviour applies."""
        warnings.warn(
            f"this Dagster has no {self.module}.{self.attribute}: {self.without}",
            RuntimeWarning,
            stacklevel=3,
        )


ASSET_KEY = PrivateName(
    "dagster",
    "OutputContext._asset_key",
    "Dagster adds a second record without metadata to each partition",
)
CHECK_TARGET = PrivateName(
    "dagster._core.definitions.asset_checks.asset_check_evaluation",
    "AssetCheckEvaluationTargetMaterializationData",
    "check results do not name the materialization that they apply to",
)
RECEIVED_INTERRUPT = PrivateName(
    "dagster._utils.interrupts",
    "_received_interrupt",
    "an interrupted step is retried as its retry policy says; terminate the run again",
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
    "of two processes that create the files of an empty DAGSTER_HOME at once, one may fail",
)
ORPHANED_RUNS = PrivateName(
    "dagster._grpc.server",
    "DagsterApiServer._check_for_orphaned_runs",
    "a run that dies while Dagster's database is unreachable stays STARTED until the code server "
    "restarts",
)
EVENTS_TABLE = PrivateName(
    "dagster._core.storage.event_log.schema",
    "SqlEventLogStorageTable",
    "old runs are not deleted",
)
CHECKS_TABLE = PrivateName(
    "dagster._core.storage.event_log.schema",
    "AssetCheckExecutionsTable",
    "old runs are not deleted",
)
BACKFILLS_TABLE = PrivateName(
    "dagster._core.storage.runs.schema",
    "BulkActionsTable",
    "old runs are not deleted, and a woken daemon does not wait for a backfill without runs",
)
