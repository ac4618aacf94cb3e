"""Days are computed when they are pulled, in order, a few at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date, timedelta

import psycopg
import pyarrow as pa
import pytest
from google.api_core.exceptions import Forbidden
from hypothesis import given
from hypothesis import strategies as st

from taxi_assets.errors import PartitionRejectedError, SettingsError, StoreError, UnavailableError
from taxi_assets.lazy_partitions import MAX_AHEAD, WORKERS, LazyPartitions, map_with_threads

FIRST = date(2021, 1, 1)
WEEK = [FIRST + timedelta(at) for at in range(7)]


@given(st.lists(st.integers(), max_size=30))
def test_results_are_in_order(items: list[int]) -> None:
    assert list(map_with_threads(lambda item: item * 2, items)) == [item * 2 for item in items]


def test_few_results_are_computed_ahead() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(1, 51):
            taken = item
            yield item

    most = 0
    for result in map_with_threads(lambda item: item, items()):
        most = max(most, taken - result)
    assert taken == 50
    assert most <= WORKERS + MAX_AHEAD


def test_error_stops_other_items_and_threads() -> None:
    computed: list[int] = []

    def fail_at_two(item: int) -> int:
        computed.append(item)
        if item == 2:
            raise RuntimeError("two")
        return item

    before = threading.active_count()
    results = map_with_threads(fail_at_two, range(50))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(RuntimeError, match="two"):
        next(results)
    assert threading.active_count() == before
    assert len(computed) <= 3 + WORKERS + MAX_AHEAD


def test_nothing_is_computed_before_the_first_pull() -> None:
    computed: list[date] = []

    def compute(day: date) -> int:
        computed.append(day)
        return day.day

    days = LazyPartitions(WEEK, compute).map_with_day(lambda _, number: number * 10)
    assert computed == []
    assert list(days) == [(day, day.day * 10) for day in WEEK]
    assert computed == WEEK


def test_rejected_day_skips_later_stages_and_the_others_continue() -> None:
    def refuse_third(day: date, number: int) -> int:
        if number == 3:
            raise PartitionRejectedError(f"{day} is wrong")
        return number

    first = LazyPartitions(WEEK, lambda day: day.day)
    second = first.map_with_day(refuse_third)
    third = second.map_with_day(lambda _, number: str(number))
    assert [number for _, number in third] == ["1", "2", "4", "5", "6", "7"]
    assert list(third.rejected) == [WEEK[2]]
    assert first.rejected is second.rejected is third.rejected
    assert str(third.rejected[WEEK[2]]) == "2021-01-03 is wrong"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("month 13"),
        KeyError("pickup"),
        OverflowError("too large"),
        pa.ArrowInvalid("cast"),
        pa.ArrowNotImplementedError("of this type"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "invalid"),
        MemoryError("3 GB"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_caused_by_one_day_rejects_it_with_its_cause(
    error: Exception,
) -> None:
    def broken(day: date) -> int:
        if day == WEEK[2]:
            raise error
        return day.day

    days = LazyPartitions(WEEK, broken)
    assert [number for _, number in days] == [1, 2, 4, 5, 6, 7]
    assert list(days.rejected) == [WEEK[2]]
    assert str(days.rejected[WEEK[2]]).startswith(f"{type(error).__name__}: ")
    assert days.rejected[WEEK[2]].__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("lost"),
        TimeoutError("no answer"),
        UnavailableError("the server restarts"),
        StoreError("no room"),
        SettingsError("TAXI_LAKE"),
        PermissionError("denied"),
        psycopg.OperationalError("gone"),
        Forbidden("no role"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_that_concerns_every_day_is_raised(error: Exception) -> None:
    def broken(day: date) -> int:
        raise error

    days = LazyPartitions(WEEK, broken)
    with pytest.raises(type(error)):
        list(days)
    assert days.rejected == {}


def test_each_day_yields_its_rows_or_its_rejection() -> None:
    rejection = PartitionRejectedError("wrong")

    def compute(day: date) -> int:
        if day == WEEK[1]:
            raise rejection
        return day.day

    assert list(LazyPartitions(WEEK[:3], compute).iterate_outcomes()) == [
        (WEEK[0], 1),
        (WEEK[1], rejection),
        (WEEK[2], 3),
    ]


def test_no_days_yield_no_results() -> None:
    assert list(LazyPartitions([], lambda day: day)) == []
