"""Dagster's Postgres event log with batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import dagster as dg
import sqlalchemy as sa

from taxi_assets.dagster_internals.event_batches import Batches, Connections
from taxi_assets.dagster_internals.private_names import POSTGRES_CONNECT

DATABASE = "database"
"""Key of the only connection: Postgres has no file for each run."""


class PostgresBatches(Batches):
    """Dagster's Postgres event log, with one connection for each group of events."""

    @classmethod
    def is_supported(cls, storage: object) -> bool:
        """Return whether Dagster still opens its connections in one method."""
        return POSTGRES_CONNECT.is_on(storage)

    def store_asset_events(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store all events by one statement, and the last one in Dagster's row of the asset."""
        super(Batches, self).store_event_batch(events)  # type: ignore[misc]

    @contextmanager
    def begin(self, run_id: str) -> Iterator[Connections]:
        """Connect once, and commit when the block ends."""
        del run_id
        parent: Any = super()
        with parent._connect() as connection:  # noqa: SLF001 - see private_names
            transactional = connection.execution_options(isolation_level="READ COMMITTED")
            with transactional.begin():
                yield {DATABASE: transactional}

    def _connect(self) -> AbstractContextManager[sa.Connection]:
        if self.connections:
            return nullcontext(self.connections[DATABASE])
        parent: Any = super()
        result: AbstractContextManager[sa.Connection] = parent._connect()  # noqa: SLF001
        return result
