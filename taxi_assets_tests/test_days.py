"""Days are computed when they are pulled, in order, a few at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_assets.days import AHEAD, WORKERS, Days, bounded_map
from taxi_assets.errors import DayRefusedError

FIRST = date(2021, 1, 1)
WEEK = [FIRST + timedelta(at) for at in range(7)]


@given(st.lists(st.integers(), max_size=30))
def test_results_come_in_order(items: list[int]) -> None:
    assert list(bounded_map(lambda item: item * 2, items)) == [item * 2 for item in items]


def test_only_a_few_are_computed_ahead() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(1, 51):
            taken = item
            yield item

    most = 0
    for result in bounded_map(lambda item: item, items()):
        most = max(most, taken - result)
    assert taken == 50
    assert most <= WORKERS + AHEAD


def test_an_error_stops_the_rest_and_its_threads() -> None:
    seen: list[int] = []

    def fail_at_two(item: int) -> int:
        seen.append(item)
        if item == 2:
            raise RuntimeError("two")
        return item

    before = threading.active_count()
    results = bounded_map(fail_at_two, range(50))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(RuntimeError, match="two"):
        next(results)
    assert threading.active_count() == before
    assert len(seen) <= 3 + WORKERS + AHEAD


def test_nothing_is_computed_before_it_is_pulled() -> None:
    computed: list[date] = []

    def compute(day: date) -> int:
        computed.append(day)
        return day.day

    days = Days(WEEK, compute).map(lambda number: number * 10)
    assert computed == []
    assert list(days) == [(day, day.day * 10) for day in WEEK]
    assert computed == WEEK


def test_a_refused_day_is_put_aside_for_every_stage_and_its_neighbours_go_on() -> None:
    def refuse_third(day: date, number: int) -> int:
        if number == 3:
            raise DayRefusedError(f"{day} is wrong")
        return number

    first = Days(WEEK, lambda day: day.day)
    second = first.map_days(refuse_third)
    third = second.map(str)
    assert [number for _, number in third] == ["1", "2", "4", "5", "6", "7"]
    assert list(third.refused) == [WEEK[2]]
    assert first.refused is second.refused is third.refused
    assert str(third.refused[WEEK[2]]) == "2021-01-03 is wrong"


def test_any_other_error_is_raised() -> None:
    def broken(day: date) -> int:
        raise ValueError(day)

    with pytest.raises(ValueError, match="2021-01-01"):
        list(Days(WEEK, broken))


def test_no_days_give_nothing() -> None:
    assert list(Days([], lambda day: day)) == []
