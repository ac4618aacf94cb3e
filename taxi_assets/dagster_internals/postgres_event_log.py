"""Dagster's Postgres event log with batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import dagster as dg
import sqlalchemy as sa

from taxi_assets.dagster_internals.event_batches import Batches
from taxi_assets.dagster_internals.private_names import POSTGRES_CONNECT


class PostgresBatches(Batches):
    """Dagster's Postgres event log, with one connection for each group of events."""

    @classmethod
    def is_supported(cls, storage: object) -> bool:
        """Return whether Dagster still opens its connections in one method."""
        return POSTGRES_CONNECT.is_on(storage)

    def prepare(self) -> None:
        """Add the connection of the thread's transaction."""
        self._in_transaction = threading.local()

    def store_asset_events(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store all events by one statement, and the last one in Dagster's row of the asset."""
        super(Batches, self).store_event_batch(events)  # type: ignore[misc]

    @contextmanager
    def open_transaction(self, run_id: str) -> Iterator[None]:
        """Execute this thread's statements on events in one transaction."""
        del run_id
        if self._get_connection() is not None:
            yield
            return
        parent: Any = super()
        with parent._connect() as connection:  # noqa: SLF001 - see private_names
            transactional = connection.execution_options(isolation_level="READ COMMITTED")
            with transactional.begin():
                self._in_transaction.connection = transactional
                try:
                    yield
                finally:
                    self._in_transaction.connection = None

    def _get_connection(self) -> sa.Connection | None:
        return getattr(self._in_transaction, "connection", None)

    def _connect(self) -> AbstractContextManager[sa.Connection]:
        connection = self._get_connection()
        if connection is not None:
            return nullcontext(connection)
        parent: Any = super()
        result: AbstractContextManager[sa.Connection] = parent._connect()  # noqa: SLF001
        return result
