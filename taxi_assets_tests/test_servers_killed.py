"""A run survives killed servers of the embedded stack, or the next run recovers."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from taxi_assets.local.process import wait_until
from taxi_assets.local.state_directory import StateDirectory
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.processes import start_job

GREEN = SERVICES["green"]
DAYS = ("2021-10-04", "2021-10-06")


@pytest.fixture
def own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a separate TAXI_HOME whose servers may be killed."""
    folder = Path(tempfile.mkdtemp(prefix="taxi-killed-"))
    folder.chmod(0o755)
    monkeypatch.setenv("TAXI_HOME", str(folder / "taxi"))
    try:
        yield folder / "taxi"
    finally:
        subprocess.run([sys.executable, "-m", "taxi_assets.local", "down"], check=True)
        shutil.rmtree(folder)


@dataclass(frozen=True)
class NewRun:
    """The next run's own event log."""

    folder: Path
    known: frozenset[Path]

    @classmethod
    def next(cls) -> NewRun:
        folder = Path(os.environ["DAGSTER_HOME"], "history", "runs")
        return cls(folder, frozenset(folder.glob("*.db")))

    def has_begun(self, step: str) -> bool:
        for path in set(self.folder.glob("*.db")) - self.known:
            with (
                suppress(sqlite3.OperationalError),  # its table is not there yet
                closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as log,
            ):
                query = "SELECT 1 FROM event_logs WHERE step_key = ? AND dagster_event_type = ?"
                return log.execute(query, [step, "STEP_START"]).fetchone() is not None
        return False


def test_next_run_recovers_from_killed_servers(own_home: Path, tmp_path: Path) -> None:
    log = tmp_path / "runs.log"

    def run(victim: str = "", step: str = "") -> int | None:
        """Run over the days; when the step begins, the supervisor or a server dies."""
        stores.stack()
        record = StateDirectory(own_home).record()
        pids = {name: server.pid for name, server in record.servers.items()}
        new = NewRun.next()
        process = start_job("green", *DAYS, log)
        if victim:
            assert wait_until(lambda: new.has_begun(step), 300)
            os.kill({**pids, "supervisor": record.supervisor}[victim], signal.SIGKILL)
        process.join(300)
        return process.exitcode

    assert run() == 0, log.read_text()[-3000:]
    rows = stores.store_rows(GREEN)
    for victim in ("postgres", "bigquery", "supervisor"):
        step = "green__postgres_trips" if victim == "supervisor" else f"green__{victim}_trips"
        code = run(victim, step)
        # Its own retries may have repaired it.
        assert code == 0 or run() == 0, log.read_text()[-3000:]
        stores.stack()
        for store, frame in stores.store_rows(GREEN).items():
            assert frame.equals(rows[store]), (victim, store)
