"""`taxi-assets backfill` loads nothing twice: killed, stopped, started again, on a queue."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections import Counter
from datetime import date
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster import DagsterRunStatus
from dagster._utils.hosted_user_process import recon_job_from_origin

from taxi_assets.cli.day_states import ASSETS
from taxi_assets.dagster_internals.run_queue import has_live_queue
from taxi_assets.date_ranges import Month
from taxi_assets.definitions import build_defs
from taxi_assets.defs.resources.lake import LakeResource
from taxi_assets.defs.resources.month_lock import MonthLocks, open_lock_store
from taxi_assets.tlc.sample import write_sample_month
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.cli.conftest import Months, run_command, start_command
from taxi_assets_tests.conftest import REAL_ROWS, RealRows
from taxi_assets_tests.stores import Runs, pandas_totals, postgres_arguments, store_totals
from taxi_assets_tests.test_server import dagster_dev, until
from taxi_assets_tests.tlc.files import make_line

YELLOW, GREEN = SERVICES["yellow"], SERVICES["green"]
PUBLISHED = {"2020-05": 57_360, "2020-10": 95_120, "2020-11": 88_605, "2020-12": 83_130}
"""Rows of the green months of 2020 that are at hand."""


def count_materializations(instance: dg.DagsterInstance, service: str) -> Counter[tuple[str, str]]:
    """Count how often each asset has stored each day."""
    counts: Counter[tuple[str, str]] = Counter()
    for name in ASSETS:
        key, cursor, more = dg.AssetKey([service, name]), None, True
        while more:
            page = instance.fetch_materializations(key, limit=1000, cursor=cursor)
            counts.update((name, record.partition_key or "") for record in page.records)
            cursor, more = page.cursor, page.has_more
    return counts


def kill_when_stored(
    process: subprocess.Popen[str],
    instance: dg.DagsterInstance,
    service: str,
    asset: str,
    days: int,
) -> set[str]:
    """Kill the process as soon as an asset has stored that many days; return its open runs."""
    key = dg.AssetKey([service, asset])
    deadline = time.monotonic() + 300
    while len(instance.get_materialized_partitions(key)) < days:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    return {run.run_id for run in instance.get_runs() if not run.is_finished}


def test_backfill_killed_twice_loads_every_day_once(
    instance: dg.DagsterInstance, months: Months
) -> None:
    for month in ("2021-01", "2021-02"):
        months.write(month)
    arguments = ("backfill", "yellow", "2021-01..2021-03")
    killed = kill_when_stored(start_command(*arguments), instance, "yellow", "raw_trips", 31)
    killed |= kill_when_stored(start_command(*arguments), instance, "yellow", "postgres_trips", 31)
    output = run_command(*arguments, code=1)
    last_line = output.strip().splitlines()[-1]
    assert last_line == "yellow 2021-01-01 to 2021-03-31: 59 days loaded, 31 left in 2021-03"
    assert "2021-03: not published, 31 days left: " in output
    assert f"{months.folder / 'yellow_tripdata_2021-03.csv.gz'} does not exist; " in output
    counts = count_materializations(instance, "yellow")
    assert len(counts) == 59 * len(ASSETS)
    assert set(counts.values()) == {1}
    expected = {day: (3, 30.06) for name in (1, 2) for day in Month(2021, name).window}
    assert store_totals(YELLOW) == dict.fromkeys(("postgres", "lake", "bigquery"), expected)
    statuses = {run.run_id: run.status for run in instance.get_runs()}
    # The killed runs have failed, and none is still running.
    assert killed
    assert {run for run, status in statuses.items() if status == DagsterRunStatus.FAILURE} == killed
    assert set(statuses.values()) == {DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS}


@pytest.fixture
def green_months(tmp_path: Path) -> RealRows:
    """Return the published green months of 2020, or generated ones if they are not at hand."""
    if REAL_ROWS.is_dir():
        return RealRows(REAL_ROWS)
    generated = RealRows(tmp_path / "made")
    for month, rows in PUBLISHED.items():
        path = generated.path("green", month)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sample_month(GREEN, Month(2020, int(month[-2:])), path, rows)
    return generated


def test_backfill_of_2020_killed_twice_loads_or_names_every_day(
    instance: dg.DagsterInstance, green_months: RealRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", green_months.template)
    monkeypatch.setenv("TAXI_START_DATE", "2020-04-01")
    arguments = ("backfill", "green", "2020-04..2020-12")
    kill_when_stored(start_command(*arguments), instance, "green", "cleaned_trips", 10)
    kill_when_stored(start_command(*arguments), instance, "green", "gcs_trips", 62)
    output = run_command(*arguments, code=1)
    assert output.strip().splitlines()[-1] == (
        "green 2020-04-01 to 2020-12-31: 123 days loaded, 152 left in "
        "2020-04, 2020-06, 2020-07, 2020-08, 2020-09"
    )
    assert set(count_materializations(instance, "green").values()) == {1}
    for absent in ("04", "06", "07", "08", "09"):
        assert f"2020-{absent}: not published, " in output
    expected = {}
    for month in PUBLISHED:
        expected |= pandas_totals(green_months.path("green", month), GREEN)
    assert store_totals(GREEN) == dict.fromkeys(("postgres", "lake", "bigquery"), expected)


def test_ctrl_c_ends_the_run_and_names_the_next_command(
    instance: dg.DagsterInstance, months: Months
) -> None:
    months.write("2021-01")
    first_run = Runs(instance=instance).run("yellow", "2021-01-01")
    assert first_run.success
    raw = dg.AssetKey(["yellow", "raw_trips"])
    with psycopg.connect(**postgres_arguments()) as blocker:
        # The run does not end before it is interrupted.
        blocker.execute("LOCK TABLE ny_taxi.yellow_cab_data IN ACCESS EXCLUSIVE MODE")
        process = start_command("backfill", "yellow", "2021-01")
        until(lambda: len(instance.get_materialized_partitions(raw)) > 1, 120, 0.02)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    last_line = output.strip().splitlines()[-1]
    assert last_line.startswith(
        "interrupted; run this again to continue. yellow 2021-01-01 to 2021-01-31:"
    )
    assert "Traceback" not in output
    (stopped,) = [run for run in instance.get_runs() if run.run_id != first_run.run_id]
    assert stopped.status in (DagsterRunStatus.CANCELED, DagsterRunStatus.FAILURE)
    run_command("backfill", "yellow", "2021-01")
    assert set(count_materializations(instance, "yellow").values()) == {1}


@pytest.mark.parametrize("command", ["plan", "backfill"])
def test_ctrl_c_while_a_source_is_silent_ends_at_once(
    instance: dg.DagsterInstance, command: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        months = f"http://127.0.0.1:{server.getsockname()[1]}/{{service}}_{{year}}-{{month}}.csv"
        process = start_command(command, "yellow", "2021-01..2022-12", TAXI_SOURCE=months)
        connection, _ = server.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=10)
    assert (process.returncode, output) == (130, "interrupted\n")
    assert instance.get_runs() == []


def test_only_requested_days_and_states_are_launched(
    instance: dg.DagsterInstance, months: Months
) -> None:
    for month in ("2021-01", "2021-02"):
        months.write(month)
    planned = run_command("backfill", "yellow", "2021-01-30..2021-02-02", "--dry-run", code=1)
    assert planned.splitlines()[0].startswith("2021-01-30 to 2021-01-31: raw_trips, cleaned_trips")
    assert "2 runs would start" in planned
    assert instance.get_runs() == []
    output = run_command("backfill", "yellow", "2021-01-30..2021-02-02", "--max-runs", "1", code=1)
    assert output.strip().endswith("2 days loaded, 2 left in 2021-02")
    output = run_command(
        "backfill", "yellow", "2021-01-30..2021-02-02", "--only", "stale,rejected", code=1
    )
    assert "0 days in 0 runs" in output
    assert len(instance.get_runs()) == 1


def test_days_that_wait_in_a_queue_without_a_daemon_name_the_next_command(
    instance: dg.DagsterInstance, months: Months
) -> None:
    months.write("2021-01")
    job = build_defs().resolve_job_def("yellow_daily")
    tags = {"dagster/partition": "2021-01-05"}
    run = instance.create_run_for_job(job, tags=tags, status=DagsterRunStatus.QUEUED)
    output = run_command("backfill", "yellow", "2021-01-05", code=1)
    text = f"run {run.run_id[:8]} waits in the queue (start dg dev or dagster-daemon; then run this"
    assert text in " ".join(output.split())


def test_only_changed_days_of_a_restated_month_run_downstream(
    instance: dg.DagsterInstance, months: Months
) -> None:
    months.write("2021-01")
    assert Runs(instance=instance).run("yellow", "2021-01-01", "2021-01-31").success
    lines = months.lines("2021-01")
    restated = sorted([make_line("2021-01-05 09:00:00", total_amount="7"), *lines[:-1]])
    months.write("2021-01", restated)
    counts_before = count_materializations(instance, "yellow")
    arguments = ("backfill", "yellow", "2021-01", "--only", "restated")
    assert run_command(*arguments, "--dry-run", code=1).splitlines()[0] == (
        "2021-01-01 to 2021-01-31: raw_trips, then the other assets for the days that changed"
    )
    output = run_command(*arguments, "--max-runs", "2", code=1)
    assert "2 of 31 restated days changed: 2 runs" in output
    assert output.strip().endswith("30 days loaded, 1 left in 2021-01")
    run_command("backfill", "yellow", "2021-01")
    new_counts = count_materializations(instance, "yellow") - counts_before
    assert set(new_counts.values()) == {1}
    days = {name: {day for asset, day in new_counts if asset == name} for name in ASSETS}
    assert days.pop("raw_trips") == {str(day) for day in Month(2021, 1).window}
    assert days == {name: {"2021-01-05", "2021-01-31"} for name in ASSETS[1:]}
    assert store_totals(YELLOW)["bigquery"][date(2021, 1, 5)] == (4, 37.06)
    # Runs without raw_trips recorded from which raw rows they made these days.
    months.write("2021-01", sorted([make_line("2021-01-09 09:00:00", total_amount="7"), *restated]))
    output = run_command("backfill", "yellow", "2021-01")
    assert "1 of 31 restated days changed: 1 run" in output


def test_each_state_launches_its_own_days_only(
    instance: dg.DagsterInstance, months: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(instance=instance)
    months.write("2021-01")
    assert runs.run("yellow", "2021-01-30").success
    lines = months.lines("2021-01")
    bad_index = next(index for index, line in enumerate(lines) if b"2021-01-28 01" in line)
    lines[bad_index] = lines[bad_index].replace(b"10.01", b"ten")
    months.write("2021-01", lines)
    assert not runs.run("yellow", "2021-01-28").success
    with monkeypatch.context() as other_rules:
        other_rules.setenv("TAXI_DROP", "none")
        assert runs.run("yellow", "2021-01-29").success
    due = {"missing": "27", "rejected": "28", "stale": "29", "restated": "30"}
    for state, day in due.items():
        counts_before = count_materializations(instance, "yellow")
        run_command("backfill", "yellow", "2021-01-27..2021-01-30", "--only", state, code=1)
        new_counts = count_materializations(instance, "yellow") - counts_before
        assert {day for _, day in new_counts} == {f"2021-01-{day}"}, state
        assert set(new_counts.values()) == {1}, state
    # None belongs to a day that is loaded now; the rejected day still has its run.
    plan = run_command("backfill", "yellow", "2021-01-27..2021-01-30", "--dry-run", code=1)
    assert [line.split(":")[0] for line in plan.splitlines()[:-1]] == ["2021-01-28"]


def test_failing_day_is_named_and_the_others_are_loaded(
    instance: dg.DagsterInstance, months: Months
) -> None:
    lines = months.lines("2021-01")
    lines[-1] = lines[-1].replace(b"10.03", b"ten")
    months.write("2021-01", lines)
    output = run_command("backfill", "yellow", "2021-01-29..2021-01-31", code=1)
    assert "2021-01 rejected: 2021-01-31: yellow/cleaned_trips rejected it in run" in output
    assert output.strip().endswith("2 days loaded, 1 left in 2021-01")
    months.write("2021-01")
    assert "0 left" in run_command("backfill", "yellow", "2021-01-29..2021-01-31")


def test_second_concurrent_backfill_of_a_service_is_rejected(
    instance: dg.DagsterInstance, months: Months
) -> None:
    months.write("2021-01")
    # Its run waits for the month until the second one has ended.
    month_locks = MonthLocks("other", lambda: open_lock_store(LakeResource().lake))
    month_locks.acquire(YELLOW, [date(2021, 1, 1)], pytest.fail)
    try:
        first_backfill = start_command("backfill", "yellow", "2021-01")
        until(instance.get_runs, 120, 0.02)
        output = run_command("backfill", "yellow", "2021-01", code=2)
    finally:
        month_locks.close()
    assert "another backfill of yellow runs on this instance" in output
    assert output.count("\n") == 1
    assert first_backfill.wait(300) == 0


def test_backfill_goes_through_the_queue_of_a_running_daemon(
    empty_stores: None, months: Months, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for month in ("2021-01", "2021-02"):
        months.write(month)
    folder = tmp_path / "served"
    folder.mkdir()
    with dagster_dev(folder, monkeypatch), dg.DagsterInstance.get() as instance:
        until(lambda: has_live_queue(instance), 180)
        output = run_command("backfill", "yellow", "2021-01-31..2021-02-01")
        assert "2 days in 2 runs through the queue" in output
        assert output.strip().endswith("2 days loaded, 0 left")
        assert set(count_materializations(instance, "yellow").values()) == {1}
        runs = instance.get_runs()
        assert {run.status for run in runs} == {DagsterRunStatus.SUCCESS}
        # Launchers without a code server (Cloud Run, Kubernetes) start the run from this.
        assert runs[0].job_code_origin
        job = recon_job_from_origin(runs[0].job_code_origin).get_definition()
        assert job.name == runs[0].job_name == "yellow_daily"
    assert set(store_totals(YELLOW)["bigquery"]) == {date(2021, 1, 31), date(2021, 2, 1)}
