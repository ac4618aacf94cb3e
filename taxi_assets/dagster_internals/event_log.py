"""Dagster's event logs, with a stage's records written in one transaction.

A month's run logs 155 materializations and 403 check results, and Dagster connects to the database
two or three times for each. What a thread logs of assets and checks in a `batch_transaction` is
stored at the end of the block over one connection. Every other event is stored at once, after those
that wait, so that a run's page follows a long stage. What an event writes is Dagster's own code:
only connections and transactions are ours. Files and tables are Dagster's, and its own classes read
and write them at the same time. `instance` puts these classes in place.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster import DagsterEventType
from sqlalchemy.pool import QueuePool

from taxi_assets.dagster_internals.private_names import POSTGRES_CONNECT, SQLITE_EVENT_LOG

INDEX = "index"
"""Name of the SQLite file that holds the events of assets and checks of all runs."""
MAX_ENGINES = 8
"""SQLite files that stay open: the index and the latest runs'."""
BUSY_SECONDS = 60
"""For which a process waits for another one's lock on a SQLite file, as Dagster does."""
BATCHED = {
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    DagsterEventType.ASSET_OBSERVATION,
    DagsterEventType.ASSET_CHECK_EVALUATION,
    DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
}
"""Events that may wait for the end of a block."""

Waiting = list[tuple["Batches", dg.EventLogEntry]]
Connections = Mapping[str, sa.Connection]

_thread = threading.local()


@contextmanager
def batch_transaction() -> Iterator[None]:
    """Store what this thread logs of assets and checks in the block in one go at its end.

    The database is locked only while it is written. The events of a block that fails are stored,
    too: what they say has happened.
    """
    if _waiting() is not None:
        yield
        return
    waiting: Waiting = []
    _thread.waiting = waiting
    try:
        yield
    finally:
        _thread.waiting = None
        _store(waiting)


def _waiting() -> Waiting | None:
    return getattr(_thread, "waiting", None)


def _store(waiting: Waiting) -> None:
    """Store events in their order.

    A transaction covers the events of one asset of one run: two runs that each lock several rows of
    Dagster's table of assets could wait for each other for ever.
    """
    for (storage, run_id, _), group in groupby(list(waiting), key=_one_transaction):
        events = [event for _, event in group]
        storage.store_now(run_id, events)
        del waiting[: len(events)]  # what is stored is not stored again if the next one fails


def _one_transaction(one: tuple[Batches, dg.EventLogEntry]) -> tuple[Batches, str, str]:
    storage, event = one
    return storage, event.run_id, str(event.get_dagster_event().asset_key)


class Batches:
    """What both event logs add to Dagster's class, which comes after this one in the MRO."""

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event of an asset or a check with the thread's block, every other one now."""
        waiting = _waiting()
        kind = event.dagster_event.event_type if event.dagster_event else None
        if waiting is not None and kind in BATCHED:
            waiting.append((self, event))
            return
        if waiting:
            _store(waiting)
        self.store_now(event.run_id, [event])

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events of one run now, in one transaction."""
        if waiting := _waiting():
            _store(waiting)
        with self.open_transaction(events[0].run_id):
            super().store_event_batch(events)  # type: ignore[misc]

    def store_now(self, run_id: str, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events of a run as Dagster does, all over the same connection."""
        with self.open_transaction(run_id):
            for event in events:
                super().store_event(event)  # type: ignore[misc]

    def open_transaction(self, run_id: str) -> AbstractContextManager[None]:
        """Have all that this thread does with a run's events be one transaction."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Add what the connections need to a storage that Dagster has made."""
        raise NotImplementedError


@dataclass
class _SqliteFiles:
    """The open files of one storage."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    engines: dict[str, sa.Engine] = field(default_factory=dict[str, sa.Engine])
    tables: dict[str, bool] = field(default_factory=dict[str, bool])
    in_transaction: threading.local = field(default_factory=threading.local)

    def close(self) -> None:
        """Close all files; the last one to close a file moves its write-ahead log into it."""
        with self.lock:
            for engine in self.engines.values():
                engine.dispose()
            self.engines.clear()


class SqliteBatches(Batches):
    """Dagster's SQLite event log, whose files stay open.

    Dagster makes an engine for every event, and so closes the file each time, which moves the
    write-ahead log into it.
    """

    def prepare(self) -> None:
        """Add the set of open files."""
        self._files = _SqliteFiles()

    @contextmanager
    def open_transaction(self, run_id: str) -> Iterator[None]:
        """Have all that this thread does with the run's file and the index be one transaction."""
        if self._connections():
            yield
            return
        with self._files.lock, ExitStack() as stack:
            connections = {}
            for shard in (INDEX, run_id):  # the last one is committed first, as Dagster does
                connection = stack.enter_context(self._file_engine(shard).connect())
                stack.enter_context(connection.begin())
                connections[shard] = connection
            self._files.in_transaction.connections = connections
            try:
                yield
            finally:
                self._files.in_transaction.connections = None
        # Dagster's watcher waits for a change of the run's file, and events in the write-ahead log
        # do not change it.
        with suppress(FileNotFoundError):  # history was wiped meanwhile
            os.utime(self.path_for_shard(run_id))  # type: ignore[attr-defined]

    def run_connection(self, run_id: str = "") -> AbstractContextManager[sa.Connection]:
        """Return the connection to a run's file."""
        return self._connection(run_id)

    def index_connection(self) -> AbstractContextManager[sa.Connection]:
        """Return the connection to the file of all runs."""
        return self._connection(INDEX)

    def has_table(self, table_name: str) -> bool:
        """Return whether the index has a table; asked once, not for every check result."""
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
            self._file_engine(shard).connect() as connection,
            connection.begin(),
        ):
            yield connection

    def _file_engine(self, shard: str) -> sa.Engine:
        engines = self._files.engines
        if shard not in engines:
            parent: Any = super()
            with parent.run_connection(shard):  # makes the file and its tables
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
        return engines[shard]


class PostgresBatches(Batches):
    """Dagster's Postgres event log, which connects once for each group of events."""

    def prepare(self) -> None:
        """Add the place of a thread's connection."""
        self._in_transaction = threading.local()

    @contextmanager
    def open_transaction(self, run_id: str) -> Iterator[None]:
        """Have all that this thread does with events be one transaction."""
        del run_id
        if self._own_connection() is not None:
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

    def _own_connection(self) -> sa.Connection | None:
        return getattr(self._in_transaction, "connection", None)

    def _connect(self) -> AbstractContextManager[sa.Connection]:
        connection = self._own_connection()
        if connection is not None:
            return nullcontext(connection)
        parent: Any = super()
        result: AbstractContextManager[sa.Connection] = parent._connect()  # noqa: SLF001
        return result


BATCHES: Mapping[str, type[Batches]] = {
    "SqliteEventLogStorage": SqliteBatches,
    "PostgresEventLogStorage": PostgresBatches,
}
"""What one of Dagster's classes gets, by its name."""
IS_POSSIBLE: Mapping[str, Callable[[object], bool]] = {
    "SqliteEventLogStorage": lambda _: SQLITE_EVENT_LOG.find() is not None,
    "PostgresEventLogStorage": POSTGRES_CONNECT.is_on,
}
"""Whether the installed Dagster still has what the batches lean on."""


def with_batches(storage: Any) -> Any:
    """Return Dagster's event log with batches, on the same state; others as they are.

    A storage that wraps one of Dagster's (OpenLineage, a metrics exporter) keeps its place: the one
    inside is replaced.
    """
    name = type(storage).__name__
    if name not in BATCHES:
        for attribute, inner in list(getattr(storage, "__dict__", {}).items()):
            if type(inner).__name__ in BATCHES:
                setattr(storage, attribute, with_batches(inner))
        return storage
    if not IS_POSSIBLE[name](storage):
        return storage
    replacement = batched_class(type(storage))
    batched = replacement.__new__(replacement)
    batched.__dict__ = storage.__dict__
    batched.prepare()
    return batched


def batched_class(stock: type) -> Any:
    """Return one of Dagster's event logs with batches, as a class."""
    return type(f"Batched{stock.__name__}", (BATCHES[stock.__name__], stock), {})


def unwrapped(storage: Any) -> Any:
    """Return Dagster's own event log, out of a storage that wraps it."""
    while not hasattr(storage, "index_connection"):
        inner = (value for value in vars(storage).values() if hasattr(value, "store_event"))
        storage = next(inner, None)
        if storage is None:
            raise TypeError("Dagster's event log is not in a database: its history is not pruned")
    return storage
