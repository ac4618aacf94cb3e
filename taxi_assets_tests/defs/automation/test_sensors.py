"""Ticks of the month sensor, against a real server of month files and real raw slices."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.test_utils import freeze_time

from taxi_assets.definitions import build_defs
from taxi_assets.defs.automation import sensors
from taxi_assets.defs.automation.sensors import build_new_month_sensor
from taxi_assets.errors import SourceError
from taxi_assets.settings.areas import AutomationSettings
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line
from taxi_assets_tests.fake_http_server import Site, answer

GREEN = SERVICES["green"]
RAW = dg.AssetKey(["green", "raw_trips"])
NOW = datetime(2021, 5, 10, 12, tzinfo=UTC)
"""January to April are over."""


def make_month_content(month: str, total: float = 10.0) -> bytes:
    """Return a month's file of one row."""
    lines = [",".join(GREEN.header), make_trip_line(f"{month}-03", total)]
    return gzip.compress("\n".join([*lines, ""]).encode(), mtime=0)


def build_path(month: str) -> str:
    return f"/green/green_tripdata_{month}.csv.gz"


def daily_job() -> dg.JobDefinition:
    return build_defs().resolve_job_def("green_daily")


@dataclass
class SensorFixture:
    """A sensor with its cursor, its instance and its site."""

    site: Site
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)
    cursor: str | None = None

    def publish(self, *months: str, total: float = 10.0) -> None:
        assert self.site.months is not None
        self.site.months |= {
            build_path(month): make_month_content(month, total) for month in months
        }

    def tick(self, *, crash: bool = False) -> Any:
        """Evaluate one tick; with `crash` the daemon dies before it saves the cursor."""
        sensor = build_new_month_sensor(GREEN, AutomationSettings.from_env())
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        data = sensor.evaluate_tick(context)
        if not crash:
            self.cursor = data.cursor
            for event in data.asset_events:
                self.instance.report_runless_asset_event(event)
        return data

    def load(self, first: str, last: str) -> None:
        """Materialize raw slices like a manual run."""
        tags = dict(zip(sensors.RANGE, (first, last), strict=True))
        assert (
            daily_job()
            .execute_in_process(asset_selection=[RAW], tags=tags, instance=self.instance)
            .success
        )


@pytest.fixture
def sensor_fixture(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SensorFixture]:
    site.months = {}
    monkeypatch.setenv("TAXI_SOURCE", site.template)
    monkeypatch.setenv("TAXI_HOME", str(tmp_path))
    monkeypatch.setenv("TAXI_START_DATE", "2021-01-01")
    with freeze_time(NOW):
        yield SensorFixture(site)


def list_ranges(data: Any) -> list[tuple[str, str]]:
    return [tuple(request.tags[end] for end in sensors.RANGE) for request in data.run_requests]


def list_run_keys(data: Any) -> list[str]:
    return [request.run_key for request in data.run_requests]


# Requests


def test_days_past_the_end_are_not_requested(
    sensor_fixture: SensorFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_END_DATE", "2021-02-10")
    sensor_fixture.publish("2021-01", "2021-02", "2021-03")
    assert list_ranges(sensor_fixture.tick()) == [
        ("2021-01-01", "2021-01-31"),
        ("2021-02-01", "2021-02-10"),
    ]


def test_unpublished_months_are_named_as_reason(sensor_fixture: SensorFixture) -> None:
    data = sensor_fixture.tick()
    assert data.run_requests == []
    assert data.skip_message == ("green: 0 months unchanged; 4 not published (2021-01 the first)")
    assert len(sensor_fixture.site.head_paths) == 4
    assert sensor_fixture.site.ranges == ["bytes=0-0"] * 4


def test_new_month_is_observed_and_requested_without_a_download(
    sensor_fixture: SensorFixture,
) -> None:
    sensor_fixture.publish("2021-02")
    data = sensor_fixture.tick()
    assert list_ranges(data) == [("2021-02-01", "2021-02-28")]
    request = data.run_requests[0]
    assert request.tags["month_file"] == "2021-02 new"
    assert request.run_config == sensors.CONFIRM
    (event,) = data.asset_events
    assert (event.asset_key.path, event.partition) == (["green", "trip_file"], "2021-02-01")
    assert event.tags[DATA_VERSION_TAG]
    assert event.metadata["dagster/uri"].value == sensor_fixture.site.address + build_path(
        "2021-02"
    )
    second_tick = sensor_fixture.tick()
    assert (second_tick.run_requests, second_tick.asset_events) == ([], [])
    assert second_tick.skip_message.startswith("green: 1 month unchanged; 3 not published")
    assert sensor_fixture.site.ranges == ["bytes=0-0"] * 6


def test_restated_month_is_requested_again(sensor_fixture: SensorFixture) -> None:
    sensor_fixture.publish("2021-02")
    first_tick = sensor_fixture.tick()
    sensor_fixture.publish("2021-02", total=99.0)
    second_tick = sensor_fixture.tick()
    assert list_ranges(second_tick) == list_ranges(first_tick)
    assert set(list_run_keys(first_tick)).isdisjoint(list_run_keys(second_tick))
    assert second_tick.run_requests[0].tags["month_file"] == "2021-02 restated"
    versions = {
        event.tags[DATA_VERSION_TAG]
        for data in (first_tick, second_tick)
        for event in data.asset_events
    }
    assert len(versions) == 2


def test_month_restated_to_its_old_content_is_requested_again(
    sensor_fixture: SensorFixture,
) -> None:
    """The publisher uploads the old file again, with a new time."""
    sensor_fixture.publish("2021-02")
    requested = []
    for day, total in enumerate((10.0, 99.0, 10.0), 1):
        sensor_fixture.publish("2021-02", total=total)
        sensor_fixture.site.modified = f"Mon, {day:02d} Mar 2021 10:00:00 GMT"
        requested += list_run_keys(sensor_fixture.tick())
    assert len(set(requested)) == 3


def test_many_missing_months_are_requested_oldest_first_in_several_ticks(
    sensor_fixture: SensorFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_MONTHS_PER_TICK", "2")
    sensor_fixture.publish("2021-04", "2021-01", "2021-03")
    assert [first for first, _ in list_ranges(sensor_fixture.tick())] == [
        "2021-01-01",
        "2021-03-01",
    ]
    assert [first for first, _ in list_ranges(sensor_fixture.tick())] == ["2021-04-01"]
    assert list_ranges(sensor_fixture.tick()) == []
    sensor_fixture.publish("2021-02")
    assert [first for first, _ in list_ranges(sensor_fixture.tick())] == ["2021-02-01"]


def test_month_is_requested_in_chunks(
    sensor_fixture: SensorFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_MAX_PARTITIONS_PER_RUN", "12")
    monkeypatch.setenv("TAXI_START_DATE", "2021-01-05")
    sensor_fixture.publish("2021-01")
    data = sensor_fixture.tick()
    assert list_ranges(data) == [
        ("2021-01-05", "2021-01-16"),
        ("2021-01-17", "2021-01-28"),
        ("2021-01-29", "2021-01-31"),
    ]
    assert len(set(list_run_keys(data))) == 3


def test_current_month_is_not_probed(sensor_fixture: SensorFixture) -> None:
    sensor_fixture.publish("2021-05")
    assert sensor_fixture.tick().run_requests == []
    assert build_path("2021-05") not in sensor_fixture.site.head_paths
    with freeze_time(datetime(2021, 6, 1, 4, 1, tzinfo=UTC)):  # 00:01 in New York
        assert list_ranges(sensor_fixture.tick()) == [("2021-05-01", "2021-05-31")]


def test_request_starts_a_run_of_the_job(sensor_fixture: SensorFixture) -> None:
    sensor_fixture.publish("2021-02")
    (request,) = sensor_fixture.tick().run_requests
    result = daily_job().execute_in_process(
        asset_selection=[RAW],
        run_config=request.run_config,
        tags=request.tags,
        instance=sensor_fixture.instance,
    )
    assert result.success
    assert len(result.get_asset_materialization_events()) == 28
    # The run observed the same file, so nothing is new to the sensor.
    sensor_fixture.cursor = None
    assert sensor_fixture.tick().run_requests == []


# After a crash, and after manual loads


def test_tick_after_a_crash_has_the_same_run_keys(
    sensor_fixture: SensorFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_MAX_PARTITIONS_PER_RUN", "10")
    sensor_fixture.publish("2021-01", "2021-02")
    lost_tick = sensor_fixture.tick(crash=True)
    sensor_fixture.load("2021-01-01", "2021-01-10")  # the first of its runs has ended meanwhile
    second_tick = sensor_fixture.tick()
    assert list_run_keys(second_tick) == list_run_keys(lost_tick)[1:]
    assert list_ranges(sensor_fixture.tick()) == []


def test_manually_loaded_month_is_not_requested(sensor_fixture: SensorFixture) -> None:
    sensor_fixture.publish("2021-01", "2021-02")
    sensor_fixture.load("2021-01-01", "2021-01-31")
    data = sensor_fixture.tick()
    assert list_ranges(data) == [("2021-02-01", "2021-02-28")]
    assert [event.partition for event in data.asset_events] == ["2021-02-01"]


def test_month_with_missing_days_is_requested(
    sensor_fixture: SensorFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_MAX_PARTITIONS_PER_RUN", "16")
    sensor_fixture.publish("2021-01")
    sensor_fixture.load("2021-01-01", "2021-01-20")
    data = sensor_fixture.tick()
    assert list_ranges(data) == [("2021-01-17", "2021-01-31")]
    assert data.run_requests[0].tags["month_file"] == "2021-01 new"


def test_file_restated_after_a_manual_load_is_requested(sensor_fixture: SensorFixture) -> None:
    sensor_fixture.publish("2021-01")
    sensor_fixture.load("2021-01-01", "2021-01-31")
    sensor_fixture.publish("2021-01", total=99.0)
    data = sensor_fixture.tick()
    assert list_ranges(data) == [("2021-01-01", "2021-01-31")]
    assert data.run_requests[0].tags["month_file"] == "2021-01 restated"


def test_restated_file_with_one_manually_loaded_day_is_requested(
    sensor_fixture: SensorFixture,
) -> None:
    sensor_fixture.publish("2021-01")
    sensor_fixture.load("2021-01-01", "2021-01-31")
    assert sensor_fixture.tick().run_requests == []
    sensor_fixture.publish("2021-01", total=99.0)
    sensor_fixture.load("2021-01-03", "2021-01-03")
    assert list_ranges(sensor_fixture.tick()) == [("2021-01-01", "2021-01-31")]


@pytest.mark.parametrize("cursor", ["", "[]", "{", '{"months": 3}', '{"start": "1999-01"}'])
def test_foreign_cursor_is_ignored(sensor_fixture: SensorFixture, cursor: str) -> None:
    sensor_fixture.cursor = cursor
    sensor_fixture.publish("2021-02")
    assert list_ranges(sensor_fixture.tick()) == [("2021-02-01", "2021-02-28")]
    stored_cursor = json.loads(sensor_fixture.cursor)
    assert list(stored_cursor["months"]) == ["2021-02"]


def test_cursor_stays_small(
    sensor_fixture: SensorFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TAXI_MONTHS_PER_TICK", "1000")
    monkeypatch.setenv("TAXI_START_DATE", "2009-01-01")
    monkeypatch.setenv("TAXI_SOURCE", f"{tmp_path}/{{service}}_{{year}}-{{month}}.csv")
    months = [f"{year}-{month:02d}" for year in range(2009, 2021) for month in range(1, 13)]
    for month in months:
        (tmp_path / f"green_{month}.csv").write_text("VendorID\n")
    data = sensor_fixture.tick()
    assert len(data.run_requests) == len(months)
    assert len(sensor_fixture.cursor or "") < 20_000


# Failing sources


@pytest.mark.parametrize("status", [429, 500, 503])
def test_failing_source_is_named_and_the_next_tick_continues(
    sensor_fixture: SensorFixture, status: int
) -> None:
    sensor_fixture.publish("2021-01", "2021-02")
    sensor_fixture.site.head_faults = [answer(status)]
    data = sensor_fixture.tick()
    assert data.run_requests == []
    assert "the source did not answer, the next tick continues: green 2021-01" in data.skip_message
    assert f"answered {status}" in data.skip_message
    assert [first for first, _ in list_ranges(sensor_fixture.tick())] == [
        "2021-01-01",
        "2021-02-01",
    ]


def test_months_found_before_an_error_are_requested(sensor_fixture: SensorFixture) -> None:
    sensor_fixture.publish("2021-01", "2021-02", "2021-03")
    sensor_fixture.tick()
    sensor_fixture.publish("2021-01", total=99.0)
    sensor_fixture.publish("2021-03", total=99.0)
    head = sensors.probe_month_file

    def fail_once(*arguments: Any, **options: Any) -> Any:
        if str(arguments[2]) == "2021-02":
            sensor_fixture.site.head_faults = [answer(503)]
        return head(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensors, "probe_month_file", fail_once)
        assert [first for first, _ in list_ranges(sensor_fixture.tick())] == ["2021-01-01"]
    sensor_fixture.site.head_paths.clear()
    assert [first for first, _ in list_ranges(sensor_fixture.tick())] == ["2021-03-01"]
    assert sensor_fixture.site.head_paths[0] == build_path("2021-02")


def test_presigned_month_with_forbidden_head_is_published(sensor_fixture: SensorFixture) -> None:
    sensor_fixture.publish("2021-01")
    sensor_fixture.site.head_faults = [answer(403)] * 9
    assert list_ranges(sensor_fixture.tick()) == [("2021-01-01", "2021-01-31")]
    assert set(sensor_fixture.site.ranges) == {"bytes=0-0"}


@pytest.mark.parametrize("changes", [True, False], ids=["etag that changes", "no etag"])
def test_month_without_a_version_is_requested_once_with_a_warning(
    sensor_fixture: SensorFixture, monkeypatch: pytest.MonkeyPatch, changes: bool
) -> None:
    sensor_fixture.site.months, sensor_fixture.site.etag = None, None
    sensor_fixture.site.new_etag_each_time = changes
    sensor_fixture.site.body = make_month_content("2021-04")
    monkeypatch.setenv("TAXI_START_DATE", "2021-04-01")
    assert len(sensor_fixture.tick().run_requests) == 1
    for _ in range(3):
        data = sensor_fixture.tick()
        assert data.run_requests == []
        assert "1 of them without a stable ETag or time" in data.skip_message
    sensor_fixture.site.body += gzip.compress(b"\n", mtime=0)
    assert len(sensor_fixture.tick().run_requests) == 1


def test_closed_port_is_named_as_reason(
    sensor_fixture: SensorFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", "http://u:s3cret@127.0.0.1:9/{service}_{year}_{month}.csv")
    message = sensor_fixture.tick().skip_message
    assert "no answer" in message
    assert "s3cret" not in message


def test_rejecting_source_fails_the_tick(sensor_fixture: SensorFixture) -> None:
    sensor_fixture.site.head_faults = sensor_fixture.site.get_faults = [answer(401)] * 2
    with pytest.raises(SourceError, match="the server answered 401; set the user and password"):
        sensor_fixture.tick()


def test_slow_source_takes_several_ticks(
    sensor_fixture: SensorFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "MAX_TICK_SECONDS", 0)
    sensor_fixture.publish("2021-01", "2021-03")
    ranges_by_tick = [list_ranges(sensor_fixture.tick()) for _ in range(5)]
    assert ranges_by_tick == [
        [("2021-01-01", "2021-01-31")],
        [],
        [("2021-03-01", "2021-03-31")],
        [],
        [],
    ]
    assert [path[-14:-7] for path in sensor_fixture.site.head_paths] == [
        "2021-01",
        "2021-02",
        "2021-03",
        "2021-04",
        "2021-01",
    ]


def test_sample_is_not_probed(
    sensor_fixture: SensorFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", "sample")
    data = sensor_fixture.tick()
    assert data.run_requests == []
    assert "never restates one" in data.skip_message


def test_reason_without_an_ended_month(
    sensor_fixture: SensorFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_START_DATE", "2021-05-01")
    assert "no month since 2021-05-01" in sensor_fixture.tick().skip_message


def test_local_files_are_observed_and_requested(
    sensor_fixture: SensorFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", f"{tmp_path}/{{service}}_{{year}}-{{month}}.csv.gz")
    file = tmp_path / "green_2021-01.csv.gz"
    file.write_bytes(make_month_content("2021-01"))
    assert list_ranges(sensor_fixture.tick()) == [("2021-01-01", "2021-01-31")]
    sensor_fixture.load("2021-01-01", "2021-01-31")
    sensor_fixture.cursor = None
    assert list_ranges(sensor_fixture.tick()) == []
    file.write_bytes(make_month_content("2021-01", 1234.0))
    assert list_ranges(sensor_fixture.tick()) == [("2021-01-01", "2021-01-31")]


# Settings


@pytest.mark.parametrize(
    ("text", "status"),
    [(None, "STOPPED"), ("stopped", "STOPPED"), ("running", "RUNNING")],
)
def test_setting_starts_the_sensors(
    text: str | None, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text:
        monkeypatch.setenv("TAXI_AUTOMATION", text)
    monkeypatch.setenv("TAXI_SERVICES", ",".join(SERVICES))
    defs = build_defs()
    for service in SERVICES:
        sensor = defs.resolve_sensor_def(f"{service}_new_month_sensor")
        schedule = defs.resolve_schedule_def(f"{service}_daily_schedule")
        assert sensor.default_status.value == schedule.default_status.value == status
        assert sensor.minimum_interval_seconds == 3600
