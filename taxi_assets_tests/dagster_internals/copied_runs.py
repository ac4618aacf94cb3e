"""Cheap runs: the events of a real one, copied to other days."""

from __future__ import annotations

import uuid
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg

from taxi_assets.dagster_internals.event_log import batch_transaction

FIRST = date(2023, 1, 1)
NEW_YORK = ZoneInfo("America/New_York")


def copy_run(instance: dg.DagsterInstance, run_id: str, day: str, number: int) -> str:
    """Store a run and all that it logged once more, as a run of another day; returns its id."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    new_id, new_day = str(uuid.uuid4()), str(FIRST + timedelta(days=number))
    changes = {run_id: new_id, day: new_day, **_window(day, new_day)}

    def copied(stored: str) -> str:
        for old, new in changes.items():
            stored = stored.replace(old, new)
        return stored

    new_run = dg.deserialize_value(copied(dg.serialize_value(run)), dg.DagsterRun)
    instance.add_run(new_run)
    with batch_transaction():
        for entry in instance.all_logs(run_id):
            event = dg.deserialize_value(copied(dg.serialize_value(entry)), dg.EventLogEntry)
            instance.handle_new_event(event)
    return new_id


def _window(day: str, new_day: str) -> dict[str, str]:
    """The seconds at which the days begin and end, by which Dagster names a planned partition."""
    found = {}
    for after in (0, 1):
        old, new = (
            datetime.combine(date.fromisoformat(one) + timedelta(after), datetime.min.time())
            for one in (day, new_day)
        )
        found[str(old.replace(tzinfo=NEW_YORK).timestamp())] = str(
            new.replace(tzinfo=NEW_YORK).timestamp()
        )
    return found


def folder_bytes(folder: Path) -> int:
    """What all files of a folder take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
