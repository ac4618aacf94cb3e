"""Cheap runs: the events of a real run, copied to other days."""

from __future__ import annotations

import uuid
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg

from taxi_assets.dagster_internals.event_batches import batch_transaction

FIRST = date(2023, 1, 1)
NEW_YORK = ZoneInfo("America/New_York")


def copy_run(instance: dg.DagsterInstance, run_id: str, day: str, number: int) -> str:
    """Store a run and its log once more, as a run of another day; return its id."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    new_id, new_day = str(uuid.uuid4()), str(FIRST + timedelta(days=number))
    changes = {run_id: new_id, day: new_day, **_map_window(day, new_day)}

    def replace_values(stored: str) -> str:
        for old_value, new_value in changes.items():
            stored = stored.replace(old_value, new_value)
        return stored

    new_run = dg.deserialize_value(replace_values(dg.serialize_value(run)), dg.DagsterRun)
    instance.add_run(new_run)
    with batch_transaction():
        for entry in instance.all_logs(run_id):
            event = dg.deserialize_value(
                replace_values(dg.serialize_value(entry)), dg.EventLogEntry
            )
            instance.handle_new_event(event)
    return new_id


def _map_window(day: str, new_day: str) -> dict[str, str]:
    """Map the seconds at which days begin and end, by which Dagster names a planned partition."""
    seconds = {}
    for offset in (0, 1):
        old, new = (
            datetime.combine(date.fromisoformat(date_key) + timedelta(offset), datetime.min.time())
            for date_key in (day, new_day)
        )
        seconds[str(old.replace(tzinfo=NEW_YORK).timestamp())] = str(
            new.replace(tzinfo=NEW_YORK).timestamp()
        )
    return seconds


def measure_folder(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
