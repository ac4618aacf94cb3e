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


def add_batches(storage: Any) -> Any:
    """Return an event log of Dagster's with batches and the same state; return others unchanged.

    Of a storage that wraps one of Dagster's (OpenLineage, a metrics exporter), the inner storage is
    replaced.
    """
    name = type(storage).__name__
    if name not in BATCHES:
        for attribute, inner in list(getattr(storage, "__dict__", {}).items()):
            if type(inner).__name__ in BATCHES:
                setattr(storage, attribute, add_batches(inner))
        return storage
    if not BATCHES[name].is_supported(storage):
        return storage
    replacement = build_batched_class(type(storage))
    batched = replacement.__new__(replacement)
    batched.__dict__ = storage.__dict__
    batched.prepare()
    return batched


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
