"""Ticks of the daily schedule, against a real server of month files."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from taxi_assets.definitions import build_defs
from taxi_assets.defs.automation.schedules import build_daily_schedule
from taxi_assets.errors import SourceError
from taxi_assets.settings.areas import AutomationSettings
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.fake_http_server import Site, answer

GREEN = SERVICES["green"]
NEW_YORK = ZoneInfo("America/New_York")


@pytest.fixture(autouse=True)
def _first_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_START_DATE", "2021-01-01")


@cache
def repository() -> dg.RepositoryDefinition:
    return build_defs().get_repository_def()


def evaluate_schedule(day: str) -> Any:
    """Evaluate the schedule at 06:00 in New York on a day."""
    execution_time = datetime.fromisoformat(f"{day}T06:00").replace(tzinfo=NEW_YORK)
    context = dg.build_schedule_context(
        instance=dg.DagsterInstance.ephemeral(),
        scheduled_execution_time=execution_time,
        repository_def=repository(),
    )
    return build_daily_schedule(GREEN, AutomationSettings.from_env()).evaluate_tick(context)


@pytest.fixture
def source(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Serve January 2021."""
    site.months = {"/green/green_tripdata_2021-01.csv.gz": b"rows"}
    monkeypatch.setenv("TAXI_SOURCE", site.template)
    return site


def test_schedule_runs_every_morning_in_new_york() -> None:
    schedule = build_defs().resolve_schedule_def("green_daily_schedule")
    assert schedule.cron_schedule == "0 6 * * *"
    assert schedule.execution_timezone == "America/New_York"
    assert schedule.job_name == "green_daily"


def test_schedule_of_the_sample_requests_yesterday() -> None:
    (request,) = evaluate_schedule("2021-03-15").run_requests
    assert request.partition_key == request.tags["dagster/partition"] == "2021-03-14"


def test_day_of_the_lag_is_requested_once(source: Site) -> None:
    (request,) = evaluate_schedule("2021-05-01").run_requests
    assert request.tags["dagster/partition"] == "2021-01-21"
    assert request.run_key == "green 2021-01-21"
    assert evaluate_schedule("2021-05-01").run_requests[0].run_key == request.run_key
    assert source.head_paths == ["/green/green_tripdata_2021-01.csv.gz"] * 2
    assert source.get_requests == []


@pytest.mark.parametrize("status", [403, 404])
def test_unpublished_month_is_skipped(source: Site, status: int) -> None:
    source.head_faults = [answer(status)]
    data = evaluate_schedule("2021-06-01")
    assert data.run_requests == []
    assert data.skip_message == (
        "green 2021-02 is not published yet, so 2021-02-21 is not requested; "
        "green_new_month_sensor, if it runs, loads the month once it is"
    )


def test_presigned_month_with_forbidden_head_is_requested(source: Site) -> None:
    source.head_faults = [answer(403)]
    assert [request.partition_key for request in evaluate_schedule("2021-05-01").run_requests] == [
        "2021-01-21"
    ]


def test_day_before_the_first_partition_is_skipped(source: Site) -> None:
    data = evaluate_schedule("2021-03-01")
    assert data.run_requests == []
    assert "2020-11-21 (100 days ago) is before the first partition, 2021-01-01" in (
        data.skip_message
    )


@pytest.mark.parametrize(("lag", "days"), [(1, "1 day before"), (100, "100 days before")])
def test_description_counts_days(lag: int, days: str) -> None:
    schedule = build_daily_schedule(SERVICES["green"], AutomationSettings(schedule_lag_days=lag))
    assert f"green trips of {days} (TAXI_SCHEDULE_LAG_DAYS)" in str(schedule.description)


def test_schedule_ends_with_the_partitions(source: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_END_DATE", "2021-01-21")
    assert [request.partition_key for request in evaluate_schedule("2021-05-01").run_requests] == [
        "2021-01-21"
    ]
    data = evaluate_schedule("2021-05-02")
    assert data.run_requests == []
    assert data.skip_message == (
        "2021-01-22 (100 days ago) is after the last partition, 2021-01-21 (TAXI_END_DATE)"
    )
    assert len(source.head_paths) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_failing_source_costs_no_day(source: Site, status: int) -> None:
    source.head_faults = [answer(status)]
    assert [request.partition_key for request in evaluate_schedule("2021-05-01").run_requests] == [
        "2021-01-21"
    ]


def test_closed_port_costs_no_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_SOURCE", "http://127.0.0.1:9/{service}/{year}-{month}.csv")
    assert [request.partition_key for request in evaluate_schedule("2021-05-01").run_requests] == [
        "2021-01-21"
    ]


def test_rejecting_source_fails_the_tick(source: Site) -> None:
    source.head_faults = source.get_faults = [answer(401)] * 2
    with pytest.raises(dg.DagsterError) as failed:
        evaluate_schedule("2021-05-01")
    cause = failed.value.__cause__
    assert isinstance(cause, SourceError)
    assert "the server answered 401; set the user and password" in str(cause)


def test_local_files_are_requested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_SOURCE", f"{tmp_path}/{{service}}_{{year}}-{{month}}.csv")
    assert "not published yet" in evaluate_schedule("2021-05-01").skip_message
    (tmp_path / "green_2021-01.csv").write_text("VendorID\n")
    assert len(evaluate_schedule("2021-05-01").run_requests) == 1
