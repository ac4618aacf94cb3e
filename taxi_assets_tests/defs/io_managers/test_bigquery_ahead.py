"""Staging in BigQuery while the run fills Postgres."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date
from typing import Any

import dagster as dg
import pytest
from google.api_core.exceptions import Forbidden
from google.cloud import bigquery

from taxi_assets.defs.io_managers.base import Records
from taxi_assets.defs.io_managers.bigquery import BigQueryTripsIOManager
from taxi_assets.defs.io_managers.partition_data import StoredTrips
from taxi_assets.defs.io_managers.postgres import PostgresTripsIOManager
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.lazy_partitions import LazyPartitions
from taxi_assets_tests.defs.io_managers.test_bigquery import (
    DATASET,
    DAY,
    GREEN,
    NEXT_DAY,
    Log,
    client,
    count_rows,
    google,
    lake,
    proxy,
    store_in_bigquery,
)
from taxi_assets_tests.defs.io_managers.test_postgres import make_stored_day
from taxi_assets_tests.fault_proxy import HttpProxy
from taxi_assets_tests.stores import Runs

__all__ = ["client", "google", "lake", "proxy"]

LOAD = r'^POST \S+/jobs\b.*"load"'


@pytest.fixture
def manager() -> BigQueryTripsIOManager:
    return BigQueryTripsIOManager({"green": GREEN}, BigQueryResource())


def make_days(lake: Lake, *days: date, rows: int) -> dict[date, StoredTrips]:
    own = replace(lake, root=f"{lake.root}/{rows}", bucket=f"{lake.bucket}/{rows}")
    return {day: make_stored_day(own, day, rows) for day in days}


def start(manager: BigQueryTripsIOManager, days: dict[date, StoredTrips]) -> None:
    manager.start_staging(GREEN, LazyPartitions(list(days), days.get), Log())


def list_loads(client: bigquery.Client) -> set[str]:
    return {job.job_id for job in client.list_jobs() if job.job_id.endswith("_load")}


@pytest.mark.parametrize("are_stored", [False, True])
def test_days_that_were_staged_ahead_are_loaded_once(
    are_stored: bool,
    manager: BigQueryTripsIOManager,
    client: bigquery.Client,
    lake: Lake,
) -> None:
    if are_stored:
        store_in_bigquery(lake, DAY, NEXT_DAY)
    before = list_loads(client)
    days = make_days(lake, DAY, NEXT_DAY, rows=7)
    start(manager, days)
    assert [day for day, _ in manager.store(GREEN, days, Log())] == [DAY, NEXT_DAY]
    assert len(list_loads(client) - before) == 1
    assert count_rows(client, DAY, NEXT_DAY) == [7, 7]
    assert [table.table_id for table in client.list_tables(DATASET)] == [GREEN.table]


def test_days_that_were_staged_for_another_service_are_left_to_it(
    manager: BigQueryTripsIOManager, client: bigquery.Client, lake: Lake
) -> None:
    """A run of both services has one IO manager, and its days may have as many rows."""
    other = replace(GREEN, name="other")
    days = make_days(lake, DAY, rows=7)
    start(manager, days)
    for service in (other, GREEN):
        assert [day for day, _ in manager.store(service, days, Log())] == [DAY]
        assert client.get_table(f"{DATASET}.{service.table}").num_rows == 7


def test_other_days_than_the_staged_ones_are_loaded_again(
    manager: BigQueryTripsIOManager, client: bigquery.Client, lake: Lake
) -> None:
    """A day may be rejected after the load has begun."""
    start(manager, make_days(lake, DAY, NEXT_DAY, rows=7))
    days = make_days(lake, NEXT_DAY, rows=5)
    assert [day for day, _ in manager.store(GREEN, days, Log())] == [NEXT_DAY]
    assert count_rows(client, DAY, NEXT_DAY) == [0, 5]
    assert [table.table_id for table in client.list_tables(DATASET)] == [GREEN.table]


def test_error_of_staging_ahead_is_raised_by_the_store_and_retried_afresh(
    manager: BigQueryTripsIOManager, google: HttpProxy, client: bigquery.Client, lake: Lake
) -> None:
    days = make_days(lake, DAY, rows=7)
    google.add(LOAD, "answer", status=403)
    start(manager, days)
    with pytest.raises(Forbidden):
        list(manager.store(GREEN, days, Log()))
    assert count_rows(client, DAY) == [0]
    assert [day for day, _ in manager.store(GREEN, days, Log())] == [DAY]
    assert count_rows(client, DAY) == [7]


def test_run_stages_while_postgres_is_filled(
    empty_stores: None, client: bigquery.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres begins only after BigQuery has loaded the day."""
    del empty_stores
    before = list_loads(client)
    fill_postgres = PostgresTripsIOManager.store

    def wait_for_load(*arguments: Any) -> Records:
        deadline = time.monotonic() + 30
        while list_loads(client) <= before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(list_loads(client) - before) == 1
        return fill_postgres(*arguments)

    monkeypatch.setattr(PostgresTripsIOManager, "store", wait_for_load)
    assert Runs().run("green", str(DAY)).success
    assert len(list_loads(client) - before) == 1


def test_run_without_bigquery_stages_nothing(
    empty_stores: None, client: bigquery.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    del empty_stores
    assert Runs().run("green", str(DAY)).success
    before = list_loads(client)

    def reject(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(BigQueryTripsIOManager, "start_staging", reject)
    lake_only = [dg.AssetKey(["green", "gcs_trips"])]
    assert Runs().run("green", str(DAY), asset_selection=lake_only).success
    assert list_loads(client) <= before
