"""The partitions: the days and months between TAXI_START_DATE and TAXI_END_DATE."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import pairwise

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time

from taxi_assets.date_ranges import Month
from taxi_assets.definitions import build_defs
from taxi_assets.defs.automation.months import list_ended_months
from taxi_assets.partitions import (
    daily_partitions,
    monthly_partitions,
    partitions_of_month,
    reject_unknown_days,
)

NOW = datetime(2021, 5, 10, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _from_new_year(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_START_DATE", "2021-01-15")


@pytest.mark.parametrize(
    ("end", "last_day", "last_month"),
    [
        ("", "2021-05-09", "2021-05-01"),
        ("2021-01-15", "2021-01-15", "2021-01-01"),
        ("2021-02-28", "2021-02-28", "2021-02-01"),
        ("2021-03-14", "2021-03-14", "2021-03-01"),  # the night when clocks change
        ("2021-05-09", "2021-05-09", "2021-05-01"),
        ("2021-05-31", "2021-05-09", "2021-05-01"),  # to come
        ("2030-01-01", "2021-05-09", "2021-05-01"),
    ],
)
def test_last_partition(
    end: str, last_day: str, last_month: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_END_DATE", end)
    with freeze_time(NOW):
        days = daily_partitions().get_partition_keys()
        months = monthly_partitions().get_partition_keys()
    assert (days[0], days[-1]) == ("2021-01-15", last_day)
    assert (months[0], months[-1]) == ("2021-01-01", last_month)
    steps = {date.fromisoformat(b) - date.fromisoformat(a) for a, b in pairwise(days)}
    assert len(steps) <= 1


def test_partitions_of_a_month_respect_start_and_end_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_END_DATE", "2021-03-10")
    partitions = [list(partitions_of_month(Month(2021, month)) or ()) for month in (1, 2, 3, 4)]
    assert [len(days) for days in partitions] == [17, 28, 10, 0]
    assert (partitions[0][0], partitions[2][-1]) == (date(2021, 1, 15), date(2021, 3, 10))


@pytest.mark.parametrize(
    ("end", "now", "last"),
    [
        ("", NOW, "2021-04"),
        ("2021-03-10", NOW, "2021-03"),
        ("2021-02-28", NOW, "2021-02"),
        # A month that ends early is over with its last partition.
        ("2021-05-09", NOW, "2021-05"),
        ("2021-05-10", NOW, "2021-04"),
    ],
)
def test_ended_months_have_only_past_partitions(
    end: str, now: datetime, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_END_DATE", end)
    with freeze_time(now):
        months = list(map(str, list_ended_months()))
    assert (months[0], months[-1]) == ("2021-01", last)


def test_run_of_a_day_after_the_last_partition_is_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAXI_END_DATE", "2021-03-10")
    reject_unknown_days({"dagster/partition": "2021-03-10"})
    with pytest.raises(
        dg.Failure, match=r"2021-03-11 is outside .* to 2021-03-10: .*TAXI_END_DATE"
    ):
        reject_unknown_days({"dagster/partition": "2021-03-11"})


def test_every_asset_has_the_same_last_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_END_DATE", "2021-03-10")
    graph = build_defs().resolve_asset_graph()
    lasts = {
        graph.get(key).partitions_def.get_last_partition_key() for key in graph.get_all_asset_keys()
    }
    assert lasts == {"2021-03-10", "2021-03-01"}
