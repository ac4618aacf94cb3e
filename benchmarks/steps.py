"""What Dagster's event log says of a run: how long each step took, and what came before and after.

Read straight from the SQLite files of a DAGSTER_HOME: importing Dagster would make the measuring
process too large (see `measure`).
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
    """Ids of the newest runs."""
    newest = "SELECT run_id FROM runs ORDER BY id DESC LIMIT ?"
    with closing(_open(dagster_home / "history" / "runs.db")) as runs:
        return [str(run_id) for (run_id,) in runs.execute(newest, (count,))]


def durations(dagster_home: Path, run: str, began: float, ended: float) -> dict[str, float]:
    """Seconds of each step of a run, by step key, in order.

    `began` and `ended` are when its process ran, in seconds since 1970: what of that lies outside
    the steps is imports, Dagster's definitions, the plan and the end of the process. A step that
    stores something is told in two parts, `<step>` up to the stored output and `<step>: checks`.
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
            # Checks have outputs too: the first is the asset's own.
            stored.setdefault(key, at)
        elif kind in END:
            ends[key] = at
    found = {BEFORE: min(starts.values()) - began}
    for key, start in starts.items():
        middle = stored.get(key, ends[key])
        found[key] = middle - start
        found[f"{key}: checks"] = ends[key] - middle
    found[AFTER] = ended - max(ends.values())
    return found


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)
