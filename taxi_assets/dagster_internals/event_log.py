"""Dagster's SQLite event log, with a stage's records written in a few transactions.

A month's chunk logs some 560 events: five materializations and thirteen check results for each of
31 days. Dagster's own class makes a new engine and commits two or three times for every one (9 ms
an event, 5 s a month, more than moving the rows takes). This one keeps an engine for each file
and lets `record.py` put a stage's events of assets and checks into one transaction. All other
events are stored at once, after those that wait, so that a run's page follows a long stage.

Files and tables are Dagster's; its own class reads them. `instance.py` has Dagster use this one.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster import DagsterEventType
from dagster._core.events import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
)
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData
from sqlalchemy.pool import NullPool

MAX_OPEN_FILES = 8
"""Engines kept: the index and the latest runs'."""

BATCHED = {*ASSET_EVENTS, *ASSET_CHECK_EVENTS}
"""Events that may wait for the end of a transaction."""
MIRRORED = {*BATCHED, *EVENT_TYPE_TO_PIPELINE_RUN_STATUS}
"""Events that Dagster stores in its index of all runs, too."""

INSERT = SqlEventLogStorageTable.insert()
ONE_CHECK = ("asset_key", "check_name", "partition", "run_id")
"""What tells one row of Dagster's table of checks from another."""
DELETE_CHECK = AssetCheckExecutionsTable.delete().where(
    *(AssetCheckExecutionsTable.c[name].is_(sa.bindparam(name)) for name in ONE_CHECK)
)


@dataclass
class _Batch:
    """Events that wait for the end of a transaction, and their rows."""

    events: list[dg.EventLogEntry] = field(default_factory=list[dg.EventLogEntry])
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def add(self, event: dg.EventLogEntry, row: dict[str, Any]) -> None:
        """Note one more; its row is made at once, while the next day is on its way."""
        self.events.append(event)
        self.rows.append(row)


def _get_event_type(event: dg.EventLogEntry) -> DagsterEventType | None:
    return event.dagster_event.event_type if event.dagster_event else None


def _get_evaluation(
    event: dg.EventLogEntry, row: Mapping[str, Any], event_id: int
) -> dict[str, Any]:
    """What Dagster's table of checks says of an evaluation."""
    found = event.get_dagster_event().asset_check_evaluation_data
    target = found.target_materialization_data
    status = AssetCheckExecutionRecordStatus
    return {
        "asset_key": found.asset_key.to_string(),
        "check_name": found.check_name,
        "partition": found.partition,
        "run_id": event.run_id,
        "execution_status": (status.SUCCEEDED if found.passed else status.FAILED).value,
        "evaluation_event": row["event"],
        "evaluation_event_timestamp": row["timestamp"],
        "evaluation_event_storage_id": event_id,
        "materialization_event_storage_id": target.storage_id if target else None,
    }


class BatchedSqliteEventLogStorage(SqliteEventLogStorage):
    """Dagster's SQLite event log with `transaction()`."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: dict[str, sa.Engine] = {}
        self._idle: dict[str, sqlite3.Connection] = {}
        self._open: dict[str, sa.Connection] = {}
        self._thread = threading.local()
        super().__init__(base_dir, inst_data)
        self._db_lock = threading.RLock()  # type: ignore[assignment]
        # Has the instance hand over the 155 planned materializations of a month as batches.
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")

    @cached_property
    def supports_asset_checks(self) -> bool:
        """Whether the files have the table; asked of them once, not for every check."""
        return bool(super().supports_asset_checks)

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event of an asset or a check with this thread's transaction, others at once.

        What waits is stored before another event: a run's events keep their order.
        """
        batch = self._current_batch()
        if batch is not None and _get_event_type(event) in BATCHED:
            batch.add(event, self._event_to_row(event))
            return
        if batch is not None:
            self._write_batch(event.run_id, batch)
        self._hold_connection(event.run_id)
        super().store_event(event)
        self._wake_watchers(event.run_id)

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events of one run in one transaction."""
        with self.transaction(events[0].run_id):
            for event in events:
                self.store_event(event)

    @contextmanager
    def transaction(self, run_id: str) -> Iterator[None]:
        """Store what this thread logs of assets and checks together, at the latest at the end.

        The files are locked for the moment of writing alone, and the events of a block that fails
        are kept: what they say has happened.
        """
        if self._current_batch() is not None:
            yield
            return
        self._thread.batch = batch = _Batch()
        try:
            yield
        finally:
            self._thread.batch = None
            self._write_batch(run_id, batch)

    def _current_batch(self) -> _Batch | None:
        return getattr(self._thread, "batch", None)

    def _write_batch(self, run_id: str, batch: _Batch) -> None:
        """Do what `SqliteEventLogStorage.store_event` does for each event, for all at once."""
        if not batch.events:
            return
        self._hold_connection(run_id)
        with self._db_lock, ExitStack() as stack:
            for shard in (run_id, INDEX_SHARD_NAME):
                self._open[shard] = stack.enter_context(self._open_connection(shard))
                stack.callback(self._open.pop, shard)
            self._open[run_id].execute(INSERT, batch.rows)
            mirrored = [
                (event, row)
                for event, row in zip(batch.events, batch.rows, strict=True)
                if _get_event_type(event) in MIRRORED
            ]
            if mirrored:
                self._mirror_to_run_files(self._open[INDEX_SHARD_NAME], mirrored)
        batch.events.clear()
        batch.rows.clear()
        self._wake_watchers(run_id)

    def _hold_connection(self, run_id: str) -> None:
        """Keep the files open that this process writes.

        Whoever closes a file last moves its write-ahead log into it: not after every event.
        """
        with self._db_lock:
            for shard in (run_id, INDEX_SHARD_NAME):
                self._create_engine(shard)
                if shard not in self._idle:
                    path = self.path_for_shard(shard)
                    self._idle[shard] = sqlite3.connect(path, check_same_thread=False)
                    self._idle[shard].execute("PRAGMA schema_version").fetchall()

    def _wake_watchers(self, run_id: str) -> None:
        """Have the webserver read a run's new events.

        Dagster's watcher waits for a change of the run's file, and events that are in the
        write-ahead log do not change it.
        """
        with suppress(FileNotFoundError):  # history was wiped meanwhile
            os.utime(self.path_for_shard(run_id))

    def _mirror_to_run_files(
        self, index: sa.Connection, mirrored: Sequence[tuple[dg.EventLogEntry, dict[str, Any]]]
    ) -> None:
        """Store events in the index of all runs, too.

        Dagster notes an asset's latest event in a row of the asset there: the last of them is
        enough. For 31 days of five assets that alone saves 0.3 s.
        """
        with_ids = INSERT.returning(SqlEventLogStorageTable.c.id, sort_by_parameter_order=True)
        ids = index.execute(with_ids, [row for _, row in mirrored]).scalars().all()
        of_assets: dict[tuple[str, DagsterEventType], tuple[dg.EventLogEntry, int]] = {}
        tagged: list[tuple[dg.EventLogEntry, int]] = []
        checked: dict[tuple[str, ...], dict[str, Any]] = {}
        for (event, row), event_id in zip(mirrored, ids, strict=True):
            kind = _get_event_type(event)
            if kind in ASSET_EVENTS:
                tagged.append((event, event_id))
                key = (str(event.get_dagster_event().asset_key), kind)
                of_assets.pop(key, None)
                of_assets[key] = (event, event_id)
            elif kind == DagsterEventType.ASSET_CHECK_EVALUATION:
                found = _get_evaluation(event, row, event_id)
                checked[tuple(found[name] for name in ONE_CHECK)] = found
            elif kind in ASSET_CHECK_EVENTS:
                self.store_asset_check_event(event, event_id)
        if checked:
            # In place of the rows that say that they are planned.
            index.execute(DELETE_CHECK, list(checked.values()))
            index.execute(AssetCheckExecutionsTable.insert(), list(checked.values()))
        if tagged:
            self._store_asset_event_tags(index, *zip(*tagged, strict=True))
        for event, event_id in of_assets.values():
            self._store_asset_event(index, event, event_id)

    @contextmanager
    def _open_connection(self, shard: str) -> Iterator[sa.Connection]:
        with self._db_lock:
            if shard in self._open:
                yield self._open[shard]
                return
            with self._create_engine(shard).connect() as connection, connection.begin():
                yield connection

    def _create_engine(self, shard: str) -> sa.Engine:
        if shard not in self._engines:
            if len(self._engines) >= MAX_OPEN_FILES:
                oldest = next(iter(self._engines))
                self._engines.pop(oldest).dispose()
                if idle := self._idle.pop(oldest, None):
                    idle.close()
            self._engines[shard] = sa.create_engine(
                self.conn_string_for_shard(shard),
                poolclass=NullPool,
                connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
            )
        engine = self._engines[shard]
        if shard not in self._initialized_dbs:
            self._initdb(engine)
            self._initialized_dbs.add(shard)
        return engine

    def dispose(self) -> None:
        """Close the files."""
        for idle in self._idle.values():
            idle.close()
        self._idle.clear()
        super().dispose()


@contextmanager
def batch_transaction(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Log everything in the block together, where the event log can."""
    storage = instance.event_log_storage
    if isinstance(storage, BatchedSqliteEventLogStorage):
        with storage.transaction(run_id):
            yield
    else:
        yield
