"""Date ranges contain exactly their days and do not overlap."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_assets.date_ranges import DateRange, Month, group_days_by_month, merge_into_date_ranges

days = st.dates(date(2009, 1, 1), date(2012, 12, 31))
some_days = st.lists(days, max_size=40) | st.builds(
    lambda first, keep: [first + timedelta(at) for at, kept in enumerate(keep) if kept],
    days,
    st.lists(st.booleans(), max_size=70),
)


@given(some_days)
def test_merged_ranges_contain_exactly_the_days(requested_days: list[date]) -> None:
    windows = merge_into_date_ranges(requested_days)
    assert [day for window in windows for day in window] == sorted(set(requested_days))
    assert all(before.end < after.start for before, after in pairwise(windows))


@given(some_days)
def test_grouping_by_month_preserves_every_day(requested_days: list[date]) -> None:
    months = group_days_by_month(requested_days)
    assert [day for month in months.values() for day in month] == sorted(set(requested_days))
    assert list(months) == sorted(months)
    assert all(
        Month.of(day) == month for month, days_of_month in months.items() for day in days_of_month
    )
    assert all(
        day in month.window for month, days_of_month in months.items() for day in days_of_month
    )


@given(days, st.integers(1, 40))
def test_date_range_is_half_open(start: date, length: int) -> None:
    window = DateRange(start, start + timedelta(length))
    assert len(window) == len(list(window)) == length
    assert start in window
    assert window.end not in window
    assert start - timedelta(1) not in window
    assert all(day in window for day in window)


@given(days)
def test_month_starts_and_ends_on_a_first(day: date) -> None:
    window = Month.of(day).window
    assert window.start.day == window.end.day == 1
    assert window.end - timedelta(1) in window
    assert merge_into_date_ranges(window) == [window]


@pytest.mark.parametrize(
    ("start", "end"), [("2021-01-02", "2021-01-02"), ("2021-01-02", "2021-01-01")]
)
def test_empty_date_range_is_rejected(start: str, end: str) -> None:
    with pytest.raises(ValueError, match="a date range needs at least one day"):
        DateRange(date.fromisoformat(start), date.fromisoformat(end))


def test_date_ranges_and_months_as_text() -> None:
    assert str(DateRange.of_day(date(2021, 1, 5))) == "2021-01-05"
    assert str(DateRange(date(2021, 1, 1), date(2021, 2, 1))) == "2021-01-01 to 2021-01-31"
    assert str(Month(2021, 1)) == "2021-01"
    assert str(Month(1, 12)) == "0001-12"


@pytest.mark.parametrize(
    ("month", "length"),
    [(Month(2020, 2), 29), (Month(2021, 2), 28), (Month(2020, 12), 31), (Month(1900, 2), 28)],
)
def test_months_have_their_lengths(month: Month, length: int) -> None:
    assert len(month.window) == length
