"""Killed at any point, a run leaves whole days, and running it again leaves what was asked for.

Each cycle publishes the month again, kills three runs over its days, and lets the fourth come
through; a reader looks at all stores meanwhile. Where a run dies is aimed at, in turn, at all
that an undisturbed run shows: see `kill_points`. `KILLS` sets how many kills (default two dozen),
and the test's time limit with them.
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
from taxi_assets_tests.kill_points import Aim, Signs, phase_of, relays, watched
from taxi_assets_tests.processes import start_job

GREEN = SERVICES["green"]
DAYS = ("2021-10-04", "2021-10-05", "2021-10-06")
KILLS = int(os.environ.get("KILLS", "24"))
KILLS_A_CYCLE = 3
SECONDS_A_KILL = 30
"""With its share of the runs that come through, on a busy machine; the suite's limit is less."""
ROWS = 40_000
"""Of the month: three days are 20 parts of a COPY, the file ten of a download."""
BUCKET = "killed"
Totals = dict[str, dict[date, tuple[int, float]]]


def seen() -> Totals:
    """Rows and dollars of each day, by store; a store that is not there yet has none."""
    found: Totals = {"postgres": {}, "lake": {}, "bigquery": {}}
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('ny_taxi.green_cab_data') IS NOT NULL")
        if cursor.fetchone() == (True,):
            cursor.execute(
                "SELECT lpep_pickup_datetime::date, count(*), sum(total_amount)"
                " FROM ny_taxi.green_cab_data GROUP BY 1"
            )
            found["postgres"] = stores._round_totals(cursor.fetchall())
    # Opened once each: a DuckDB query opens a file twice and mixes the two when one is replaced.
    for path in (stores.lake() / "green").glob("*/*.parquet"):
        with pq.ParquetFile(path) as day:
            totals = day.read(["total_amount"]).column(0)
        key = date.fromisoformat(path.parent.name.partition("=")[2])
        found["lake"] |= stores._round_totals([(key, len(totals), pc.sum(totals).as_py())])
    client = stores.bigquery()
    if "green_cab_data" in {table.table_id for table in client.list_tables("ny_taxi")}:
        query = (
            "SELECT lpep_pickup_date, COUNT(*), SUM(total_amount)"
            " FROM ny_taxi.green_cab_data GROUP BY 1"
        )
        found["bigquery"] = stores._round_totals(
            [tuple(row) for row in client.query(query).result()]
        )
    return found


def hash_object(path: Path) -> str:
    """SHA-256 of an object, without what a raw one knows of the rows that it replaced."""
    content = path.read_bytes()
    if path.name.endswith(".csv.zst"):
        metadata, packed = open_sealed_zstd(pa.py_buffer(content))
        metadata.pop(restatement.RESTATEMENT, None)
        content = json.dumps(metadata, sort_keys=True).encode() + packed.to_pybytes()
    return hashlib.sha256(content).hexdigest()


@dataclass
class Left:
    """Everything that an undisturbed run leaves."""

    totals: Totals
    rows: dict[str, pd.DataFrame]
    objects: dict[str, str]
    """SHA-256 by key: raw, cleaned, and what people read."""

    @classmethod
    def now(cls) -> Left:
        lake = stores.lake()
        files = [
            path.relative_to(lake)
            for path in lake.rglob("*")
            if path.is_file() and path.parent.name != "_tmp" and path.suffix != ".html"
        ]
        return cls(
            seen(),
            stores.store_rows(GREEN),
            {str(p): hash_object(lake / p) for p in files if p.parts[0] != "_former"},
        )

    def assert_same(self, other: Left) -> None:
        assert self.totals == other.totals
        assert self.objects == other.objects
        for store, frame in self.rows.items():
            assert frame.equals(other.rows[store]), store


@contextmanager
def reader(*wholes: Totals, absent: bool) -> Iterator[list[str]]:
    """Reads all stores all the time; a day that is no whole one of theirs is a complaint.

    `absent`: a day may be missing, in stores that begin empty.
    """
    complaints: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                totals_now = seen()
            except Exception as error:  # noqa: BLE001 - a store that cannot be read is a complaint
                complaints.append(repr(error))
                return
            for store, days in totals_now.items():
                whole = [totals[store] for totals in wholes]
                missing = set() if absent else set(whole[0]) - set(days)
                complaints.extend(f"{store} {day}: gone" for day in missing)
                complaints.extend(
                    f"{store} {day}: {total}, not one of {[rows.get(day) for rows in whole]}"
                    for day, total in days.items()
                    if total not in [rows.get(day) for rows in whole]
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
def published(*versions: bytes) -> Iterator[str]:
    """A server that has each version of the month under its number; it knows ranges."""

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
            with suppress(OSError):  # whoever asked was killed
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


def versions(folder: Path) -> list[bytes]:
    """A month, and the same month restated: every seventh row is gone."""
    path = folder / "month.csv.gz"
    write_sample_month(GREEN, Month(2021, 10), path, ROWS)
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    restated = b"".join(line for number, line in enumerate(lines) if number % 7 != 3)
    return [path.read_bytes(), gzip.compress(restated, 1)]


@dataclass
class Runs:
    """Runs of the job over the days, from one version of the month or the other."""

    signs: Signs
    settings: dict[str, str]
    log: Path
    home: Path

    def run(self, version: int, aim: Aim | None = None) -> int | None:
        """Run to the end, or to the point where it dies; the exit code."""
        template = "{}/{}/{{service}}_tripdata_{{year}}-{{month}}.csv.gz"
        source = template.format(self.settings["TAXI_SOURCE"], version)
        self.signs.watch(None, None)
        process = start_job(
            "green", DAYS[0], DAYS[-1], self.log, **self.settings | {"TAXI_SOURCE": source}
        )
        self.signs.watch(process.pid, aim)
        process.join()
        return process.exitcode

    def forget(self) -> None:
        """Remove downloads, so that there is one to kill."""
        shutil.rmtree(self.home / "downloads", ignore_errors=True)


def empty() -> None:
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS ny_taxi CASCADE")
    stores.bigquery().delete_dataset("ny_taxi", delete_contents=True, not_found_ok=True)
    stores.bigquery().create_dataset("ny_taxi")
    shutil.rmtree(stores.lake(), ignore_errors=True)


@dataclass
class Targets:
    """Aims at each phase in turn, there at any sign and any of its occurrences."""

    signs: dict[bool, Counter[str]]
    """How often each is seen in a run into empty stores, and in one that replaces days."""
    chance: random.Random
    left: dict[bool, list[str]] = field(default_factory=dict[bool, list[str]])

    def next(self, *, first: bool) -> Aim:
        left, signs = self.left.setdefault(first, []), self.signs[first]
        if not left:
            left.extend(sorted(set(map(phase_of, signs))))
            self.chance.shuffle(left)
        phase = left.pop()
        sign = self.chance.choice([sign for sign in signs if phase_of(sign) == phase])
        # Runs differ a little; what came last in one may not come in the next.
        number = self.chance.randint(1, max(1, 3 * signs[sign] // 4))
        return Aim(sign, number, after=self.chance.random() < 0.5)


@pytest.fixture
def runs(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Runs]:
    monkeypatch.setenv("GCS_BUCKET", BUCKET)
    signs = Signs()
    with ExitStack() as open_ones:
        source = open_ones.enter_context(published(*versions(tmp_path)))
        settings = open_ones.enter_context(relays(signs, stores.settings(), source))
        log = Path(os.environ["DAGSTER_HOME"], "history", "runs", "index.db-wal")
        open_ones.enter_context(watched(signs, stores.lake() / "_tmp", log))
        yield Runs(signs, settings, tmp_path / "runs.log", Path(os.environ["TAXI_HOME"]))


@pytest.mark.timeout(600 + KILLS * SECONDS_A_KILL)
def test_killed_anywhere_nothing_is_lost_or_doubled(runs: Runs) -> None:
    empty()
    left: list[Left] = []
    counted: dict[bool, Counter[str]] = {}
    for version, first in ((0, True), (1, False)):
        runs.forget()
        assert runs.run(version) == 0, runs.log.read_text()[-3000:]
        counted[first] = Counter(runs.signs.seen)
        left.append(Left.now())
    assert left[0].totals != left[1].totals

    targets = Targets(counted, random.Random(20210105))  # noqa: S311 - points in time, not secrets
    killed: Counter[str] = Counter()
    cycle = 0
    while killed.total() < KILLS:
        version, first = cycle % 2, cycle % 3 == 2
        cycle += 1
        if first:
            empty()
        runs.forget()
        totals = [reader_result.totals for reader_result in left]
        with reader(*totals, absent=first) as complaints:
            for _ in range(KILLS_A_CYCLE):
                aim = targets.next(first=first)
                # What is aimed at may not come, as when the download was over before.
                if runs.run(version, aim) != 0:
                    assert runs.signs.hit, runs.log.read_text()[-3000:]
                    killed[str(aim)] += 1
            assert runs.run(version) == 0, runs.log.read_text()[-3000:]
        assert complaints == []
        left[version].assert_same(Left.now())
        assert_recorded(left[version])
    report = [f"{times:4} {point}" for point, times in sorted(killed.items())]
    print(*report, f"{killed.total():4} kills in {cycle} cycles", sep="\n")  # noqa: T201 - for -s
    assert_no_leftovers()


def assert_recorded(left: Left) -> None:
    """Each day's latest record in Dagster is of what the stores hold."""
    instance = DagsterInstance.get()
    for name in ("cleaned_trips", "postgres_trips", "gcs_trips", "bigquery_trips"):
        for day, (rows, _) in left.totals["postgres"].items():
            event = instance.get_latest_data_version_record(
                AssetKey(["green", name]), partition_key=str(day)
            )
            assert event
            assert event.asset_materialization
            assert event.asset_materialization.metadata["rows"].value == rows


def assert_no_leftovers() -> None:
    """The run that came through dropped the staging tables of those that were killed."""
    names = {table.table_id for table in stores.bigquery().list_tables("ny_taxi")}
    assert names == {"green_cab_data"}
