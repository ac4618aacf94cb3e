"""Dagster's history, pruned: runs, their logs and ticks go, what they recorded of assets stays.

Dagster's `delete_run` deletes a run's materializations with it, and with them the partitions'
status. Here the records of assets are kept: materializations, observations and the latest result of
each check of each partition. So is a failed run for as long as a partition stands as failed because
of it. `defs/automation` decides when.
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

from taxi_assets.dagster_internals.event_log import unwrapped
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
"""States of a backfill that the daemon has still to work on."""
KEPT_EVENTS = [
    DagsterEventType.ASSET_MATERIALIZATION.value,
    DagsterEventType.ASSET_OBSERVATION.value,
]
PLANNED = "PLANNED"
"""State of a check that a run was to evaluate and did not."""
PAGE = 100
"""Runs read at once."""
MAX_FREE_SHARE = 0.25
"""Of a SQLite file; past it, the file is written again without its free pages."""


def prune_history(instance: dg.DagsterInstance, before: datetime, seconds: float = 30) -> int:
    """Delete runs that ended before a time, their logs, ticks and backfills; returns how many runs.

    Ends after some `seconds`, the oldest runs first; what is left waits for the next call. A call
    that was killed is completed by the next one: a run's own row goes last.
    """
    deadline = time.monotonic() + seconds
    pruned = 0
    for run_ids in _old_runs(instance, before):
        if run_ids and not _prune_events(instance, run_ids):
            return pruned
        for run_id in run_ids:
            instance.compute_log_manager.delete_logs(prefix=[run_id])
            instance.run_storage.delete_run(run_id)
        pruned += len(run_ids)
        if time.monotonic() > deadline:
            break
    _delete_files(instance, before)
    _purge_ticks(instance, before)
    _delete_backfills(instance, before)
    if pruned:
        _compact(instance)
    return pruned


def is_backfill_open(instance: dg.DagsterInstance) -> bool:
    """Return whether the daemon has a backfill to work on."""
    table = BACKFILLS_TABLE.find()
    if table is None:
        return False
    storage: Any = instance.run_storage
    query = sa.select(table.c.id).where(table.c.status.in_(OPEN_BACKFILLS)).limit(1)
    with storage.connect() as connection:
        return connection.execute(query).first() is not None


def _old_runs(instance: dg.DagsterInstance, before: datetime) -> Iterator[list[str]]:
    """Yield pages of runs that may go, the oldest first."""
    kept: set[str] = set()
    filters = dg.RunsFilter(statuses=FINISHED_RUNS, updated_before=before)
    while True:
        records = instance.get_run_records(filters, limit=PAGE + len(kept), ascending=True)
        runs = [record.dagster_run for record in records if record.dagster_run.run_id not in kept]
        if not runs:
            return
        failed = [run.run_id for run in runs if run.status == dg.DagsterRunStatus.FAILURE]
        kept |= _standing_failures(instance, failed)
        yield [run.run_id for run in runs if run.run_id not in kept]


def _standing_failures(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> set[str]:
    """Return the failed runs that were the last to be asked for one of their partitions."""
    table = EVENTS_TABLE.find()
    if table is None or not run_ids:
        return set()
    planned, later = table.alias(), table.alias()
    attempts = [
        DagsterEventType.ASSET_MATERIALIZATION.value,
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
    ]
    superseded = (
        sa.select(later.c.id)
        .where(
            later.c.asset_key == planned.c.asset_key,
            later.c.dagster_event_type.in_(attempts),
            sa.or_(
                later.c.partition == planned.c.partition,
                sa.and_(later.c.partition.is_(None), planned.c.partition.is_(None)),
            ),
            later.c.id > planned.c.id,
        )
        .exists()
    )
    query = sa.select(planned.c.run_id.distinct()).where(
        planned.c.run_id.in_(run_ids),
        planned.c.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
        ~superseded,
    )
    with unwrapped(instance.event_log_storage).index_connection() as connection:
        return set(connection.execute(query).scalars())


def _prune_events(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> bool:
    """Delete what runs logged but for the records of assets; false if the tables are unknown."""
    events, checks = EVENTS_TABLE.find(), CHECKS_TABLE.find()
    if events is None or checks is None:
        return False
    later = checks.alias()
    has_later_result = (
        sa.select(later.c.id)
        .where(
            later.c.asset_key == checks.c.asset_key,
            later.c.check_name == checks.c.check_name,
            sa.or_(
                later.c.partition == checks.c.partition,
                sa.and_(later.c.partition.is_(None), checks.c.partition.is_(None)),
            ),
            later.c.execution_status != PLANNED,
            later.c.id > checks.c.id,
        )
        .exists()
    )
    with unwrapped(instance.event_log_storage).index_connection() as connection:
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
                    events.c.dagster_event_type.not_in(KEPT_EVENTS),
                ),
            )
        )
    return True


def _delete_files(instance: dg.DagsterInstance, before: datetime) -> None:
    """Delete the files of runs that are gone, of a storage that has one for each.

    The index has the records of assets, too. A page that asks for the steps of a deleted run makes
    its file again, empty: those go as well.
    """
    storage = unwrapped(instance.event_log_storage)
    if not storage.is_run_sharded:
        return
    existing = set(instance.get_run_ids())
    for run_id in storage.get_all_run_ids():
        path = Path(storage.path_for_shard(run_id))
        if run_id and run_id not in existing and path.stat().st_mtime < before.timestamp():
            for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
                file.unlink(missing_ok=True)


def _purge_ticks(instance: dg.DagsterInstance, before: datetime) -> None:
    """Delete old ticks; the latest of a schedule stays, from which the daemon goes on."""
    for state in instance.all_instigator_state():
        origin, selector = state.instigator_origin_id, state.selector_id
        for latest in instance.get_ticks(origin, selector, limit=1):
            until = min(before.timestamp(), latest.timestamp)
            instance.purge_ticks(origin, selector, before=until)


def _delete_backfills(instance: dg.DagsterInstance, before: datetime) -> None:
    table = BACKFILLS_TABLE.find()
    if table is None:
        return
    storage: Any = instance.run_storage
    with storage.connect() as connection:
        connection.execute(
            table.delete().where(
                table.c.status.not_in(OPEN_BACKFILLS),
                table.c.timestamp < before.astimezone(UTC).replace(tzinfo=None),
            )
        )


def _compact(instance: dg.DagsterInstance) -> None:
    """Give the free pages of Dagster's index back, unless another process is at work on it."""
    storage = unwrapped(instance.event_log_storage)
    if not storage.is_run_sharded:
        return  # Postgres reuses and vacuums by itself
    with closing(sqlite3.connect(storage.path_for_shard("index"), timeout=1)) as connection:
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        if free > MAX_FREE_SHARE * pages:
            with suppress(sqlite3.OperationalError):  # locked: the pages are reused
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
