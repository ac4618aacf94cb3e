"""Dagster's SQLite event log with batches, and with files that stay open."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster import DagsterEventType
from sqlalchemy.pool import QueuePool

from taxi_assets.dagster_internals.event_batches import Batches, Connections
from taxi_assets.dagster_internals.private_names import SQLITE_EVENT_LOG
from taxi_assets.dagster_internals.stored_once import (
    CHECKS,
    build_mirrored_check,
    get_event_type,
    make_file,
    read_long_values,
    shorten_materialization,
)

INDEX = "index"
"""Name of the SQLite file with the events of assets and checks of all runs."""
MAX_ENGINES = 8
"""Number of SQLite files that stay open: the index and those of the latest runs."""
BUSY_SECONDS = 60
"""Longest wait for another process's lock on a SQLite file, as in Dagster."""
STORE_METHODS = (
    "prepare_insert_event",
    "store_asset_check_event",
    "store_asset_event",
    "store_asset_event_tags",
)
"""The parts of Dagster's `store_event` in SQLite, which have no underscore and no documentation."""


class SqliteBatches(Batches):
    """Dagster's SQLite event log, with files that stay open.

    Dagster creates an engine for every event and so closes the file each time, which merges the
    write-ahead log.
    """

    grouped = Batches.grouped | {DagsterEventType.ASSET_MATERIALIZATION_PLANNED}

    @classmethod
    def is_supported(cls, storage: object) -> bool:
        """Return whether Dagster still stores an event in the same parts."""
        return SQLITE_EVENT_LOG.find() is not None and all(
            hasattr(storage, method) for method in STORE_METHODS
        )

    def prepare(self) -> None:
        """Add the set of open files."""
        super().prepare()
        self._lock = threading.RLock()
        self._engines: dict[str, sa.Engine] = {}
        self._tables: dict[str, bool] = {}

    @contextmanager
    def begin(self, run_id: str) -> Iterator[Connections]:
        """Connect to the run's file and the index, and commit when the block ends."""
        with self._lock, ExitStack() as stack:
            # The last one is committed first, as in Dagster.
            yield {
                shard: stack.enter_context(self._get_engine(shard).begin())
                for shard in (INDEX, run_id)
            }
        # Dagster's watcher waits for a change of the run's file, which events in the write-ahead
        # log do not cause.
        with suppress(FileNotFoundError):  # The history was wiped meanwhile.
            os.utime(self.path_for_shard(run_id))  # type: ignore[attr-defined]

    def store_asset_events(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store the long values of materializations in the index alone."""
        stock: Any = self
        for event in events:
            insert = stock.prepare_insert_event(event)
            index_id = self._insert(event, shorten_materialization(event, insert), insert)
            stock.store_asset_event_tags([event], [index_id])
        stock.store_asset_event(events[-1], index_id)

    def store_other_event(self, event: dg.EventLogEntry) -> None:
        """Store the result of a check in its run and in Dagster's table of checks alone."""
        if get_event_type(event) not in CHECKS:
            super().store_other_event(event)
            return
        stock: Any = self
        insert = stock.prepare_insert_event(event)
        index_id = self._insert(event, insert, build_mirrored_check(insert, event))
        stock.store_asset_check_event(event, index_id)

    def _insert(self, event: dg.EventLogEntry, for_run: sa.Insert, for_index: sa.Insert) -> int:
        """Insert an event into its run's file and the index; return its number in the index."""
        with self.run_connection(event.run_id) as connection:
            connection.execute(for_run)
        with self.index_connection() as connection:
            stored: Any = connection.execute(for_index).inserted_primary_key
        return int(stored[0])

    def get_records_for_run(self, *arguments: Any, **options: Any) -> Any:
        """Return a run's records, with the pictures and tables that the index has."""
        page = super().get_records_for_run(*arguments, **options)  # type: ignore[misc]
        return read_long_values(page, self.index_connection)

    def run_connection(self, run_id: str = "") -> AbstractContextManager[sa.Connection]:
        """Return the connection to a run's file."""
        return self._connection(run_id)

    def index_connection(self) -> AbstractContextManager[sa.Connection]:
        """Return the connection to the file of all runs."""
        return self._connection(INDEX)

    def has_table(self, table_name: str) -> bool:
        """Return whether the index has a table; cached, because each check result needs it."""
        if not self._tables.get(table_name):
            self._tables[table_name] = super().has_table(table_name)  # type: ignore[misc]
        return self._tables[table_name]

    def wipe(self) -> None:
        """Remove all events, and the files of runs."""
        self._close_files()
        super().wipe()  # type: ignore[misc]

    def dispose(self) -> None:
        """Close the files."""
        self._close_files()
        super().dispose()  # type: ignore[misc]

    def _close_files(self) -> None:
        """Close all files; the last process to close a file merges its write-ahead log."""
        with self._lock:
            for engine in self._engines.values():
                engine.dispose()
            self._engines.clear()

    @contextmanager
    def _connection(self, shard: str) -> Iterator[sa.Connection]:
        if shard in self.connections:
            yield self.connections[shard]
            return
        with self._lock, self._get_engine(shard).begin() as connection:
            yield connection

    def _get_engine(self, shard: str) -> sa.Engine:
        engines = self._engines
        if shard not in engines:
            parent: Any = super()
            make_file(Path(self.path_for_shard(shard)))  # type: ignore[attr-defined]
            with parent.run_connection(shard):  # Creates the tables.
                pass
            if len(engines) >= MAX_ENGINES:
                engines.pop(next(name for name in engines if name != INDEX)).dispose()
            engines[shard] = sa.create_engine(
                self.conn_string_for_shard(shard),  # type: ignore[attr-defined]
                poolclass=QueuePool,
                pool_size=1,
                max_overflow=-1,
                connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
            )
            if shard != INDEX:
                sa.event.listen(engines[shard], "connect", _commit_without_flush)
        return engines[shard]


def _commit_without_flush(connection: Any, _: object) -> None:
    """Leave the flush of a run's file to the system: 70 commits of a day's run waited for the disk.

    A power cut can lose the last lines of a run's page. The index, with all records of assets and
    checks, is flushed at each commit.
    """
    connection.execute("PRAGMA synchronous = NORMAL")
