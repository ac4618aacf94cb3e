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
from taxi_assets_tests.defs.jobs.test_daily import trip
from taxi_assets_tests.fake_http_server import Site, answer

GREEN = SERVICES["green"]
RAW = dg.AssetKey(["green", "raw_trips"])
NOW = datetime(2021, 5, 10, 12, tzinfo=UTC)
"""January to April are over."""


def month_file(month: str, total: float = 10.0) -> bytes:
    """A month's file of one row."""
    lines = [",".join(GREEN.header), trip(f"{month}-03", total)]
    return gzip.compress("\n".join([*lines, ""]).encode(), mtime=0)


def path_of(month: str) -> str:
    return f"/green/green_tripdata_{month}.csv.gz"


def daily_job() -> dg.JobDefinition:
    return build_defs().resolve_job_def("green_daily")


@dataclass
class Desk:
    """A sensor with its cursor, the instance it looks into and the site it looks at."""

    site: Site
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)
    cursor: str | None = None

    def publish(self, *months: str, total: float = 10.0) -> None:
        assert self.site.months is not None
        self.site.months |= {path_of(month): month_file(month, total) for month in months}

    def tick(self, *, crash: bool = False) -> Any:
        """One tick; `crash`: the daemon dies before it saves the cursor."""
        sensor = build_new_month_sensor(GREEN, AutomationSettings.from_env())
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        data = sensor.evaluate_tick(context)
        if not crash:
            self.cursor = data.cursor
            for event in data.asset_events:
                self.instance.report_runless_asset_event(event)
        return data

    def load(self, first: str, last: str) -> None:
        """Materialize raw slices, as a run by hand does."""
        tags = dict(zip(sensors.RANGE, (first, last), strict=True))
        assert (
            daily_job()
            .execute_in_process(asset_selection=[RAW], tags=tags, instance=self.instance)
            .success
        )


@pytest.fixture
def desk(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    site.months = {}
    monkeypatch.setenv("TAXI_SOURCE", site.template)
    monkeypatch.setenv("TAXI_HOME", str(tmp_path))
    monkeypatch.setenv("TAXI_START_DATE", "2021-01-01")
    with freeze_time(NOW):
        yield Desk(site)


def ranges(data: Any) -> list[tuple[str, str]]:
    return [tuple(request.tags[end] for end in sensors.RANGE) for request in data.run_requests]


def keys(data: Any) -> list[str]:
    return [request.run_key for request in data.run_requests]


# What is requested


def test_no_day_past_the_end_is_requested(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_END_DATE", "2021-02-10")
    desk.publish("2021-01", "2021-02", "2021-03")
    assert ranges(desk.tick()) == [("2021-01-01", "2021-01-31"), ("2021-02-01", "2021-02-10")]


def test_nothing_is_published_and_the_reason_says_so(desk: Desk) -> None:
    data = desk.tick()
    assert data.run_requests == []
    assert data.skip_message == ("green: 0 months unchanged; 4 not published (2021-01 the first)")
    assert len(desk.site.looked) == 4
    assert desk.site.ranges == ["bytes=0-0"] * 4


def test_a_new_month_is_requested_once_observed_and_its_file_not_fetched(desk: Desk) -> None:
    desk.publish("2021-02")
    data = desk.tick()
    assert ranges(data) == [("2021-02-01", "2021-02-28")]
    request = data.run_requests[0]
    assert request.tags["month_file"] == "2021-02 new"
    assert request.run_config == sensors.CONFIRM
    (event,) = data.asset_events
    assert (event.asset_key.path, event.partition) == (["green", "trip_file"], "2021-02-01")
    assert event.tags[DATA_VERSION_TAG]
    assert event.metadata["dagster/uri"].value == desk.site.address + path_of("2021-02")
    again = desk.tick()
    assert (again.run_requests, again.asset_events) == ([], [])
    assert again.skip_message.startswith("green: 1 months unchanged; 3 not published")
    assert desk.site.ranges == ["bytes=0-0"] * 6


def test_a_restated_month_is_requested_again(desk: Desk) -> None:
    desk.publish("2021-02")
    first = desk.tick()
    desk.publish("2021-02", total=99.0)
    second = desk.tick()
    assert ranges(second) == ranges(first)
    assert set(keys(first)).isdisjoint(keys(second))
    assert second.run_requests[0].tags["month_file"] == "2021-02 restated"
    versions = {
        event.tags[DATA_VERSION_TAG] for data in (first, second) for event in data.asset_events
    }
    assert len(versions) == 2


def test_a_month_restated_back_is_requested_again(desk: Desk) -> None:
    """As a publisher does who puts the old file up again: its time is new."""
    desk.publish("2021-02")
    requested = []
    for day, total in enumerate((10.0, 99.0, 10.0), 1):
        desk.publish("2021-02", total=total)
        desk.site.modified = f"Mon, {day:02d} Mar 2021 10:00:00 GMT"
        requested += keys(desk.tick())
    assert len(set(requested)) == 3


def test_many_months_behind_come_oldest_first_and_some_a_tick(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_MONTHS_PER_TICK", "2")
    desk.publish("2021-04", "2021-01", "2021-03")
    assert [first for first, _ in ranges(desk.tick())] == ["2021-01-01", "2021-03-01"]
    assert [first for first, _ in ranges(desk.tick())] == ["2021-04-01"]
    assert ranges(desk.tick()) == []
    desk.publish("2021-02")
    assert [first for first, _ in ranges(desk.tick())] == ["2021-02-01"]


def test_a_month_comes_in_chunks_of_the_days_of_a_run(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_MAX_PARTITIONS_PER_RUN", "12")
    monkeypatch.setenv("TAXI_START_DATE", "2021-01-05")
    desk.publish("2021-01")
    data = desk.tick()
    assert ranges(data) == [
        ("2021-01-05", "2021-01-16"),
        ("2021-01-17", "2021-01-28"),
        ("2021-01-29", "2021-01-31"),
    ]
    assert len(set(keys(data))) == 3


def test_a_month_that_is_not_over_is_not_looked_at(desk: Desk) -> None:
    desk.publish("2021-05")
    assert desk.tick().run_requests == []
    assert path_of("2021-05") not in desk.site.looked
    with freeze_time(datetime(2021, 6, 1, 4, 1, tzinfo=UTC)):  # 00:01 in New York
        assert ranges(desk.tick()) == [("2021-05-01", "2021-05-31")]


def test_what_was_requested_is_a_run_of_the_job(desk: Desk) -> None:
    desk.publish("2021-02")
    (request,) = desk.tick().run_requests
    result = daily_job().execute_in_process(
        asset_selection=[RAW],
        run_config=request.run_config,
        tags=request.tags,
        instance=desk.instance,
    )
    assert result.success
    assert len(result.get_asset_materialization_events()) == 28
    # The observation of the run is of the same file: nothing is new to the sensor.
    desk.cursor = None
    assert desk.tick().run_requests == []


# After a crash, and what was loaded by hand


def test_a_tick_after_a_crash_has_the_same_run_keys(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_MAX_PARTITIONS_PER_RUN", "10")
    desk.publish("2021-01", "2021-02")
    lost = desk.tick(crash=True)
    desk.load("2021-01-01", "2021-01-10")  # the first of its runs has ended meanwhile
    again = desk.tick()
    assert keys(again) == keys(lost)[1:]
    assert ranges(desk.tick()) == []


def test_what_was_loaded_by_hand_is_not_loaded_again(desk: Desk) -> None:
    desk.publish("2021-01", "2021-02")
    desk.load("2021-01-01", "2021-01-31")
    data = desk.tick()
    assert ranges(data) == [("2021-02-01", "2021-02-28")]
    assert [event.partition for event in data.asset_events] == ["2021-02-01"]


def test_a_month_of_which_days_are_missing_is_requested(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_MAX_PARTITIONS_PER_RUN", "16")
    desk.publish("2021-01")
    desk.load("2021-01-01", "2021-01-20")
    data = desk.tick()
    assert ranges(data) == [("2021-01-17", "2021-01-31")]
    assert data.run_requests[0].tags["month_file"] == "2021-01 new"


def test_a_file_restated_since_it_was_loaded_by_hand_is_requested(desk: Desk) -> None:
    desk.publish("2021-01")
    desk.load("2021-01-01", "2021-01-31")
    desk.publish("2021-01", total=99.0)
    data = desk.tick()
    assert ranges(data) == [("2021-01-01", "2021-01-31")]
    assert data.run_requests[0].tags["month_file"] == "2021-01 restated"


def test_a_restated_file_of_which_one_day_was_loaded_by_hand_is_requested(desk: Desk) -> None:
    desk.publish("2021-01")
    desk.load("2021-01-01", "2021-01-31")
    assert desk.tick().run_requests == []
    desk.publish("2021-01", total=99.0)
    desk.load("2021-01-03", "2021-01-03")
    assert ranges(desk.tick()) == [("2021-01-01", "2021-01-31")]


@pytest.mark.parametrize("cursor", ["", "[]", "{", '{"months": 3}', '{"start": "1999-01"}'])
def test_a_cursor_of_somebody_else_is_as_none(desk: Desk, cursor: str) -> None:
    desk.cursor = cursor
    desk.publish("2021-02")
    assert ranges(desk.tick()) == [("2021-02-01", "2021-02-28")]
    kept = json.loads(desk.cursor)
    assert list(kept["months"]) == ["2021-02"]


def test_the_cursor_stays_small(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TAXI_MONTHS_PER_TICK", "1000")
    monkeypatch.setenv("TAXI_START_DATE", "2009-01-01")
    monkeypatch.setenv("TAXI_SOURCE", f"{tmp_path}/{{service}}_{{year}}-{{month}}.csv")
    months = [f"{year}-{month:02d}" for year in range(2009, 2021) for month in range(1, 13)]
    for month in months:
        (tmp_path / f"green_{month}.csv").write_text("VendorID\n")
    data = desk.tick()
    assert len(data.run_requests) == len(months)
    assert len(desk.cursor or "") < 20_000


# Sources that do not answer


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_source_that_does_not_answer_is_a_reason_and_the_next_tick_goes_on(
    desk: Desk, status: int
) -> None:
    desk.publish("2021-01", "2021-02")
    desk.site.looks = [answer(status)]
    data = desk.tick()
    assert data.run_requests == []
    assert "the source did not answer, the next tick continues: green 2021-01" in data.skip_message
    assert f"answered {status}" in data.skip_message
    assert [first for first, _ in ranges(desk.tick())] == ["2021-01-01", "2021-02-01"]


def test_what_was_found_before_the_trouble_is_requested(desk: Desk) -> None:
    desk.publish("2021-01", "2021-02", "2021-03")
    desk.tick()
    desk.publish("2021-01", total=99.0)
    desk.publish("2021-03", total=99.0)
    head = sensors.probe_month_file

    def fails_once(*arguments: Any, **options: Any) -> Any:
        if str(arguments[2]) == "2021-02":
            desk.site.looks = [answer(503)]
        return head(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensors, "probe_month_file", fails_once)
        assert [first for first, _ in ranges(desk.tick())] == ["2021-01-01"]
    desk.site.looked.clear()
    assert [first for first, _ in ranges(desk.tick())] == ["2021-03-01"]
    assert desk.site.looked[0] == path_of("2021-02")


def test_a_presigned_month_whose_head_is_forbidden_is_published(desk: Desk) -> None:
    desk.publish("2021-01")
    desk.site.looks = [answer(403)] * 9
    assert ranges(desk.tick()) == [("2021-01-01", "2021-01-31")]
    assert set(desk.site.ranges) == {"bytes=0-0"}


@pytest.mark.parametrize("changes", [True, False], ids=["etag that changes", "no etag"])
def test_a_month_whose_version_nothing_tells_is_requested_once_and_the_reason_says_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, changes: bool
) -> None:
    desk.site.months, desk.site.etag = None, None
    desk.site.new_etag_each_time = changes
    desk.site.body = month_file("2021-04")
    monkeypatch.setenv("TAXI_START_DATE", "2021-04-01")
    assert len(desk.tick().run_requests) == 1
    for _ in range(3):
        data = desk.tick()
        assert data.run_requests == []
        assert "1 of them without a stable ETag or time" in data.skip_message
    desk.site.body += gzip.compress(b"\n", mtime=0)
    assert len(desk.tick().run_requests) == 1


def test_a_source_nobody_listens_at(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_SOURCE", "http://u:s3cret@127.0.0.1:9/{service}_{year}_{month}.csv")
    message = desk.tick().skip_message
    assert "no answer" in message
    assert "s3cret" not in message


def test_a_refusing_source_fails_the_tick(desk: Desk) -> None:
    desk.site.looks = desk.site.acts = [answer(401)] * 2
    with pytest.raises(SourceError, match="the server answered 401; set the user and password"):
        desk.tick()


def test_a_slow_source_takes_several_ticks(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "MAX_TICK_SECONDS", 0)
    desk.publish("2021-01", "2021-03")
    found = [ranges(desk.tick()) for _ in range(5)]
    assert found == [[("2021-01-01", "2021-01-31")], [], [("2021-03-01", "2021-03-31")], [], []]
    assert [path[-14:-7] for path in desk.site.looked] == [
        "2021-01",
        "2021-02",
        "2021-03",
        "2021-04",
        "2021-01",
    ]


def test_the_sample_is_not_looked_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_SOURCE", "sample")
    data = desk.tick()
    assert data.run_requests == []
    assert "never restates one" in data.skip_message


def test_no_month_is_over(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_START_DATE", "2021-05-01")
    assert "no month since 2021-05-01" in desk.tick().skip_message


def test_files_of_this_machine(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TAXI_SOURCE", f"{tmp_path}/{{service}}_{{year}}-{{month}}.csv.gz")
    file = tmp_path / "green_2021-01.csv.gz"
    file.write_bytes(month_file("2021-01"))
    assert ranges(desk.tick()) == [("2021-01-01", "2021-01-31")]
    desk.load("2021-01-01", "2021-01-31")
    desk.cursor = None
    assert ranges(desk.tick()) == []
    file.write_bytes(month_file("2021-01", 1234.0))
    assert ranges(desk.tick()) == [("2021-01-01", "2021-01-31")]


# Settings


@pytest.mark.parametrize(
    ("text", "status"),
    [(None, "STOPPED"), ("stopped", "STOPPED"), ("running", "RUNNING")],
)
def test_a_setting_starts_them(
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
