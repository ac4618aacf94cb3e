"""The small jobs, from one command line and from a launchpad that opens with an example."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pyarrow.parquet as pq
import pytest

from taxi_assets.definitions import build_defs
from taxi_assets_tests import stores
from taxi_assets_tests.cli.conftest import run_command, start_command
from taxi_assets_tests.stores import Runs, postgres_arguments
from taxi_assets_tests.test_server import until

DAY = "2021-01-05"


@pytest.fixture(scope="module")
def loaded_day(home: Path) -> Iterator[Runs]:
    """Load the quick start's day into all stores."""
    stores.drop_tables()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GCS_BUCKET", "small-jobs")
        runs = Runs()
        assert runs.run("yellow", DAY).success
        yield runs


@pytest.fixture(autouse=True)
def bucket(loaded_day: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCS_BUCKET", "small-jobs")


@pytest.mark.parametrize("job", ["sql_query", "inspect_object", "export_parquet"])
def test_launchpad_opens_with_an_example_that_runs(job: str, loaded_day: Runs) -> None:
    result = build_defs().resolve_job_def(job).execute_in_process(instance=loaded_day.instance)
    assert result.success


@pytest.mark.parametrize("store", ["postgres", "bigquery"])
def test_query_prints_rows(store: str) -> None:
    sql = "-- All services.\nSELECT count(*) AS trips FROM ny_taxi.yellow_cab_data;\n"
    output = run_command("query", sql, "--store", store)
    rows = pq.read_table(stores.lake() / f"yellow/tpep_pickup_date={DAY}").num_rows
    assert output.splitlines()[:2] == ["trips", str(rows)]
    assert "one SELECT: DELETE is rejected" in run_command(
        "query", "DELETE FROM x", "--store", store, code=2
    )


def test_inspect_prints_object() -> None:
    key = f"yellow/tpep_pickup_date={DAY}/trips.parquet"
    output = run_command("inspect", key, "--rows", "2")
    assert "columns: vendorid int64, tpep_pickup_datetime timestamp[us], " in output
    assert output.count(f"\n1         {DAY} ") + output.count(f"\n2         {DAY} ") == 2
    assert "there is no " in run_command("inspect", "nothing.parquet", code=2)


def test_export_writes_object() -> None:
    output = run_command("export", "yellow", DAY)
    path = stores.lake() / f"exports/yellow_{DAY}_{DAY}.parquet"
    assert f"rows: {pq.read_table(path).num_rows}\n" in output
    # The UI marks a run of another version of its job with a warning.
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs(dg.RunsFilter(job_name="export_parquet"), limit=1)
    job = build_defs().resolve_job_def("export_parquet")
    assert run.job_snapshot_id == job.get_job_snapshot_id()
    lacking = run_command("export", "yellow", "2021-01", code=2)
    assert "does not have 30 of 31 days" in lacking
    assert lacking.count("\n") == 1
    run_command("export", "yellow", "2021-01", "--skip-missing-days", "--object", "month.parquet")
    assert pq.read_table(stores.lake() / "month.parquet").num_rows == pq.read_table(path).num_rows


def test_ctrl_c_ends_a_query_with_one_line() -> None:
    process = start_command("query", "SELECT pg_sleep(100)")
    with psycopg.connect(**postgres_arguments(), autocommit=True) as watcher:
        sleeping = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        until(lambda: watcher.execute(sleeping).fetchone() is not None, 60, 0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "interrupted\n")
