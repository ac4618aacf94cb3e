"""Schedule, sensor and API on Dagster's real webserver and daemon, one for all tests."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import ScheduleInstigatorData

from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.defs.automation.test_sensors import build_path, make_month_content
from taxi_assets_tests.fake_http_server import Site, serving
from taxi_assets_tests.stores import store_totals
from taxi_assets_tests.test_server import DAGSTER, ask, dagster_dev, until
from taxi_assets_tests.tlc.files import HEADER, make_line

SELECTOR = {
    "repositoryName": "__repository__",
    "repositoryLocationName": "taxi_assets.definitions",
}
SCHEDULED = date(2021, 2, 10)
"""The day that the first tick of the schedules requests."""
GREEN, YELLOW = SERVICES["green"], SERVICES["yellow"]
WEEK = [f"2021-01-{day:02d}" for day in range(1, 8)]


def find_last_morning() -> datetime:
    """Return the last time that it was 06:00 in New York."""
    now = datetime.now(ZoneInfo("America/New_York"))
    morning = now.replace(hour=6, minute=0, second=0, microsecond=0)
    return morning if now >= morning else morning - timedelta(days=1)


def start_schedules(folder: Path, morning: datetime) -> None:
    """Start the schedules as of before a morning, so that the daemon catches up its tick."""
    shutil.copy(REPOSITORY / "dagster.yaml", folder)
    subprocess.run(
        [DAGSTER, "schedule", "start", "--start-all"],
        check=True,
        capture_output=True,
        env={**os.environ, "DAGSTER_HOME": str(folder)},
    )
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        for state in instance.all_instigator_state():
            data = state.instigator_data
            assert isinstance(data, ScheduleInstigatorData)
            since = data._replace(start_timestamp=morning.timestamp() - 60)
            instance.update_instigator_state(state.with_data(since))


def yellow_file(month: str) -> bytes:
    """Return a month file of one row a day, up to the 28th."""
    rows = [make_line(f"{month}-{day:02d} 08:00:00") for day in range(1, 29)]
    return gzip.compress(HEADER + b"\n".join([*rows, b""]), mtime=0)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Serve yellow's January and February, and nothing of green."""
    with serving() as here:
        here.months = {
            f"/yellow/yellow_tripdata_{month}.csv.gz": yellow_file(month)
            for month in ("2021-01", "2021-02")
        }
        yield here


@pytest.fixture(scope="module")
def server(home: Path, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server whose source is the site; yield its GraphQL address."""
    folder = tmp_path_factory.mktemp("daemon")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GCS_BUCKET", "automated")
        patch.setenv("TAXI_SOURCE", site.template)
        patch.setenv("TAXI_START_DATE", "2021-01-01")
        patch.setenv("TAXI_SENSOR_INTERVAL_SECONDS", "1")
        morning = find_last_morning()
        patch.setenv("TAXI_SCHEDULE_LAG_DAYS", str((morning.date() - SCHEDULED).days))
        start_schedules(folder, morning)
        with dagster_dev(folder, patch) as address:
            yield f"{address}/graphql"


TICKS = """
  ticks { status skipReason error { message } runIds runs { status tags { key value } } }"""
SCHEDULE = f"""query ($name: String!, $place: String!, $where: String!) {{
  scheduleOrError(scheduleSelector: {{
    scheduleName: $name, repositoryName: $place, repositoryLocationName: $where
  }}) {{ ... on Schedule {{ scheduleState {{ {TICKS} }} }} }} }}"""
SENSOR = f"""query ($sensor: SensorSelector!) {{
  sensorOrError(sensorSelector: $sensor) {{ ... on Sensor {{ sensorState {{ {TICKS} }} }} }} }}"""
START = """mutation ($sensor: SensorSelector!) {
  startSensor(sensorSelector: $sensor) { __typename } }"""
CURSOR = """mutation ($sensor: SensorSelector!) {
  setSensorCursor(sensorSelector: $sensor, cursor: null) { __typename } }"""
OBSERVED = """query ($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset {
  assetObservations { partition runId } } } }"""
SENSOR_OF_GREEN = {**SELECTOR, "sensorName": "green_new_month_sensor"}


def wait_for_schedule_tick(server: str, name: str) -> dict[str, Any]:
    """Return the first tick of a schedule once it has ended; the next morning may come."""
    place, where = SELECTOR.values()

    def ended() -> dict[str, Any] | None:
        response = ask(server, SCHEDULE, name=name, place=place, where=where)["scheduleOrError"]
        ticks = [tick for tick in response["scheduleState"]["ticks"] if tick["status"] != "STARTED"]
        return ticks[-1] if ticks else None

    return until(ended, 180)


def list_sensor_ticks(server: str) -> list[dict[str, Any]]:
    """Return the ended ticks of green's sensor, the latest first."""
    response = ask(server, SENSOR, sensor=SENSOR_OF_GREEN)["sensorOrError"]["sensorState"]["ticks"]
    return [tick for tick in response if tick["status"] != "STARTED"]


def list_requested_runs(server: str) -> list[dict[str, Any]]:
    """Return the runs that green's sensor requested, the first one first."""
    return [run for tick in reversed(list_sensor_ticks(server)) for run in tick["runs"]]


def wait_for_run(server: str, number: int) -> dict[str, str]:
    """Return the tags of the sensor's run of that number after its success."""

    def ended() -> dict[str, Any] | None:
        runs = list_requested_runs(server)
        has_ended = len(runs) > number and runs[number]["status"] in ("SUCCESS", "FAILURE")
        return runs[number] if has_ended else None

    run = until(ended, 300)
    assert run["status"] == "SUCCESS"
    return {tag["key"]: tag["value"] for tag in run["tags"]}


def test_schedule_requests_the_day_of_the_lag(server: str) -> None:
    tick = wait_for_schedule_tick(server, "yellow_daily_schedule")
    assert tick["status"] == "SUCCESS", tick
    (run,) = tick["runs"]
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert tags["dagster/partition"] == str(SCHEDULED)
    assert tags["dagster/run_key"] == f"yellow {SCHEDULED}"

    def landed() -> bool:
        (run,) = wait_for_schedule_tick(server, "yellow_daily_schedule")["runs"]
        assert run["status"] != "FAILURE"
        return run["status"] == "SUCCESS"

    until(landed, 300)
    assert SCHEDULED in store_totals(YELLOW)["postgres"]


def test_schedule_gives_its_reason_to_skip(server: str) -> None:
    tick = wait_for_schedule_tick(server, "green_daily_schedule")
    assert tick["status"] == "SKIPPED"
    assert (
        "green 2021-02 is not published yet, so 2021-02-10 is not requested" in (tick["skipReason"])
    )


def test_sensor_loads_published_and_restated_months(server: str, site: Site) -> None:
    assert site.months is not None
    started = ask(server, START, sensor=SENSOR_OF_GREEN)["startSensor"]
    assert started["__typename"] == "Sensor"
    first_tick = until(lambda: list_sensor_ticks(server), 180)[-1]
    assert first_tick["status"] == "SKIPPED"
    assert "not published (2021-01 the first)" in first_tick["skipReason"]

    site.months[build_path("2021-03")] = make_month_content("2021-03")
    tags = wait_for_run(server, 0)
    assert tags["dagster/asset_partition_range_start"] == "2021-03-01"
    assert tags["dagster/asset_partition_range_end"] == "2021-03-31"
    assert tags["month_file"] == "2021-03 new"
    day = date(2021, 3, 3)
    assert store_totals(GREEN)["bigquery"][day] == (1, 10.0)

    site.months[build_path("2021-03")] = make_month_content("2021-03", total=99.0)
    until(lambda: len(list_requested_runs(server)) == 2, 180)
    # As after a crash of the daemon: the cursor does not have the last tick's requests.
    ask(server, CURSOR, sensor=SENSOR_OF_GREEN)
    tick_count = len(list_sensor_ticks(server))
    assert wait_for_run(server, 1)["month_file"] == "2021-03 restated"
    assert store_totals(GREEN)["bigquery"][day] == (1, 99.0)
    until(lambda: len(list_sensor_ticks(server)) > tick_count + 1, 180)
    assert len(list_requested_runs(server)) == 2
    observed = ask(server, OBSERVED, key={"path": ["green", "trip_file"]})["assetOrError"]
    assert {observation["partition"] for observation in observed["assetObservations"]} == {
        "2021-03-01"
    }
    # By the sensor, which has no run, and by the run that read the file: each version twice.
    runs = [
        observation["runId"]
        for observation in observed["assetObservations"]
        if observation["runId"]
    ]
    assert len(runs) == 2


def test_documented_commands_start_a_day_and_a_backfill(server: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    page = (REPOSITORY / "docs" / "api.md").read_text()
    script = "\n".join(re.findall(r"^```bash\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    process = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={**os.environ, "GRAPHQL": server},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    run, ended, backfill, completed = process.stdout.splitlines()
    assert ended == f"{run}: SUCCESS"
    assert completed == f"{backfill}: COMPLETED_SUCCESS"
    totals = store_totals(YELLOW)["bigquery"]
    assert {date.fromisoformat(day) for day in WEEK} <= set(totals)


LAUNCH = """mutation ($run: ExecutionParams!) { launchRun(executionParams: $run) { __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on RunConfigValidationInvalid { errors { message } } ... on PythonError { message } } }"""


def test_invalid_run_config_starts_no_run(server: str) -> None:
    run = {
        "selector": {**SELECTOR, "jobName": "yellow_daily"},
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": WEEK[0]}]},
        "runConfigData": {"resources": {"lake": {"config": {"layout": "flat"}}}},
    }
    response = ask(server, LAUNCH, run=run)["launchRun"]
    assert response["__typename"] == "RunConfigValidationInvalid"
    assert (
        "resources:lake:config:layout not in enum type LayoutName"
        in (response["errors"][0]["message"])
    )
