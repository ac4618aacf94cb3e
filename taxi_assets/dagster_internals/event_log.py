"""Dagster's event logs, with one transaction for all records of a stage.

A month's run logs 155 materializations and 403 check results, and Dagster connects to the database
two or three times for each. Here the events of assets and checks that a thread logs within a
`batch_transaction` are stored at the end of the block, over one connection. Other events are stored
immediately, after the pending ones, so that a run's page follows a long stage. Dagster's own code
writes the events; only connections and transactions differ. Dagster's own classes can read and
write the same files and tables at the same time. `instance` installs these classes.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster import DagsterEventType
from sqlalchemy.pool import QueuePool

from taxi_assets.dagster_internals.private_names import POSTGRES_CONNECT, SQLITE_EVENT_LOG
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
BATCHED = {
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    DagsterEventType.ASSET_OBSERVATION,
    *CHECKS,
}
"""Events that may be stored at the end of a block."""
STORE_METHODS = (
    "prepare_insert_event",
    "store_asset_check_event",
    "store_asset_event",
    "store_asset_event_tags",
)
"""The parts of Dagster's `store_event` in SQLite, which have no underscore and no documentation."""

PendingEvents = list[tuple["Batches", dg.EventLogEntry]]
Connections = Mapping[str, sa.Connection]

_thread = threading.local()


@contextmanager
def batch_transaction() -> Iterator[None]:
    """Store the events of assets and checks of this thread's block together, at its end.

    The database is locked only while they are written. The events of a block that fails are stored
    too, because they have happened.
    """
    if _get_pending_events() is not None:
        yield
        return
    pending: PendingEvents = []
    _thread.pending = pending
    try:
        yield
    finally:
        _thread.pending = None
        _store_pending_events(pending)


def _get_pending_events() -> PendingEvents | None:
    return getattr(_thread, "pending", None)


def _store_pending_events(pending: PendingEvents) -> None:
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
        pending = _get_pending_events()
        if pending is not None and get_event_type(event) in BATCHED:
            pending.append((self, event))
            return
        if pending:
            _store_pending_events(pending)
        self.store_events(event.run_id, [event])

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events of one run immediately, in one transaction."""
        if pending := _get_pending_events():
            _store_pending_events(pending)
        with self.open_transaction(events[0].run_id):
            super().store_event_batch(events)  # type: ignore[misc]

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

    @abstractmethod
    def open_transaction(self, run_id: str) -> AbstractContextManager[None]:
        """Execute this thread's statements on a run's events in one transaction."""

    @abstractmethod
    def prepare(self) -> None:
        """Add the state of the connections to a storage that Dagster has created."""


@dataclass
class _SqliteFiles:
    """The open files of one storage."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    engines: dict[str, sa.Engine] = field(default_factory=dict[str, sa.Engine])
    tables: dict[str, bool] = field(default_factory=dict[str, bool])
    in_transaction: threading.local = field(default_factory=threading.local)

    def close(self) -> None:
        """Close all files; the last process to close a file merges its write-ahead log."""
        with self.lock:
            for engine in self.engines.values():
                engine.dispose()
            self.engines.clear()


class SqliteBatches(Batches):
    """Dagster's SQLite event log, with files that stay open.

    Dagster creates an engine for every event and so closes the file each time, which merges the
    write-ahead log.
    """

    grouped = Batches.grouped | {DagsterEventType.ASSET_MATERIALIZATION_PLANNED}

    def prepare(self) -> None:
        """Add the set of open files."""
        self._files = _SqliteFiles()

    @contextmanager
    def open_transaction(self, run_id: str) -> Iterator[None]:
        """Execute this thread's statements on the run's file and the index in one transaction."""
        if self._connections():
            yield
            return
        with self._files.lock, ExitStack() as stack:
            connections = {}
            for shard in (INDEX, run_id):  # The last one is committed first, as in Dagster.
                connection = stack.enter_context(self._get_engine(shard).connect())
                stack.enter_context(connection.begin())
                connections[shard] = connection
            self._files.in_transaction.connections = connections
            try:
                yield
            finally:
                self._files.in_transaction.connections = None
        # Dagster's watcher waits for a change of the run's file, which events in the write-ahead
        # log do not cause.
        with suppress(FileNotFoundError):  # The history was wiped meanwhile.
            os.utime(self.path_for_shard(run_id))  # type: ignore[attr-defined]

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events of one run immediately, in one transaction."""
        if pending := _get_pending_events():
            _store_pending_events(pending)
        self.store_events(events[0].run_id, events)

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
        tables = self._files.tables
        if not tables.get(table_name):
            tables[table_name] = super().has_table(table_name)  # type: ignore[misc]
        return tables[table_name]

    def wipe(self) -> None:
        """Remove all events, and the files of runs."""
        self._files.close()
        super().wipe()  # type: ignore[misc]

    def dispose(self) -> None:
        """Close the files."""
        self._files.close()
        super().dispose()  # type: ignore[misc]

    def _connections(self) -> Connections | None:
        return getattr(self._files.in_transaction, "connections", None)

    @contextmanager
    def _connection(self, shard: str) -> Iterator[sa.Connection]:
        connections = self._connections() or {}
        if shard in connections:
            yield connections[shard]
            return
        with (
            self._files.lock,
            self._get_engine(shard).connect() as connection,
            connection.begin(),
        ):
            yield connection

    def _get_engine(self, shard: str) -> sa.Engine:
        engines = self._files.engines
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


class PostgresBatches(Batches):
    """Dagster's Postgres event log, with one connection for each group of events."""

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


BATCHES: Mapping[str, type[Batches]] = {
    "SqliteEventLogStorage": SqliteBatches,
    "PostgresEventLogStorage": PostgresBatches,
}
"""The additions to each of Dagster's classes, by name."""
IS_SUPPORTED: Mapping[str, Callable[[object], bool]] = {
    "SqliteEventLogStorage": lambda storage: (
        SQLITE_EVENT_LOG.find() is not None
        and all(hasattr(storage, method) for method in STORE_METHODS)
    ),
    "PostgresEventLogStorage": POSTGRES_CONNECT.is_on,
}
"""Whether the installed Dagster still has the private names that the batches need."""


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
    if not IS_SUPPORTED[name](storage):
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
