"""Prune Dagster's history: delete runs, their logs and ticks, but not the records of assets.

Dagster's `delete_run` also deletes a run's materializations, and with them the status of
partitions. This module retains the records of assets: materializations, observations and the latest
result of each check of each partition. It also retains a failed run as long as the status of a
partition depends on it. `defs/automation` decides when to prune.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster import DagsterEventType

from taxi_assets.dagster_internals.event_log import unwrap_event_log
from taxi_assets.dagster_internals.private_names import (
    BACKFILLS_TABLE,
    CHECKS_TABLE,
    EVENTS_TABLE,
)

FINISHED_RUNS = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]
OPEN_BACKFILLS = ("REQUESTED", "CANCELING", "FAILING")
"""States of a backfill that the daemon still has to process."""
RETAINED_EVENTS = [
    DagsterEventType.ASSET_MATERIALIZATION.value,
    DagsterEventType.ASSET_OBSERVATION.value,
]
PLANNED = "PLANNED"
"""State of a check that a run planned but did not evaluate."""
PAGE = 100
"""Number of runs read at once."""
MAX_FREE_SHARE = 0.1
"""Share of free pages above which a SQLite file is compacted."""


def prune_history(instance: dg.DagsterInstance, before: datetime, seconds: float = 30) -> int:
    """Delete runs that ended before a time, with logs, ticks and backfills; return their number.

    The oldest runs are deleted first, for about `seconds`; the next call continues. It also
    completes a call that was killed, because a run's own row is deleted last.
    """
    deadline = time.monotonic() + seconds
    pruned = 0
    tables = [name.find() for name in (EVENTS_TABLE, CHECKS_TABLE, BACKFILLS_TABLE)]
    if any(table is None for table in tables):
        return 0
    events, checks, backfills = tables
    storage = unwrap_event_log(instance.event_log_storage)
    for run_ids in _list_prunable_runs(instance, storage, events, before):
        _prune_events(storage, events, checks, run_ids)
        for run_id in run_ids:
            instance.compute_log_manager.delete_logs(prefix=[run_id])
            instance.run_storage.delete_run(run_id)
        pruned += len(run_ids)
        if time.monotonic() > deadline:
            break
    if storage.is_run_sharded:
        _delete_files(instance, storage, before)
    _purge_ticks(instance, before)
    _delete_backfills(instance, backfills, before)
    if pruned and storage.is_run_sharded:  # Postgres reuses free space by itself.
        _compact(storage.path_for_shard("index"))
    return pruned


def is_backfill_open(instance: dg.DagsterInstance) -> bool:
    """Return whether the daemon has a backfill to process."""
    table = BACKFILLS_TABLE.find()
    if table is None:
        return False
    storage: Any = instance.run_storage
    query = sa.select(table.c.id).where(table.c.status.in_(OPEN_BACKFILLS)).limit(1)
    with storage.connect() as connection:
        return connection.execute(query).first() is not None


def _list_prunable_runs(
    instance: dg.DagsterInstance, storage: Any, events: sa.Table, before: datetime
) -> Iterator[list[str]]:
    """Yield pages of runs that may be deleted, the oldest first."""
    retained: set[str] = set()
    filters = dg.RunsFilter(statuses=FINISHED_RUNS, updated_before=before)
    while True:
        records = instance.get_run_records(filters, limit=PAGE + len(retained), ascending=True)
        runs = [
            record.dagster_run for record in records if record.dagster_run.run_id not in retained
        ]
        if not runs:
            return
        failed = [run.run_id for run in runs if run.status == dg.DagsterRunStatus.FAILURE]
        retained |= _find_current_failures(storage, events, failed)
        yield [run.run_id for run in runs if run.run_id not in retained]


def _find_current_failures(storage: Any, events: sa.Table, run_ids: Sequence[str]) -> set[str]:
    """Return the failed runs that made the latest attempt at one of their partitions."""
    planned, later = events.alias(), events.alias()
    attempts = [
        DagsterEventType.ASSET_MATERIALIZATION.value,
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
    ]
    superseded = _has_later_row(planned, later, later.c.dagster_event_type.in_(attempts))
    query = sa.select(planned.c.run_id.distinct()).where(
        planned.c.run_id.in_(run_ids),
        planned.c.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
        ~superseded,
    )
    with storage.index_connection() as connection:
        return set(connection.execute(query).scalars())


def _has_later_row(rows: Any, later: Any, *conditions: Any) -> Any:
    """Build the condition that a later row has the same asset and partition, which may be null."""
    same_partition = sa.or_(
        later.c.partition == rows.c.partition,
        sa.and_(later.c.partition.is_(None), rows.c.partition.is_(None)),
    )
    same_asset = later.c.asset_key == rows.c.asset_key
    query = sa.select(later.c.id).where(same_asset, same_partition, later.c.id > rows.c.id)
    return query.where(*conditions).exists()


def _prune_events(storage: Any, events: sa.Table, checks: sa.Table, run_ids: Sequence[str]) -> None:
    """Delete the events of runs except the records of assets."""
    later = checks.alias()
    has_later_result = _has_later_row(
        checks,
        later,
        later.c.check_name == checks.c.check_name,
        later.c.execution_status != PLANNED,
    )
    with storage.index_connection() as connection:
        connection.execute(
            checks.delete().where(
                checks.c.run_id.in_(run_ids),
                sa.or_(checks.c.execution_status == PLANNED, has_later_result),
            )
        )
        connection.execute(
            events.delete().where(
                events.c.run_id.in_(run_ids),
                sa.or_(
                    events.c.dagster_event_type.is_(None),
                    events.c.dagster_event_type.not_in(RETAINED_EVENTS),
                ),
            )
        )


def _delete_files(instance: dg.DagsterInstance, storage: Any, before: datetime) -> None:
    """Delete the files of deleted runs.

    The index has the records of assets as well. A page that requests the steps of a deleted run
    creates an empty file, which is deleted too.
    """
    existing = set(instance.get_run_ids())
    for run_id in storage.get_all_run_ids():
        path = Path(storage.path_for_shard(run_id))
        if run_id and run_id not in existing and path.stat().st_mtime < before.timestamp():
            for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
                file.unlink(missing_ok=True)


def _purge_ticks(instance: dg.DagsterInstance, before: datetime) -> None:
    """Delete old ticks, except the latest of each schedule, from which the daemon continues."""
    for state in instance.all_instigator_state():
        origin, selector = state.instigator_origin_id, state.selector_id
        for latest in instance.get_ticks(origin, selector, limit=1):
            until = min(before.timestamp(), latest.timestamp)
            instance.purge_ticks(origin, selector, before=until)


def _delete_backfills(instance: dg.DagsterInstance, table: sa.Table, before: datetime) -> None:
    storage: Any = instance.run_storage
    with storage.connect() as connection:
        connection.execute(
            table.delete().where(
                table.c.status.not_in(OPEN_BACKFILLS),
                table.c.timestamp < before.astimezone(UTC).replace(tzinfo=None),
            )
        )


def _compact(path: str) -> None:
    """Compact Dagster's index, unless another process uses it."""
    with closing(sqlite3.connect(path, timeout=1)) as connection:
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        if free > MAX_FREE_SHARE * pages:
            with suppress(sqlite3.OperationalError):  # locked; the pages will be reused
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
