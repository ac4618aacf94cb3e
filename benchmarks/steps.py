"""Read from Dagster's event log how long each step of a run took, and the time before and after.

It reads the SQLite files of a DAGSTER_HOME directly, because importing Dagster would make the
measuring process too large (see `measure`).
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

START, END = "STEP_START", ("STEP_SUCCESS", "STEP_FAILURE")
STORED = "HANDLED_OUTPUT"
BEFORE, AFTER = "before the first step", "after the last step"


def last_runs(dagster_home: Path, count: int) -> list[str]:
    """Return the ids of the newest runs."""
    newest = "SELECT run_id FROM runs ORDER BY id DESC LIMIT ?"
    with closing(_open(dagster_home / "history" / "runs.db")) as runs:
        return [str(run_id) for (run_id,) in runs.execute(newest, (count,))]


def durations(dagster_home: Path, run: str, began: float, ended: float) -> dict[str, float]:
    """Return the seconds of each step of a run, by step key, in order.

    `began` and `ended` are the start and end of its process, in seconds since 1970. The time before
    and after the steps is imports, Dagster's definitions, the plan and the end of the process. A
    step that stores an output has two entries: `<step>` up to the stored output, `<step>: checks`.
    """
    path = dagster_home / "history" / "runs" / f"{run}.db"
    with closing(_open(path)) as log:
        rows = log.execute(
            "SELECT step_key, dagster_event_type, timestamp FROM event_logs"
            " WHERE step_key IS NOT NULL AND dagster_event_type IS NOT NULL ORDER BY id"
        ).fetchall()
    starts: dict[str, float] = {}
    stored: dict[str, float] = {}
    ends: dict[str, float] = {}
    for key, kind, text in rows:
        at = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
        if kind == START:
            starts[key] = at
        elif kind == STORED:
            # Checks have outputs too; the first one is the asset's.
            stored.setdefault(key, at)
        elif kind in END:
            ends[key] = at
    seconds = {BEFORE: min(starts.values()) - began}
    for key, start in starts.items():
        middle = stored.get(key, ends[key])
        seconds[key] = middle - start
        seconds[f"{key}: checks"] = ends[key] - middle
    seconds[AFTER] = ended - max(ends.values())
    return seconds


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)
