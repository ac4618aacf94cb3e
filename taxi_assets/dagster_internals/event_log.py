"""Give batches to the event log of an instance.

Dagster's own classes can read and write the same files and tables at the same time. `instance`
installs these classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taxi_assets.dagster_internals.event_batches import Batches
from taxi_assets.dagster_internals.postgres_event_log import PostgresBatches
from taxi_assets.dagster_internals.sqlite_event_log import SqliteBatches

BATCHES: Mapping[str, type[Batches]] = {
    "SqliteEventLogStorage": SqliteBatches,
    "PostgresEventLogStorage": PostgresBatches,
}
"""The additions to each of Dagster's classes, by name."""


def add_batches(storage: Any) -> None:
    """Add batches to an event log of Dagster's, or to the one that a storage wraps.

    Storages that wrap one are OpenLineage's and metrics exporters. Others are left as they are.
    """
    for log in (storage, *getattr(storage, "__dict__", {}).values()):
        batches = BATCHES.get(type(log).__name__)
        if batches and batches.is_supported(log):
            log.__class__ = build_batched_class(type(log))
            log.prepare()


def build_batched_class(stock: type) -> Any:
    """Return a subclass of one of Dagster's event logs with batches."""
    return type(f"Batched{stock.__name__}", (BATCHES[stock.__name__], stock), {})


def unwrap_event_log(storage: Any) -> Any:
    """Return Dagster's event log, which another storage may wrap.

    Raises:
        TypeError: the event log is not in a database.
    """
    while not hasattr(storage, "index_connection"):
        inner = (value for value in vars(storage).values() if hasattr(value, "store_event"))
        storage = next(inner, None)
        if storage is None:
            raise TypeError("Dagster's event log is not in a database: cannot prune its history")
    return storage
