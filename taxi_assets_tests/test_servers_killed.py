"""Servers of the embedded stack killed under a run: nothing is lost, the next one recovers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from taxi_assets.local.home import Home
from taxi_assets.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.processes import start_job
from taxi_assets_tests.signs import Aim, Signs, watched

GREEN = SERVICES["green"]
DAYS = ("2021-10-04", "2021-10-06")


@pytest.fixture
def own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A TAXI_HOME whose servers may be killed: those of other tests live elsewhere."""
    folder = Path(tempfile.mkdtemp(prefix="taxi-killed-"))
    folder.chmod(0o755)
    monkeypatch.setenv("TAXI_HOME", str(folder / "taxi"))
    try:
        yield folder / "taxi"
    finally:
        subprocess.run([sys.executable, "-m", "taxi_assets.local", "down"], check=True)
        shutil.rmtree(folder)


def test_the_next_run_recovers_from_servers_that_were_killed(
    own_home: Path, tmp_path: Path
) -> None:
    log, signs = tmp_path / "runs.log", Signs()

    def run(victim: str = "", aim: Aim | None = None) -> int | None:
        """Run over the days; when the aim is met, the keeper or a server dies."""
        stores.stack()
        record = Home(own_home).record()
        assert record
        pids = {name: server.pid for name, server in record.servers.items()}
        signs.watch({**pids, "keeper": record.keeper}.get(victim), aim)
        process = start_job("green", *DAYS, log)
        process.join(300)
        return process.exitcode

    events = Path(os.environ["DAGSTER_HOME"], "history", "runs", "index.db-wal")
    with watched(signs, own_home / "lake" / "taxi" / "_tmp", events):
        assert run() == 0, log.read_text()[-3000:]
        rows = stores.store_rows(GREEN)
        length = signs.seen["event log"]
        # Of the events half are there when Postgres begins, two thirds when BigQuery does.
        for victim, share in (("postgres", 0.5), ("bigquery", 0.7), ("keeper", 0.6)):
            code = run(victim, Aim("event log", int(length * share), after=True))
            assert signs.hit, victim
            # Its own retries may have mended it.
            assert code == 0 or run() == 0, log.read_text()[-3000:]
            for store, frame in stores.store_rows(GREEN).items():
                assert frame.equals(rows[store]), (victim, store)
