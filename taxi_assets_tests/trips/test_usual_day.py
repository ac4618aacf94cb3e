"""Which days are unusual, and that holidays and changes that last drown nobody."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from taxi_assets.trips.usual_day import Figure, Unusual, find_unusual, is_holiday

FIRST = date(2021, 2, 1)
WEEK = (1.0, 1.05, 1.1, 1.1, 1.2, 0.9, 0.7)
"""Trips by weekday, of a thousand."""


def wave(day: date) -> float:
    """A few per cent up and down, the same at each call."""
    return 1 + ((day.toordinal() * 7919) % 13 - 6) / 200


def days(count: int, first: date = FIRST) -> dict[date, dict[str, Figure]]:
    """Days as weekdays are, two tenths in Queens."""
    found = {}
    for number in range(count):
        day = first + timedelta(days=number)
        trips = 1000 * WEEK[day.weekday()] * wave(day)
        found[day] = {
            "trips": Figure(trips, "volume"),
            "median fare": Figure(10 * wave(day), "median"),
            "share of Queens": Figure(0.2 * wave(day), "share"),
        }
    return found


def unusual(known: dict[date, dict[str, Figure]]) -> dict[date, list[Unusual]]:
    found = {day: find_unusual(day, known.get) for day in known}
    return {day: listed for day, listed in found.items() if listed}


def test_days_as_always_are_usual_and_a_new_service_is_not_compared() -> None:
    known = days(70)
    assert unusual(known) == {}
    tuesday = FIRST + timedelta(days=1)
    assert find_unusual(tuesday + timedelta(weeks=3), known.get) is None
    assert find_unusual(tuesday + timedelta(weeks=4), known.get) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("trips", 300.0, "trips 300, usually 1,0"),
        ("trips", 2500.0, "trips 2,500, usually 1,0"),
        ("median fare", 14.0, "median fare 14.00, usually"),
        ("share of Queens", 0.55, "share of Queens 55.0%, usually"),
    ],
)
def test_what_is_unusual_is_named_in_words_and_numbers(name: str, value: float, words: str) -> None:
    known, day = days(70), FIRST + timedelta(days=57)
    known[day][name] = Figure(value, known[day][name].kind)
    found = unusual(known)
    assert list(found) == [day]
    (one,) = found[day]
    assert str(one).startswith(words)


def test_one_odd_week_before_does_not_move_what_is_usual() -> None:
    known, day = days(70), FIRST + timedelta(days=57)
    known[day - timedelta(weeks=1)]["trips"] = Figure(10, "volume")
    known[day]["trips"] = Figure(300, "volume")
    assert day in unusual(known)


def test_a_column_that_goes_empty_is_named() -> None:
    known, day = days(70), FIRST + timedelta(days=60)
    for at, figures in known.items():
        figures["empty passenger_count"] = Figure(0.9 if at == day else 0.0, "share")
    assert str(unusual(known)[day][0]) == "empty passenger_count 90.0%, usually 0.0%"


def test_a_change_that_lasts_is_named_for_some_days_and_not_for_weeks() -> None:
    # The spring of 2020: within eight days four of five trips are gone, for months.
    known = days(150, date(2020, 1, 6))
    start = date(2020, 3, 12)
    for day, figures in known.items():
        gone = min(max((day - start).days, 0) / 8, 1) * 0.8
        figures["trips"] = Figure(figures["trips"].value * (1 - gone), "volume")
    found = list(unusual(known))
    assert date(2020, 3, 16) <= found[0] <= date(2020, 3, 20)
    assert len(found) <= 12
    assert found[-1] < date(2020, 4, 10)


def test_holidays_are_neither_named_nor_compared_with() -> None:
    assert is_holiday(date(2021, 5, 31))
    assert is_holiday(date(2020, 12, 25))
    assert is_holiday(date(2021, 12, 25))
    known = days(150)
    for day in (date(2021, 5, 31), date(2021, 7, 5) - timedelta(weeks=5)):
        known[day]["trips"] = Figure(200, "volume")
    assert unusual(known) == {}
    known[date(2021, 5, 31)]["median fare"] = Figure(40, "median")
    assert [one.name for one in unusual(known)[date(2021, 5, 31)]] == ["median fare"]
