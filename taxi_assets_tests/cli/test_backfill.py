"""`taxi-assets backfill`: killed, stopped, started again, on a queue; nothing is loaded twice."""

from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from taxi_assets.cli.day_states import ASSETS
from taxi_assets.dagster_internals.run_queue import has_live_queue
from taxi_assets.date_ranges import Month
from taxi_assets.tlc.sample import write_sample_month
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.cli.conftest import Months, run, start
from taxi_assets_tests.conftest import REAL_ROWS, RealRows
from taxi_assets_tests.stores import Runs, pandas_totals, store_totals
from taxi_assets_tests.test_server import dagster_dev, until
from taxi_assets_tests.tlc.files import make_line

YELLOW, GREEN = SERVICES["yellow"], SERVICES["green"]
PUBLISHED = {"2020-05": 57_360, "2020-10": 95_120, "2020-11": 88_605, "2020-12": 83_130}
"""Rows of the green months of 2020 that are at hand."""


def times_stored(instance: dg.DagsterInstance, service: str) -> Counter[tuple[str, str]]:
    """How often each asset has stored each day."""
    found: Counter[tuple[str, str]] = Counter()
    for name in ASSETS:
        key, cursor, more = dg.AssetKey([service, name]), None, True
        while more:
            page = instance.fetch_materializations(key, limit=1000, cursor=cursor)
            found.update((name, record.partition_key or "") for record in page.records)
            cursor, more = page.cursor, page.has_more
    return found


def kill_when_stored(
    process: subprocess.Popen[str],
    instance: dg.DagsterInstance,
    service: str,
    asset: str,
    days: int,
) -> None:
    """Kill the process as soon as an asset has stored so many days."""
    key = dg.AssetKey([service, asset])
    deadline = time.monotonic() + 120
    while len(instance.get_materialized_partitions(key)) < days:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()


def test_killed_twice_and_started_again_every_day_is_loaded_once(
    instance: dg.DagsterInstance, months: Months
) -> None:
    for month in ("2021-01", "2021-02"):
        months.write(month)
    arguments = ("backfill", "yellow", "2021-01..2021-03")
    kill_when_stored(start(*arguments), instance, "yellow", "raw_trips", 31)
    kill_when_stored(start(*arguments), instance, "yellow", "postgres_trips", 31)
    said = run(*arguments, code=1)
    last = said.strip().splitlines()[-1]
    assert last == "yellow 2021-01-01 to 2021-03-31: 59 days loaded, 31 left in 2021-03"
    assert "2021-03: not published, 31 days left" in said
    stored = times_stored(instance, "yellow")
    assert len(stored) == 59 * len(ASSETS)
    assert set(stored.values()) == {1}
    expected = {day: (3, 30.06) for name in (1, 2) for day in Month(2021, name).window}
    assert store_totals(YELLOW) == dict.fromkeys(("postgres", "lake", "bigquery"), expected)
    statuses = Counter(run.status for run in instance.get_runs())
    # The runs that died are ended, and none is left running.
    assert statuses[DagsterRunStatus.FAILURE] == 2
    assert set(statuses) == {DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS}


@pytest.fixture
def green_months(tmp_path: Path) -> RealRows:
    """The published green months of 2020, or as many generated ones where they are not at hand."""
    if REAL_ROWS.is_dir():
        return RealRows(REAL_ROWS)
    made = RealRows(tmp_path / "made")
    for month, rows in PUBLISHED.items():
        path = made.path("green", month)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sample_month(GREEN, Month(2020, int(month[-2:])), path, rows)
    return made


def test_months_of_2020_killed_twice_end_with_every_day_loaded_or_named(
    instance: dg.DagsterInstance, green_months: RealRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", green_months.template)
    monkeypatch.setenv("TAXI_START_DATE", "2020-04-01")
    arguments = ("backfill", "green", "2020-04..2020-12")
    kill_when_stored(start(*arguments), instance, "green", "cleaned_trips", 10)
    kill_when_stored(start(*arguments), instance, "green", "gcs_trips", 62)
    said = run(*arguments, code=1)
    assert said.strip().splitlines()[-1] == (
        "green 2020-04-01 to 2020-12-31: 123 days loaded, 152 left in "
        "2020-04, 2020-06, 2020-07, 2020-08, 2020-09"
    )
    assert set(times_stored(instance, "green").values()) == {1}
    for absent in ("04", "06", "07", "08", "09"):
        assert f"2020-{absent}: not published, " in said
    expected = {}
    for month in PUBLISHED:
        expected |= pandas_totals(green_months.path("green", month), GREEN)
    assert store_totals(GREEN) == dict.fromkeys(("postgres", "lake", "bigquery"), expected)


def test_ctrl_c_ends_the_run_and_says_how_to_go_on(
    instance: dg.DagsterInstance, months: Months
) -> None:
    months.write("2021-01")
    process = start("backfill", "yellow", "2021-01")
    until(
        lambda: instance.get_materialized_partitions(dg.AssetKey(["yellow", "raw_trips"])), 60, 0.02
    )
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    last = said.strip().splitlines()[-1]
    assert last.startswith(
        "interrupted; run this again to continue. yellow 2021-01-01 to 2021-01-31:"
    )
    assert "Traceback" not in said
    (stopped,) = instance.get_runs()
    assert stopped.status in (DagsterRunStatus.CANCELED, DagsterRunStatus.FAILURE)
    run("backfill", "yellow", "2021-01")
    assert set(times_stored(instance, "yellow").values()) == {1}


def test_only_what_is_asked_for_is_launched(instance: dg.DagsterInstance, months: Months) -> None:
    for month in ("2021-01", "2021-02"):
        months.write(month)
    planned = run("backfill", "yellow", "2021-01-30..2021-02-02", "--dry-run", code=1)
    assert planned.splitlines()[0].startswith("2021-01-30 to 2021-01-31: raw_trips, cleaned_trips")
    assert "2 runs would start" in planned
    assert instance.get_runs() == []
    said = run("backfill", "yellow", "2021-01-30..2021-02-02", "--max-runs", "1", code=1)
    assert said.strip().endswith("2 days loaded, 2 left in 2021-02")
    said = run("backfill", "yellow", "2021-01-30..2021-02-02", "--only", "stale,rejected", code=1)
    assert "0 days in 0 runs" in said
    assert len(instance.get_runs()) == 1


def test_of_a_restated_month_only_the_days_that_changed_go_past_their_raw_rows(
    instance: dg.DagsterInstance, months: Months
) -> None:
    months.write("2021-01")
    assert Runs(instance=instance).run("yellow", "2021-01-01", "2021-01-31").success
    lines = months.lines("2021-01")
    months.write(
        "2021-01", sorted([make_line("2021-01-05 09:00:00", total_amount="7"), *lines[:-1]])
    )
    before = times_stored(instance, "yellow")
    arguments = ("backfill", "yellow", "2021-01", "--only", "restated")
    assert run(*arguments, "--dry-run", code=1).splitlines()[0] == (
        "2021-01-01 to 2021-01-31: raw_trips, then the other assets for the days that changed"
    )
    said = run(*arguments, "--max-runs", "2", code=1)
    assert "2 of 31 restated days changed: 2 runs" in said
    assert said.strip().endswith("30 days loaded, 1 left in 2021-01")
    run("backfill", "yellow", "2021-01")
    again = times_stored(instance, "yellow") - before
    assert set(again.values()) == {1}
    days = {name: {day for asset, day in again if asset == name} for name in ASSETS}
    assert days.pop("raw_trips") == {str(day) for day in Month(2021, 1).window}
    assert days == {name: {"2021-01-05", "2021-01-31"} for name in ASSETS[1:]}
    assert store_totals(YELLOW)["bigquery"][date(2021, 1, 5)] == (4, 37.06)


def test_each_state_launches_its_own_days_and_no_other(
    instance: dg.DagsterInstance, months: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(instance=instance)
    months.write("2021-01")
    assert runs.run("yellow", "2021-01-30").success
    lines = months.lines("2021-01")
    bad = next(at for at, line in enumerate(lines) if b"2021-01-28 01" in line)
    lines[bad] = lines[bad].replace(b"10.01", b"ten")
    months.write("2021-01", lines)
    assert not runs.run("yellow", "2021-01-28").success
    with monkeypatch.context() as other_rules:
        other_rules.setenv("TAXI_DROP", "none")
        assert runs.run("yellow", "2021-01-29").success
    due = {"missing": "27", "rejected": "28", "stale": "29", "restated": "30"}
    for state, day in due.items():
        before = times_stored(instance, "yellow")
        run("backfill", "yellow", "2021-01-27..2021-01-30", "--only", state, code=1)
        stored = times_stored(instance, "yellow") - before
        assert {day for _, day in stored} == {f"2021-01-{day}"}, state
        assert set(stored.values()) == {1}, state
    # None of them was a day's that is loaded now; the rejected one still is.
    left = run("backfill", "yellow", "2021-01-27..2021-01-30", "--dry-run", code=1)
    assert [line.split(":")[0] for line in left.splitlines()[:-1]] == ["2021-01-28"]


def test_a_day_that_fails_is_named_and_the_others_are_loaded(
    instance: dg.DagsterInstance, months: Months
) -> None:
    lines = months.lines("2021-01")
    lines[-1] = lines[-1].replace(b"10.03", b"ten")
    months.write("2021-01", lines)
    said = run("backfill", "yellow", "2021-01-29..2021-01-31", code=1)
    assert "2021-01 rejected: 2021-01-31: yellow/cleaned_trips rejected it in run" in said
    assert said.strip().endswith("2 days loaded, 1 left in 2021-01")
    months.write("2021-01")
    assert "0 left" in run("backfill", "yellow", "2021-01-29..2021-01-31")


def test_two_backfills_of_a_service_at_once_are_one(
    instance: dg.DagsterInstance, months: Months
) -> None:
    months.write("2021-01")
    first = start("backfill", "yellow", "2021-01")
    until(instance.get_runs, 60, 0.02)
    said = run("backfill", "yellow", "2021-01", code=2)
    assert "another backfill of yellow runs on this instance" in said
    assert said.count("\n") == 1
    assert first.wait(60) == 0


def test_through_the_queue_of_a_running_daemon(
    empty_stores: None, months: Months, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for month in ("2021-01", "2021-02"):
        months.write(month)
    folder = tmp_path / "served"
    folder.mkdir()
    with dagster_dev(folder, monkeypatch), dg.DagsterInstance.get() as instance:
        until(lambda: has_live_queue(instance), 60)
        said = run("backfill", "yellow", "2021-01-31..2021-02-01")
        assert "2 days in 2 runs through the queue" in said
        assert said.strip().endswith("2 days loaded, 0 left")
        assert set(times_stored(instance, "yellow").values()) == {1}
        assert {run.status for run in instance.get_runs()} == {DagsterRunStatus.SUCCESS}
    assert set(store_totals(YELLOW)["bigquery"]) == {date(2021, 1, 31), date(2021, 2, 1)}
