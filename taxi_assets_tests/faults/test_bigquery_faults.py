"""BigQuery with transient errors, terminal errors, and answers lost after the work."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import date

import pandas as pd
import pytest

from taxi_assets.defs.io_managers.bigquery import BigQueryTripsIOManager
from taxi_assets.defs.io_managers.partition_data import CLEANED, Label, open_stored_trips
from taxi_assets.defs.resources.bigquery import (
    BigQueryResource,
    _limit_retries,
    create_emulator_client,
)
from taxi_assets.defs.resources.lake import open_lake
from taxi_assets.defs.resources.lake_keys import build_cleaned_key
from taxi_assets.errors import UnavailableError
from taxi_assets.settings import Settings
from taxi_assets_tests import stores
from taxi_assets_tests.fault_proxy import HttpProxy
from taxi_assets_tests.faults.conftest import DAY, YELLOW, Log, Steps, assert_stores_hold
from taxi_assets_tests.strict_bigquery import strict_bigquery

CALLS = {
    "tables.get": r"^GET \S+/tables/",
    "datasets.insert": r"^POST \S+/datasets\?",
    "tables.insert": r"^POST \S+/tables\b",
    "jobs.insert load": r'^POST \S+/jobs\b.*"load"',
    "jobs.insert insert": r"^POST \S+/jobs\b.*INSERT INTO",
    "jobs.insert copy": r'^POST \S+/jobs\b.*"copy"',
    "jobs.query": r"^POST \S+/queries\b",
    "getQueryResults": r"^GET \S+/queries/",
    "tables.patch": r"^PATCH \S+/tables/",
    "tables.delete": r"^DELETE \S+/tables/",
    "tables.list": r"^GET \S+/tables\?",
}
JOBS_GET = r"^GET \S+/jobs/"
JOBS = re.compile(r"^(\d+) POST \S+/jobs\b")
Rows = Mapping[str, pd.DataFrame]


@pytest.fixture
def endpoint(home: object, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the emulator's own address."""
    monkeypatch.setenv("BIGQUERY_TOKEN", stores.stack().bigquery_token)
    return stores.stack().bigquery_endpoint


@pytest.fixture
def proxy(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpProxy]:
    """Put a proxy between the project and BigQuery."""
    with strict_bigquery(endpoint) as proxy:
        monkeypatch.setenv("BIGQUERY_ENDPOINT", proxy.address)
        yield proxy


def list_insert_statuses(proxy: HttpProxy) -> list[int]:
    """Return the status of BigQuery's answer to each jobs.insert."""
    return [int(match[1]) for line in proxy.answered if (match := JOBS.match(line))]


def test_each_kind_of_call_is_retried(
    endpoint: str, undisturbed: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = date.fromisoformat(DAY)
    label = Label(YELLOW.name, CLEANED, str(day))
    trips = open_stored_trips(
        open_lake(Settings.from_env().lake), build_cleaned_key(YELLOW, day), label, YELLOW
    )
    assert trips

    def store(resource: BigQueryResource) -> dict[date, tuple[int, float]]:
        manager = BigQueryTripsIOManager({"yellow": YELLOW}, resource)
        for _ in ("a first load", "a rewrite"):
            list(manager.store(YELLOW, {day: trips}, Log()))
        stored_totals = dict(manager.read_totals(YELLOW, [day], Log()))
        with resource.client() as client:
            tables = [table.table_id for table in client.list_tables(resource.dataset)]
        assert tables == [YELLOW.table]
        return stored_totals

    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        proxies, resources = [], []
        for status in (503, 429, 500, None):
            proxy = stack.enter_context(strict_bigquery(endpoint))
            for on in CALLS.values():
                proxy.add(on, "answer" if status else "reset", status=status or 0)
            monkeypatch.setenv("BIGQUERY_DATASET", f"behind_{status or 'reset'}")
            monkeypatch.setenv("BIGQUERY_ENDPOINT", proxy.address)
            resource = BigQueryResource()
            assert resource.settings.endpoint == proxy.address
            proxies.append(proxy)
            resources.append(resource)
        stored_totals = list(pool.map(store, resources))
        assert [proxy.left for proxy in proxies] == [[]] * 4
    rows = undisturbed["bigquery"]
    assert stored_totals == [{day: (len(rows), pytest.approx(rows["total_amount"].sum()))}] * 4


def test_jobs_with_lost_answers_run_once(proxy: HttpProxy, undisturbed: Rows) -> None:
    for kind in ("load", "copy"):
        proxy.add(CALLS[f"jobs.insert {kind}"], "lose_answer")
    # The job is found by its id only after a delay and an error.
    proxy.answer(JOBS_GET, 404, 503, 429)
    assert Steps().succeeds("bigquery_trips") == 0
    assert proxy.left == []
    # Load and copy were accepted once each; reads insert no job.
    assert list_insert_statuses(proxy) == [200, 409, 200, 409]
    assert_stores_hold(undisturbed)


def test_silent_server_is_abandoned(
    proxy: HttpProxy, undisturbed: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGQUERY_TIMEOUT", "1")
    calls = ("tables.get", "jobs.insert load", "jobs.insert copy", "jobs.query")
    hanging = [CALLS[call] for call in calls]
    for call in hanging:
        proxy.add(call, "hang")
    started = time.monotonic()
    assert Steps().succeeds("bigquery_trips") == 0
    assert len(hanging) <= time.monotonic() - started < 60
    assert proxy.left == []
    # A slow answer is not awaited either: that job is sent again, and is known.
    statuses = list_insert_statuses(proxy)
    assert (statuses.count(200), set(statuses) - {409}) == (2, {200})
    assert_stores_hold(undisturbed)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(403, "BigQuery Data Editor and Job User"), (401, "check GOOGLE_APPLICATION_CREDENTIALS")],
)
def test_terminal_status_fails_the_run_with_the_fix(
    status: int, remedy: str, proxy: HttpProxy, undisturbed: Rows
) -> None:
    # More than once: credentials are refreshed after a 401, and the call repeated.
    proxy.add(CALLS["jobs.insert copy"], "answer", times=9, status=status)
    message = Steps().fails_at_once("bigquery_trips")
    assert f"yellow/bigquery_trips {DAY}: " in message
    assert remedy in message
    proxy.clear()
    # A job of it may still be running, so its staging tables are left to the next write.
    assert Steps().succeeds("bigquery_trips") == 0
    assert_stores_hold(undisturbed)


def test_stopped_embedded_server_fails_the_attempt_quickly() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
        client = create_emulator_client("taxi-local", nobody)
        _limit_retries(client, 5, embedded=True)
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="ended under this run"):
            client.get_table("ny_taxi.any")
    # Google's client would retry for ten minutes.
    assert time.monotonic() - started < 60
