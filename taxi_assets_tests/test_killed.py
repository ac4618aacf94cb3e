"""A run that is killed at any point leaves complete days, and the next run completes the rest.

Each cycle publishes the month again, kills three runs over its days, and lets the fourth run to its
end; meanwhile a reader reads all stores. The kill points are events of an undisturbed run, of each
phase in turn (see `kill_points`). `KILLS` sets the number of kills (default two dozen), and with it
the time limit of the test.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from dagster import AssetKey, DagsterInstance

from taxi_assets.date_ranges import Month
from taxi_assets.defs.io_managers import restatement
from taxi_assets.defs.io_managers.sealed_objects import open_sealed_zstd
from taxi_assets.tlc.sample import write_sample_month
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.kill_points import (
    EventMonitor,
    KillPoint,
    find_phase,
    run_relays,
    watch_files,
)
from taxi_assets_tests.processes import start_job

GREEN = SERVICES["green"]
DAYS = ("2021-10-04", "2021-10-05", "2021-10-06")
KILLS = int(os.environ.get("KILLS", "24"))
KILLS_A_CYCLE = 3
SECONDS_A_KILL = 30
"""Including its share of undisturbed runs, on a busy machine; the limit of the suite is lower."""
ROWS = 40_000
"""Rows of the month: three days are 20 parts of a COPY, the file ten parts of a download."""
BUCKET = "killed"
Totals = dict[str, dict[date, tuple[int, float]]]


def read_totals() -> Totals:
    """Return rows and dollars of each day, by store; a store that does not exist has no days."""
    totals: Totals = {"postgres": {}, "lake": {}, "bigquery": {}}
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('ny_taxi.green_cab_data') IS NOT NULL")
        if cursor.fetchone() == (True,):
            cursor.execute(
                "SELECT lpep_pickup_datetime::date, count(*), sum(total_amount)"
                " FROM ny_taxi.green_cab_data GROUP BY 1"
            )
            totals["postgres"] = stores._round_totals(cursor.fetchall())
    # Opened once each: a DuckDB query opens a file twice and mixes the two when one is replaced.
    for path in (stores.lake() / "green").glob("*/*.parquet"):
        with pq.ParquetFile(path) as day:
            dollars = day.read(["total_amount"]).column(0)
        key = date.fromisoformat(path.parent.name.partition("=")[2])
        totals["lake"] |= stores._round_totals([(key, len(dollars), pc.sum(dollars).as_py())])
    client = stores.bigquery()
    if "green_cab_data" in {table.table_id for table in client.list_tables("ny_taxi")}:
        query = (
            "SELECT lpep_pickup_date, COUNT(*), SUM(total_amount)"
            " FROM ny_taxi.green_cab_data GROUP BY 1"
        )
        totals["bigquery"] = stores._round_totals(
            [tuple(row) for row in client.query(query).result()]
        )
    return totals


def hash_object(path: Path) -> str:
    """Return the SHA-256 of an object, for a raw object without the changes of its restatement."""
    content = path.read_bytes()
    if path.name.endswith(".csv.zst"):
        metadata, packed = open_sealed_zstd(pa.py_buffer(content))
        metadata.pop(restatement.RESTATEMENT, None)
        content = json.dumps(metadata, sort_keys=True).encode() + packed.to_pybytes()
    return hashlib.sha256(content).hexdigest()


@dataclass
class Snapshot:
    """The content of all stores after an undisturbed run."""

    totals: Totals
    rows: dict[str, pd.DataFrame]
    objects: dict[str, str]
    """SHA-256 by key, of raw, cleaned and lake objects."""

    @classmethod
    def take(cls) -> Snapshot:
        lake = stores.lake()
        files = [
            path.relative_to(lake)
            for path in lake.rglob("*")
            if path.is_file() and path.parent.name != "_tmp" and path.suffix != ".html"
        ]
        return cls(
            read_totals(),
            stores.store_rows(GREEN),
            {str(p): hash_object(lake / p) for p in files if p.parts[0] != "_former"},
        )

    def assert_same(self, other: Snapshot) -> None:
        assert self.totals == other.totals
        assert self.objects == other.objects
        for store, frame in self.rows.items():
            assert frame.equals(other.rows[store]), store


@contextmanager
def read_continuously(*complete: Totals, absent: bool) -> Iterator[list[str]]:
    """Read all stores until the block ends; yield a list of the days that were incomplete.

    With `absent` a day may be missing, as in stores that are empty at first.
    """
    complaints: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                totals_now = read_totals()
            except Exception as error:  # noqa: BLE001 - a store that cannot be read is a fault
                complaints.append(repr(error))
                return
            for store, days in totals_now.items():
                expected = [totals[store] for totals in complete]
                missing = set() if absent else set(expected[0]) - set(days)
                complaints.extend(f"{store} {day}: gone" for day in missing)
                complaints.extend(
                    f"{store} {day}: {total}, not one of {[rows.get(day) for rows in expected]}"
                    for day, total in days.items()
                    if total not in [rows.get(day) for rows in expected]
                )
            stop.wait(0.1)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield complaints
    finally:
        stop.set()
        thread.join()


@contextmanager
def publish(*versions: bytes) -> Iterator[str]:
    """Serve each version of the month under its number, with ranges."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            number = self.path.split("/")[1]
            body = versions[int(number)]
            requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            first = int(requested[1]) if requested else 0
            self.send_response(206 if first else 200)
            self.send_header("ETag", f'"{number}"')
            self.send_header("Content-Length", str(len(body) - first))
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            if self.command == "HEAD":
                return
            with suppress(OSError):  # the client was killed
                for at in range(first, len(body), 1 << 15):
                    self.wfile.write(body[at : at + (1 << 15)])
                    time.sleep(0.005)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def build_versions(folder: Path) -> list[bytes]:
    """Return a month, and the same month restated without every seventh row."""
    path = folder / "month.csv.gz"
    write_sample_month(GREEN, Month(2021, 10), path, ROWS)
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    restated = b"".join(line for number, line in enumerate(lines) if number % 7 != 3)
    return [path.read_bytes(), gzip.compress(restated, 1)]


@dataclass
class Runs:
    """Runs of the job over the days, from one version of the month or the other."""

    monitor: EventMonitor
    settings: dict[str, str]
    log: Path
    home: Path

    def run(self, version: int, kill_point: KillPoint | None = None) -> int | None:
        """Run to the end or to the kill point, and return the exit code."""
        template = "{}/{}/{{service}}_tripdata_{{year}}-{{month}}.csv.gz"
        source = template.format(self.settings["TAXI_SOURCE"], version)
        self.monitor.restart(None, None)
        process = start_job(
            "green", DAYS[0], DAYS[-1], self.log, **self.settings | {"TAXI_SOURCE": source}
        )
        self.monitor.restart(process.pid, kill_point)
        process.join()
        self.monitor.release()
        return process.exitcode

    def remove_downloads(self) -> None:
        """Remove downloads, so that the next run downloads the month."""
        shutil.rmtree(self.home / "downloads", ignore_errors=True)


def empty() -> None:
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS ny_taxi CASCADE")
    stores.bigquery().delete_dataset("ny_taxi", delete_contents=True, not_found_ok=True)
    stores.bigquery().create_dataset("ny_taxi")
    shutil.rmtree(stores.lake(), ignore_errors=True)


@dataclass
class KillPlan:
    """Chooses kill points: each phase in turn, in it any event and any of its occurrences."""

    events: dict[bool, Counter[str]]
    """Number of each event, in a run into empty stores (True) and in one that replaces days."""
    chance: random.Random
    left: dict[bool, list[str]] = field(default_factory=dict[bool, list[str]])

    def choose_next(self, *, first: bool) -> KillPoint:
        left, events = self.left.setdefault(first, []), self.events[first]
        if not left:
            left.extend(sorted(set(map(find_phase, events))))
            self.chance.shuffle(left)
        phase = left.pop()
        event = self.chance.choice([event for event in events if find_phase(event) == phase])
        # Runs differ a little: the last event of one may not occur in the next.
        number = self.chance.randint(1, max(1, 3 * events[event] // 4))
        return KillPoint(event, number, after=self.chance.random() < 0.5)


@pytest.fixture
def runs(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Runs]:
    monkeypatch.setenv("GCS_BUCKET", BUCKET)
    monitor = EventMonitor()
    with ExitStack() as stack:
        source = stack.enter_context(publish(*build_versions(tmp_path)))
        settings = stack.enter_context(run_relays(monitor, stores.settings(), source))
        log = Path(os.environ["DAGSTER_HOME"], "history", "runs", "index.db-wal")
        stack.enter_context(watch_files(monitor, stores.lake() / "_tmp", log))
        yield Runs(monitor, settings, tmp_path / "runs.log", Path(os.environ["TAXI_HOME"]))


@pytest.mark.timeout(600 + KILLS * SECONDS_A_KILL)
def test_killed_anywhere_nothing_is_lost_or_doubled(runs: Runs) -> None:
    empty()
    snapshots: list[Snapshot] = []
    counted: dict[bool, Counter[str]] = {}
    for version, first in ((0, True), (1, False)):
        runs.remove_downloads()
        assert runs.run(version) == 0, runs.log.read_text()[-3000:]
        counted[first] = Counter(runs.monitor.counts)
        snapshots.append(Snapshot.take())
    assert snapshots[0].totals != snapshots[1].totals

    plan = KillPlan(counted, random.Random(20210105))  # noqa: S311 - points in time, not secrets
    killed: Counter[str] = Counter()
    cycle = 0
    while killed.total() < KILLS:
        version, first = cycle % 2, cycle % 3 == 2
        cycle += 1
        if first:
            empty()
        runs.remove_downloads()
        totals = [snapshot.totals for snapshot in snapshots]
        with read_continuously(*totals, absent=first) as complaints:
            for _ in range(KILLS_A_CYCLE):
                kill_point = plan.choose_next(first=first)
                # The event may not occur, for example if the download had ended before.
                if runs.run(version, kill_point) != 0:
                    assert runs.monitor.has_killed, runs.log.read_text()[-3000:]
                    killed[str(kill_point)] += 1
            assert runs.run(version) == 0, runs.log.read_text()[-3000:]
        assert complaints == []
        snapshots[version].assert_same(Snapshot.take())
        assert_recorded(snapshots[version])
    report = [f"{times:4} {point}" for point, times in sorted(killed.items())]
    print(*report, f"{killed.total():4} kills in {cycle} cycles", sep="\n")  # noqa: T201 - for -s
    assert_no_leftovers()


def assert_recorded(snapshot: Snapshot) -> None:
    """Check that each day's latest record in Dagster is that of the stored rows."""
    instance = DagsterInstance.get()
    for name in ("cleaned_trips", "postgres_trips", "gcs_trips", "bigquery_trips"):
        for day, (rows, _) in snapshot.totals["postgres"].items():
            event = instance.get_latest_data_version_record(
                AssetKey(["green", name]), partition_key=str(day)
            )
            assert event
            assert event.asset_materialization
            assert event.asset_materialization.metadata["rows"].value == rows


def assert_no_leftovers() -> None:
    """Check that the undisturbed run dropped the staging tables of the killed ones."""
    names = {table.table_id for table in stores.bigquery().list_tables("ny_taxi")}
    assert names == {"green_cab_data"}
