"""Store pictures and tables once in Dagster's SQLite files, in small pages.

Dagster's SQLite event log stores each asset event twice: in the run's own file, and in the index of
all runs, which the asset's pages read. Here the run's file refers to the index for long values of a
materialization, and a reader of the run gets them from the index. With Dagster's own class, a run's
page shows the reference and the asset's page the value. The index has check results in a table of
their own, so its copy of their events, which nothing reads, is emptied. `event_batches.py` decides
when events are stored.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster import DagsterEventType

from taxi_assets.dagster_internals.private_names import EVENTS_TABLE

MAX_VALUE = 1000
"""Characters of a serialized metadata value above which a run's file refers to the index."""
ELSEWHERE = "In the record of the asset: Catalog, the asset, its partition."
PAGE_BYTES = 1024
"""Of new files. A run's file has 25 tables and indexes, most of a page or none: 105 of the 418 kB
that a day took with SQLite's 4,096."""

CHECKS = (
    DagsterEventType.ASSET_CHECK_EVALUATION,
    DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
)
Connect = Callable[[], AbstractContextManager[sa.Connection]]


def shorten_materialization(event: dg.EventLogEntry, insert: sa.Insert) -> sa.Insert:
    """Return the statement that inserts an event, of a materialization without its long values."""
    if get_event_type(event) != DagsterEventType.ASSET_MATERIALIZATION:
        return insert
    stored = json.loads(insert.compile().params["event"])
    try:
        entries = stored["dagster_event"]["event_specific_data"]["materialization"][
            "metadata_entries"
        ]
        long = [one for one in entries if len(json.dumps(one["entry_data"])) > MAX_VALUE]
    except (KeyError, TypeError):  # another version of Dagster stores it differently
        return insert
    for one in long:
        one["entry_data"] = {"__class__": "TextMetadataEntryData", "text": ELSEWHERE}
    return insert.values(event=json.dumps(stored)) if long else insert


def build_mirrored_check(insert: sa.Insert, event: dg.EventLogEntry) -> sa.Insert:
    """Return the statement that inserts an empty copy of a check's event."""
    empty = event._replace(dagster_event=None, user_message="")
    return insert.values(event=dg.serialize_value(empty))


def read_long_values(page: Any, connect_to_index: Connect) -> Any:
    """Return a page of a run's records with the long values from the index."""
    short = [one.event_log_entry for one in page.records if _is_short(one.event_log_entry)]
    if not short:
        return page
    full = _read_full_events(short, connect_to_index)
    records = [
        one._replace(event_log_entry=full.get(_identify(one.event_log_entry), one.event_log_entry))
        for one in page.records
    ]
    return page._replace(records=records)


def make_file(path: Path) -> None:
    """Create an empty file with small pages if it does not exist."""
    if not path.exists():
        with closing(sqlite3.connect(path, timeout=60)) as connection:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("VACUUM")


def remake_empty_file(path: Path) -> None:
    """Give the index of a new instance small pages, unless another process uses it."""
    with closing(sqlite3.connect(path, timeout=1)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        if size == PAGE_BYTES or connection.execute("SELECT 1 FROM event_logs LIMIT 1").fetchone():
            return
        with suppress(sqlite3.OperationalError):  # locked
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("VACUUM")
        connection.execute("PRAGMA journal_mode = WAL")


def get_event_type(event: dg.EventLogEntry) -> DagsterEventType | None:
    """Return the type of an event; None for a log line."""
    return event.dagster_event.event_type if event.dagster_event else None


def _is_short(event: dg.EventLogEntry) -> bool:
    if get_event_type(event) != DagsterEventType.ASSET_MATERIALIZATION:
        return False
    materialization = event.asset_materialization
    return materialization is not None and any(
        value.value == ELSEWHERE for value in materialization.metadata.values()
    )


def _read_full_events(
    short: Sequence[dg.EventLogEntry], connect_to_index: Connect
) -> dict[tuple[Any, ...], dg.EventLogEntry]:
    """Return the index's events of the same run, assets and partitions."""
    table = EVENTS_TABLE.find()
    if table is None:
        return {}
    events = [one.get_dagster_event() for one in short]
    query = sa.select(table.c.event).where(
        table.c.run_id == short[0].run_id,
        table.c.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION.value,
        table.c.asset_key.in_({one.asset_key.to_string() for one in events if one.asset_key}),
    )
    partitions = {one.partition for one in events}
    if None not in partitions:
        query = query.where(table.c.partition.in_(partitions))
    with connect_to_index() as connection:
        stored = connection.execute(query).scalars().all()
    found = [dg.deserialize_value(text, dg.EventLogEntry) for text in stored]
    return {_identify(one): one for one in found}


def _identify(event: dg.EventLogEntry) -> tuple[Any, ...]:
    kind = event.get_dagster_event() if event.dagster_event else None
    return (kind.asset_key, kind.partition, event.timestamp) if kind else (event.timestamp,)
