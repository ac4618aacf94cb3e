"""Cheap runs: the events of a real one, copied to other days."""

from __future__ import annotations

import uuid
from datetime import date, timedelta
from pathlib import Path

import dagster as dg

from taxi_assets.dagster_internals.event_log import batch_transaction

FIRST = date(2000, 1, 1)


def copy_run(instance: dg.DagsterInstance, run_id: str, day: str, number: int) -> str:
    """Store a run and all that it logged once more, as a run of another day; returns its id."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    new_id, new_day = str(uuid.uuid4()), str(FIRST + timedelta(days=number))

    def copied(stored: str) -> str:
        return stored.replace(run_id, new_id).replace(day, new_day)

    new_run = dg.deserialize_value(copied(dg.serialize_value(run)), dg.DagsterRun)
    instance.add_run(new_run)
    with batch_transaction():
        for entry in instance.all_logs(run_id):
            event = dg.deserialize_value(copied(dg.serialize_value(entry)), dg.EventLogEntry)
            instance.handle_new_event(event)
    return new_id


def folder_bytes(folder: Path) -> int:
    """What all files of a folder take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
