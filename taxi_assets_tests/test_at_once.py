"""Concurrent runs outside the run queue end like consecutive runs."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from dagster import DagsterEventType, DagsterInstance

from taxi_assets.date_ranges import Month
from taxi_assets.local.process import wait_until
from taxi_assets.tlc.sample import write_sample_month
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.kill_points import EventMonitor, relay
from taxi_assets_tests.processes import start_job

OCTOBER, NOVEMBER = Month(2021, 10), Month(2021, 11)
NAME = "{service}_tripdata_{year}-{month}.csv.gz"
ROWS = 20_000


def write_versions(folder: Path, service: Service, month: Month, rows: int = ROWS) -> None:
    """Write a month to `first`, and to `second` the same month without every seventh row."""
    name = f"{service.name}_tripdata_{month}.csv.gz"
    for version in ("first", "second"):
        (folder / version).mkdir(exist_ok=True)
    write_sample_month(service, month, folder / "first" / name, rows)
    lines = gzip.decompress((folder / "first" / name).read_bytes()).splitlines(keepends=True)
    restated = b"".join(line for number, line in enumerate(lines) if number % 7 != 3)
    (folder / "second" / name).write_bytes(gzip.compress(restated, 1))


@pytest.fixture(autouse=True)
def _history(home: Path) -> None:
    """Create Dagster's SQLite files: of processes that create them at once, all but one fail."""
    DagsterInstance.get()


@dataclass
class Halt(EventMonitor):
    """Halts a run's connection to Postgres after its first COMMIT, before its COPY.

    A process that is halted entirely may keep Dagster's SQLite files locked.
    """

    reached: threading.Event = field(default_factory=threading.Event)
    resume: threading.Event = field(default_factory=threading.Event)

    def finish(self, event: str, number: int) -> None:
        """Wait after the first COMMIT until `resume` is set."""
        if (event, number) == ("answer to postgres COMMIT", 1):
            self.reached.set()
            self.resume.wait()


@contextmanager
def assert_all_succeed(log: Path) -> Iterator[list[ForkServerProcess]]:
    """Yield a list for started processes; at the end wait for each, and check that it succeeds."""
    started: list[ForkServerProcess] = []
    try:
        yield started
        for process in started:
            process.join(300)
            assert process.exitcode == 0, log.read_text()[-4000:]
    finally:
        # A run of a failed test would keep its locks.
        for process in started:
            process.kill()


def compute_expected_totals(
    folder: Path, version: str, service: Service, *months: Month
) -> stores.Totals:
    totals: stores.Totals = {}
    for month in months:
        path = folder / version / f"{service.name}_tripdata_{month}.csv.gz"
        totals |= stores.pandas_totals(path, service)
    return totals


def select_days(first: str, last: str, totals: stores.Totals) -> stores.Totals:
    return {day: total for day, total in totals.items() if first <= str(day) <= last}


def list_failed_checks() -> list[str]:
    """Return the failed evaluations of the latest runs."""
    instance = DagsterInstance.get()
    return [
        f"{evaluation.check_name} {evaluation.partition} {evaluation.metadata}"
        for run in instance.get_runs(limit=8)
        for record in instance.get_records_for_run(
            run.run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION
        ).records
        if (evaluation := record.event_log_entry.asset_check_evaluation)
        and not evaluation.passed
        and evaluation.check_name in ("matches_cleaned", "stores_agree")
    ]


@pytest.mark.usefixtures("empty_stores")
def test_days_restated_between_two_concurrent_runs(tmp_path: Path) -> None:
    """The first run is halted before its COPY; the second has other rows of the same days."""
    green, log = SERVICES["green"], tmp_path / "runs.log"
    write_versions(tmp_path, green, OCTOBER)
    days = "2021-10-04", "2021-10-06"
    halt, settings = Halt(), stores.settings()
    address = settings["POSTGRES_HOST"], int(settings["POSTGRES_PORT"])
    with relay(halt, "postgres", *address) as port, assert_all_succeed(log) as started:
        settings |= {"POSTGRES_PORT": str(port), "TAXI_SOURCE": str(tmp_path / "first" / NAME)}
        started.append(start_job("green", *days, log, **settings))
        assert halt.reached.wait(300), log.read_text()
        source = str(tmp_path / "second" / NAME)
        started.append(start_job("green", *days, log, TAXI_SOURCE=source))
        waits = "another run is working on green 2021-10"
        assert wait_until(lambda: waits in log.read_text() or not started[1].is_alive(), 300)
        halt.resume.set()
    second = select_days(*days, compute_expected_totals(tmp_path, "second", green, OCTOBER))
    for store, store_totals in stores.store_totals(green).items():
        assert store_totals == second, store
    assert list_failed_checks() == []


@pytest.mark.usefixtures("empty_stores")
def test_overlapping_chunks_and_two_services_run_concurrently(tmp_path: Path) -> None:
    log = tmp_path / "runs.log"
    for name in ("green", "yellow"):
        for month in (OCTOBER, NOVEMBER):
            write_versions(tmp_path, SERVICES[name], month)
    source = str(tmp_path / "first" / NAME)
    with assert_all_succeed(log) as started:
        for service, first, last in (
            ("green", "2021-10-29", "2021-11-02"),
            ("green", "2021-10-31", "2021-11-04"),
            ("green", "2021-11-01", "2021-11-01"),
            ("yellow", "2021-10-31", "2021-11-01"),
        ):
            started.append(start_job(service, first, last, log, TAXI_SOURCE=source))
    for name, first, last in (
        ("green", "2021-10-29", "2021-11-04"),
        ("yellow", "2021-10-31", "2021-11-01"),
    ):
        totals = compute_expected_totals(tmp_path, "first", SERVICES[name], OCTOBER, NOVEMBER)
        expected_totals = select_days(first, last, totals)
        for store, store_totals in stores.store_totals(SERVICES[name]).items():
            assert store_totals == expected_totals, store
    assert list_failed_checks() == []


@pytest.mark.usefixtures("empty_stores")
def test_two_machines_can_share_the_lake(tmp_path: Path) -> None:
    """Two TAXI_HOMEs, as two Cloud Run executions have, load a month by different rules."""
    green, log = SERVICES["green"], tmp_path / "runs.log"
    write_versions(tmp_path, green, OCTOBER)
    days = "2021-10-04", "2021-10-06"
    source = {"TAXI_SOURCE": str(tmp_path / "first" / NAME), "TAXI_LAKE": str(stores.lake())}
    halt, settings = Halt(), stores.settings() | source
    address = settings["POSTGRES_HOST"], int(settings["POSTGRES_PORT"])
    with relay(halt, "postgres", *address) as port, assert_all_succeed(log) as started:
        first = settings | {"POSTGRES_PORT": str(port), "TAXI_HOME": str(tmp_path / "one")}
        started.append(start_job("green", *days, log, **first))
        assert halt.reached.wait(300), log.read_text()
        second = settings | {"TAXI_HOME": str(tmp_path / "two"), "TAXI_DROP": "none"}
        started.append(start_job("green", *days, log, **second))
        waits = "another run is working on green 2021-10 (run "
        assert wait_until(lambda: waits in log.read_text() or not started[1].is_alive(), 300)
        halt.resume.set()
    totals = stores.store_totals(green)
    assert totals["postgres"] == totals["lake"] == totals["bigquery"]
    dropped = select_days(*days, compute_expected_totals(tmp_path, "first", green, OCTOBER))
    assert all(totals["lake"][day][0] > dropped[day][0] for day in dropped)
    assert list_failed_checks() == []
    assert not list((stores.lake() / "_locks").glob("*.lock"))
