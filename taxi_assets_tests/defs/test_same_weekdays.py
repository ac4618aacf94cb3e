"""The earlier days that a day's picture is compared with."""

from __future__ import annotations

import time
from datetime import date, timedelta
from pathlib import Path

import pyarrow.fs as pa_fs
import pytest

from taxi_assets.defs.io_managers.partition_data import encode_trips
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.defs.resources.lake_keys import build_cleaned_key
from taxi_assets.defs.same_weekdays import SameWeekdays
from taxi_assets.errors import PartitionRejectedError
from taxi_assets.lazy_partitions import LazyPartitions
from taxi_assets.report.day_picture import Figures
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import convert_to_table
from taxi_assets.trips.profile import profile_partition
from taxi_assets_tests.trips.test_profile import make_frame

YELLOW = SERVICES["yellow"]
DAY = date(2021, 1, 26)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(pa_fs.LocalFileSystem(), str(tmp_path), "b", "hive")


def store_day(lake: Lake, weeks: int, rows: int) -> str:
    """Store a cleaned slice that many weeks before the day."""
    table = convert_to_table(make_frame(rows), YELLOW)
    metadata = {
        "profile": profile_partition(table, YELLOW).to_metadata(),
        "dropped": {"unreadable": rows},
    }
    key = build_cleaned_key(YELLOW, DAY - timedelta(weeks=weeks))
    lake.put(key, encode_trips(table, metadata))
    return key


def make_same_weekdays(lake: Lake, warnings: list[str] | None = None) -> SameWeekdays:
    return SameWeekdays(lake, YELLOW, (warnings if warnings is not None else []).append)


def list_days(days: SameWeekdays) -> list[tuple[int, int]]:
    return [
        (earlier_day.profile.rows, earlier_day.dropped["unreadable"])
        for earlier_day in days.before(DAY)
    ]


def test_up_to_six_earlier_weeks_are_read_from_the_lake(lake: Lake) -> None:
    assert make_same_weekdays(lake).before(DAY) == []
    for weeks in (0, 1, 3, 6, 7):
        store_day(lake, weeks, 10 + weeks)
    assert list_days(make_same_weekdays(lake)) == [(11, 11), (13, 13), (16, 16)]


def test_each_day_is_read_once_and_days_of_the_run_never(lake: Lake) -> None:
    keys = [store_day(lake, weeks, 10 + weeks) for weeks in (1, 2)]
    days = make_same_weekdays(lake)
    run_figures = Figures(
        profile_partition(convert_to_table(make_frame(7), YELLOW), YELLOW), {"unreadable": 0}
    )
    days.add(DAY - timedelta(weeks=1), run_figures)
    assert list_days(days) == [(7, 0), (12, 12)]
    for key in keys:
        lake.delete(key)
    assert list_days(days) == [(7, 0), (12, 12)]


def test_damaged_and_outdated_objects_are_skipped(lake: Lake) -> None:
    store_day(lake, 1, 4)
    broken = Path(lake.root, build_cleaned_key(YELLOW, DAY - timedelta(weeks=1)))
    content = bytearray(broken.read_bytes())
    content[content.index(b'"dropped": {"unreadable": 4')] ^= 1
    broken.write_bytes(content)
    outdated = encode_trips(convert_to_table(make_frame(3), YELLOW), {"total_amount": 1})
    lake.put(build_cleaned_key(YELLOW, DAY - timedelta(weeks=2)), outdated)
    store_day(lake, 3, 5)
    Path(lake.root, build_cleaned_key(YELLOW, DAY - timedelta(weeks=4))).mkdir(parents=True)
    warnings: list[str] = []
    assert list_days(make_same_weekdays(lake, warnings)) == [(5, 5)]
    assert [text.split(": ")[1] for text in warnings] == [
        "yellow/cleaned_trips 2021-01-19",
        "yellow/cleaned_trips 2020-12-29",
    ]


def test_day_waits_for_earlier_days_of_its_run(lake: Lake) -> None:
    days = make_same_weekdays(lake)
    wanted = [DAY - timedelta(weeks=weeks) for weeks in (2, 1, 0)]
    rejected = wanted[1]

    def compute(day: date) -> list[int]:
        if day == wanted[0]:
            time.sleep(0.2)
        if day == rejected:
            raise PartitionRejectedError("no such rows")
        days.add(
            day, Figures(profile_partition(convert_to_table(make_frame(7), YELLOW), YELLOW), {})
        )
        return [earlier_day.profile.rows for earlier_day in days.before(day)]

    outcomes = dict(LazyPartitions(wanted, days.follow(wanted, compute)).iterate_outcomes())
    assert outcomes[DAY] == [7]
    assert isinstance(outcomes[rejected], PartitionRejectedError)
