"""Eight runs of eight months at once, from four machines that share Postgres, lake and BigQuery.

Every store must hold what the month files hold: after first loads, after the same months restated,
and after two services were loaded while half of the runs were killed. No run may fail or try again
because of another one. `COMPLETE_MONTHS=1` loads complete months of more rows in place of two days
each.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from dagster import DagsterEventType, DagsterInstance, RunsFilter

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.processes import start_job
from taxi_assets_tests.strict_bigquery import strict_bigquery
from taxi_assets_tests.test_at_once import NAME, write_versions

IS_LONG = os.environ.get("COMPLETE_MONTHS") == "1"
ROWS = 100_000 if IS_LONG else 4_000
"""Of a month."""
MACHINES = 4
KILLED_AFTER = (1.0, 12.0) if IS_LONG else (0.5, 5.0)
"""Seconds, within which a run is killed."""
MONTHS = [Month(2021, number) for number in range(1, 9)]
Load = tuple[str, Month]

pytestmark = pytest.mark.timeout(3600 if IS_LONG else 600)


def days_of(month: Month) -> list[date]:
    """Return the days that a run loads: across the month, or two of them."""
    days = list(month.window)
    return days if IS_LONG else days[9:11]


class Machines:
    """Starts runs on machines in turn: each has a TAXI_HOME of its own, and nothing else."""

    def __init__(self, folder: Path, bigquery: str) -> None:
        self.folder = folder
        self.log = folder / "runs.log"
        shared = {"TAXI_LAKE": str(stores.lake()), "BIGQUERY_ENDPOINT": bigquery}
        self.shared = stores.settings() | shared
        self.processes: list[ForkServerProcess] = []

    def start(self, version: str, loads: Iterable[Load]) -> dict[Load, ForkServerProcess]:
        """Start a run for each load, all at once."""
        started = {}
        source = {"TAXI_SOURCE": str(self.folder / version / NAME)}
        for number, (service, month) in enumerate(loads):
            home = {"TAXI_HOME": str(self.folder / f"machine-{number % MACHINES}")}
            days = days_of(month)
            span = str(days[0]), str(days[-1])
            settings = self.shared | source | home
            started[service, month] = start_job(service, *span, self.log, **settings)
            self.processes.append(started[service, month])
        return started

    def load(self, version: str, loads: Iterable[Load]) -> None:
        """Run all loads at once; each must succeed."""
        for load, process in self.start(version, loads).items():
            process.join(600)
            assert process.exitcode == 0, f"{load}: {self.log.read_text()[-4000:]}"


@pytest.fixture
def machines(home: Path, empty_stores: None, tmp_path: Path) -> Iterator[Machines]:
    """Yield machines with a BigQuery that cancels what Google cancels."""
    # Of processes that make Dagster's files at once all but one wait.
    DagsterInstance.get()
    with strict_bigquery(stores.stack().bigquery_endpoint) as proxy:
        machines = Machines(tmp_path, proxy.address)
        yield machines
        # Runs of a failed test would keep their locks.
        for process in machines.processes:
            process.kill()


def published(folder: Path, version: str, loads: Iterable[Load]) -> dict[str, stores.Totals]:
    """Return the totals of the loaded days in the month files, by service."""
    totals_by_service: dict[str, stores.Totals] = {}
    for service, month in loads:
        path = folder / version / f"{service}_tripdata_{month}.csv.gz"
        totals = stores.pandas_totals(path, SERVICES[service])
        days = {day: totals[day] for day in days_of(month) if day in totals}
        totals_by_service.setdefault(service, {}).update(days)
    return totals_by_service


def assert_stored(expected: dict[str, stores.Totals]) -> None:
    """Assert that every store holds exactly these totals and nothing temporary."""
    for service, totals in expected.items():
        for store, store_totals in stores.store_totals(SERVICES[service]).items():
            assert store_totals == totals, (store, service)
    assert not list((stores.lake() / "_locks").glob("*.lock"))
    tables = {table.table_id for table in stores.bigquery().list_tables("ny_taxi")}
    assert tables == {SERVICES[service].table for service in expected}


def retries_since(began: datetime) -> list[str]:
    """Return the retries of the runs since then, with their reasons."""
    instance = DagsterInstance.get()
    after = RunsFilter(created_after=began)
    return [
        str(record.event_log_entry.user_message)
        for run in instance.get_runs(after)
        for record in instance.get_records_for_run(
            run.run_id, of_type=DagsterEventType.STEP_UP_FOR_RETRY
        ).records
    ]


def test_eight_concurrent_months_from_four_machines(machines: Machines) -> None:
    loads = [("green", month) for month in MONTHS]
    for _, month in loads:
        write_versions(machines.folder, SERVICES["green"], month, ROWS)
    for version in ("first", "second"):
        started = datetime.now(UTC)
        machines.load(version, loads)
        assert retries_since(started) == []
        assert_stored(published(machines.folder, version, loads))


def test_eight_concurrent_months_survive_killing_half_of_the_runs(machines: Machines) -> None:
    loads = [(service, month) for month in MONTHS[:4] for service in ("green", "yellow")]
    for service, month in loads:
        write_versions(machines.folder, SERVICES[service], month, ROWS)
    chance = random.Random(16)  # noqa: S311 - points in time, not secrets
    for version in ("first", "second"):
        started = machines.start(version, loads)
        victims = chance.sample(loads, 4)
        for load in victims:
            started[load].join(chance.uniform(*KILLED_AFTER))
            if started[load].is_alive():
                os.kill(started[load].pid or 0, signal.SIGKILL)
        # While the others still work.
        machines.load(version, victims)
        for load, process in started.items():
            process.join(600)
            assert load in victims or process.exitcode == 0, machines.log.read_text()[-4000:]
        assert_stored(published(machines.folder, version, loads))
