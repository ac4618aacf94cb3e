"""Store the events of a stage together, in one transaction per asset.

A month's run logs 155 materializations and 403 check results, and Dagster connects to the database
two or three times for each. Here the events of assets and checks that a thread logs within a
`batch_transaction` are stored at the end of the block, over one connection. Other events are stored
immediately, after the pending ones, so that a run's page follows a long stage. Dagster's own code
writes the events; only connections and transactions differ.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import groupby
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster import DagsterEventType

from taxi_assets.dagster_internals.rejections import find_skipped_partitions
from taxi_assets.dagster_internals.stored_once import CHECKS, get_event_type

BATCHED = {
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    DagsterEventType.ASSET_OBSERVATION,
    *CHECKS,
}
"""Events that may be stored at the end of a block."""

Connections = Mapping[str, sa.Connection]
PendingEvents = list[tuple["Batches", dg.EventLogEntry]]

_thread = threading.local()


@contextmanager
def batch_transaction() -> Iterator[None]:
    """Store the events of assets and checks of this thread's block together, at its end.

    The database is locked only while they are written. The events of a block that fails are stored
    too, because they have happened.
    """
    if get_pending_events() is not None:
        yield
        return
    pending: PendingEvents = []
    _thread.pending = pending
    try:
        yield
    finally:
        _thread.pending = None
        store_pending_events(pending)


def get_pending_events() -> PendingEvents | None:
    """Return the events that wait for the end of this thread's block; None outside one."""
    return getattr(_thread, "pending", None)


def store_pending_events(pending: PendingEvents) -> None:
    """Store events in order.

    Each transaction covers the events of one asset of one run: two runs that each lock several rows
    of Dagster's table of assets could deadlock.
    """
    for (storage, run_id, _), group in groupby(list(pending), key=_get_transaction_key):
        events = [event for _, event in group]
        storage.store_events(run_id, events)
        del pending[: len(events)]  # Stored events must not be repeated if the next ones fail.


def _get_transaction_key(pair: tuple[Batches, dg.EventLogEntry]) -> tuple[Batches, str, str]:
    storage, event = pair
    return storage, event.run_id, str(event.get_dagster_event().asset_key)


def _get_type_and_asset(event: dg.EventLogEntry) -> tuple[DagsterEventType | None, str]:
    kind = get_event_type(event)
    return kind, str(event.get_dagster_event().asset_key) if kind in BATCHED else ""


class Batches(ABC):
    """The additions to both of Dagster's event logs, which come after this class in the MRO."""

    grouped: frozenset[DagsterEventType] = frozenset({DagsterEventType.ASSET_MATERIALIZATION})
    """Types of events that `store_asset_events` stores together."""

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event, at the end of the thread's block if it is one of an asset or a check."""
        pending = get_pending_events()
        if pending is not None and get_event_type(event) in BATCHED:
            pending.append((self, event))
            return
        if pending:
            store_pending_events(pending)
        self.store_events(event.run_id, [event])

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events of one run immediately, in one transaction."""
        if pending := get_pending_events():
            store_pending_events(pending)
        self.store_events(events[0].run_id, events)

    def store_events(self, run_id: str, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events of a run with Dagster's code, over one connection."""
        with self.open_transaction(run_id):
            for (kind, _), group in groupby(events, key=_get_type_and_asset):
                if kind in self.grouped:
                    self.store_asset_events(list(group))
                else:
                    for event in group:
                        self.store_other_event(event)

    @abstractmethod
    def store_asset_events(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events of one type of one asset; Dagster's row of the asset has the last one."""

    def store_other_event(self, event: dg.EventLogEntry) -> None:
        """Store an event whose type is not in `grouped`."""
        super().store_event(event)  # type: ignore[misc]

    def get_latest_asset_partition_materialization_attempts_without_materializations(
        self, asset_key: dg.AssetKey, *arguments: Any, **options: Any
    ) -> Mapping[str, tuple[str, int]]:
        """Return the planned partitions that were not materialized, without skipped ones.

        If their run fails, Dagster shows them as failed. A day that an upstream asset rejected is
        failed on that asset's page alone.
        """
        stock: Any = super()
        attempts: Mapping[str, tuple[str, int]] = (
            stock.get_latest_asset_partition_materialization_attempts_without_materializations(
                asset_key, *arguments, **options
            )
        )
        own: Any = self
        skipped = find_skipped_partitions(own.fetch_observations, asset_key, attempts)
        return {partition: of for partition, of in attempts.items() if partition not in skipped}

    @property
    def connections(self) -> Connections:
        """Connections of this thread's transaction, by file; empty outside one."""
        return getattr(self._in_transaction, "connections", {})

    @contextmanager
    def open_transaction(self, run_id: str) -> Iterator[None]:
        """Execute this thread's statements on a run's events in one transaction."""
        if self.connections:
            yield
            return
        with self.begin(run_id) as connections:
            self._in_transaction.connections = connections
            try:
                yield
            finally:
                self._in_transaction.connections = {}

    @abstractmethod
    def begin(self, run_id: str) -> AbstractContextManager[Connections]:
        """Connect, and commit when the block ends."""

    @classmethod
    @abstractmethod
    def is_supported(cls, storage: object) -> bool:
        """Return whether a storage of this Dagster still has the private names that are used."""

    def prepare(self) -> None:
        """Add the state of the connections to a storage that Dagster has created."""
        self._in_transaction = threading.local()
