"""Killed at any point, a run leaves whole days, and running it again leaves what was asked for.

`TAXI_KILLS` sets how many kills (default a dozen); the points are spread over the run's length.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from taxi_assets.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.stores import Runs

GREEN = SERVICES["green"]
DAYS = ["2021-10-04", "2021-10-05", "2021-10-06"]
KILLS = int(os.environ.get("TAXI_KILLS", "12"))
COMMAND = [
    str(Path(sys.executable).with_name("dagster")),
    *("job", "execute", "-m", "taxi_assets.definitions", "-j", "green_daily", "--tags"),
    json.dumps(
        {
            "dagster/asset_partition_range_start": DAYS[0],
            "dagster/asset_partition_range_end": DAYS[-1],
        }
    ),
]


def seen() -> dict[str, dict[date, int]]:
    """Rows of each day, by store; a store that is not there yet has none."""
    found: dict[str, dict[date, int]] = {"postgres": {}, "lake": {}, "bigquery": {}}
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('ny_taxi.green_cab_data') IS NOT NULL")
        if cursor.fetchone() == (True,):
            cursor.execute(
                "SELECT lpep_pickup_datetime::date, count(*) FROM ny_taxi.green_cab_data GROUP BY 1"
            )
            found["postgres"] = dict(cursor.fetchall())
    folder = stores.lake() / "green"
    if any(folder.glob("*/*.parquet")):
        query = f"SELECT lpep_pickup_date, count(*) FROM '{folder}/*/*.parquet' GROUP BY 1"
        found["lake"] = dict(duckdb.sql(query).fetchall())
    client = stores.bigquery()
    if "green_cab_data" in {table.table_id for table in client.list_tables("ny_taxi")}:
        query = "SELECT lpep_pickup_date, COUNT(*) FROM ny_taxi.green_cab_data GROUP BY 1"
        found["bigquery"] = {row[0]: row[1] for row in client.query(query).result()}
    return found


@contextmanager
def reader(whole: dict[date, int]) -> Iterator[list[str]]:
    """Reads all stores all the time; what is neither no day nor a whole one is a complaint."""
    complaints: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            for store, days in seen().items():
                complaints.extend(
                    f"{store} {day}: {rows} of {whole.get(day)}"
                    for day, rows in days.items()
                    if rows != whole.get(day)
                )
            time.sleep(0.05)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield complaints
    finally:
        stop.set()
        thread.join()


def test_killed_anywhere_nothing_is_lost_or_doubled(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCS_BUCKET", "killed")
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS ny_taxi CASCADE")
    stores.bigquery().delete_dataset("ny_taxi", delete_contents=True, not_found_ok=True)
    stores.bigquery().create_dataset("ny_taxi")

    began = time.monotonic()
    subprocess.run(COMMAND, check=True, capture_output=True)
    length = time.monotonic() - began
    undisturbed = seen()
    whole = undisturbed["postgres"]
    assert len(whole) == len(DAYS)
    rows = stores.store_rows(GREEN)

    pick = random.Random(20210105)  # noqa: S311 - points in time, not secrets
    with reader(whole) as complaints:
        for _ in range(KILLS):
            process = subprocess.Popen(
                COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            # Before that only Python and Dagster start.
            time.sleep(length * pick.uniform(0.5, 1.0))
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert Runs().run("green", DAYS[0], DAYS[-1]).success
    assert complaints == []

    assert seen() == undisturbed
    for store, frame in stores.store_rows(GREEN).items():
        assert frame.equals(rows[store]), store

    # What killed runs staged is dropped by the next run once its life is over.
    monkeypatch.setattr("taxi_assets.io_managers.bigquery.STAGING_LIFE", timedelta(0))
    assert Runs().run("green", DAYS[0]).success
    names = {table.table_id for table in stores.bigquery().list_tables("ny_taxi")}
    assert names == {"green_cab_data"}
