"""Give batches to the event log of an instance.

Dagster's own classes can read and write the same files and tables at the same time. `instance`
installs these classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import dagster as dg

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
    for name, log in (("", storage), *getattr(storage, "__dict__", {}).items()):
        batches = BATCHES.get(type(log).__name__)
        if batches and batches.is_supported(log):
            log.__class__ = build_batched_class(type(log))
            log.prepare()
            if name:
                delegate_all(storage, name)


def delegate_all(wrapper: Any, name: str) -> None:
    """Let a wrapper answer as the event log in its attribute `name`, wherever it has no own answer.

    Dagster's base class answers for an unknown database, which has no pools, so that their limits
    would not hold. dagster-openlineage 0.2 delegates its abstract methods only.
    """
    stock, log = type(wrapper), getattr(wrapper, name)

    def register_instance(self: Any, instance: dg.DagsterInstance) -> None:
        stock.register_instance(self, instance)
        log.register_instance(instance)

    inherited = {
        member
        for member in dir(log)
        if not member.startswith("_")
        and (owner := find_owner(stock, member)) in type(log).__mro__
        and owner is not find_owner(type(log), member)
    }
    members: dict[str, Any] = {key: property(attrgetter(f"{name}.{key}")) for key in inherited}
    wrapper.__class__ = type(
        stock.__name__, (stock,), members | {"register_instance": register_instance}
    )


def find_owner(kind: type, member: str) -> type | None:
    """Return the class of the hierarchy that defines a member; None if none does."""
    return next((owner for owner in kind.__mro__ if member in vars(owner)), None)


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
