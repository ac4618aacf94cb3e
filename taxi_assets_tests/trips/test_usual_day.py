"""Unusual days are named; holidays and lasting changes are not named again and again."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from taxi_assets.trips.usual_day import Figure, Unusual, find_unusual, is_holiday

FIRST = date(2021, 2, 1)
WEEK = (1.0, 1.05, 1.1, 1.1, 1.2, 0.9, 0.7)
"""Trips by weekday, of a thousand."""


def compute_wave(day: date) -> float:
    """Return a few per cent up or down, the same for a day at each call."""
    return 1 + ((day.toordinal() * 7919) % 13 - 6) / 200


def make_days(count: int, first: date = FIRST) -> dict[date, dict[str, Figure]]:
    """Return days that follow their weekdays, two tenths of the trips in Queens."""
    figures = {}
    for number in range(count):
        day = first + timedelta(days=number)
        trips = 1000 * WEEK[day.weekday()] * compute_wave(day)
        figures[day] = {
            "trips": Figure(trips, "volume"),
            "median fare": Figure(10 * compute_wave(day), "median"),
            "share of Queens": Figure(0.2 * compute_wave(day), "share"),
        }
    return figures


def find_unusual_days(figures: dict[date, dict[str, Figure]]) -> dict[date, list[Unusual]]:
    by_day = {day: find_unusual(day, figures.get) for day in figures}
    return {day: listed for day, listed in by_day.items() if listed}


def test_ordinary_days_and_a_new_service_are_usual() -> None:
    figures = make_days(70)
    assert find_unusual_days(figures) == {}
    tuesday = FIRST + timedelta(days=1)
    assert find_unusual(tuesday + timedelta(weeks=3), figures.get) is None
    assert find_unusual(tuesday + timedelta(weeks=4), figures.get) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("trips", 300.0, "trips 300, usually 1,0"),
        ("trips", 2500.0, "trips 2,500, usually 1,0"),
        ("median fare", 14.0, "median fare 14.00, usually"),
        ("share of Queens", 0.55, "share of Queens 55.0%, usually"),
    ],
)
def test_unusual_figure_is_named_with_its_numbers(name: str, value: float, words: str) -> None:
    figures, day = make_days(70), FIRST + timedelta(days=57)
    figures[day][name] = Figure(value, figures[day][name].kind)
    unusual_days = find_unusual_days(figures)
    assert list(unusual_days) == [day]
    (finding,) = unusual_days[day]
    assert str(finding).startswith(words)


def test_one_odd_week_does_not_change_what_is_usual() -> None:
    figures, day = make_days(70), FIRST + timedelta(days=57)
    figures[day - timedelta(weeks=1)]["trips"] = Figure(10, "volume")
    figures[day]["trips"] = Figure(300, "volume")
    assert day in find_unusual_days(figures)


def test_column_that_becomes_empty_is_named() -> None:
    known, day = make_days(70), FIRST + timedelta(days=60)
    for at, figures in known.items():
        figures["empty passenger_count"] = Figure(0.9 if at == day else 0.0, "share")
    assert str(find_unusual_days(known)[day][0]) == "empty passenger_count 90.0%, usually 0.0%"


def test_lasting_change_is_named_for_days_not_weeks() -> None:
    # The spring of 2020: within eight days four of five trips are gone, for months.
    history = make_days(150, date(2020, 1, 6))
    start = date(2020, 3, 12)
    for day, figures in history.items():
        lost_share = min(max((day - start).days, 0) / 8, 1) * 0.8
        figures["trips"] = Figure(figures["trips"].value * (1 - lost_share), "volume")
    unusual_days = list(find_unusual_days(history))
    assert date(2020, 3, 16) <= unusual_days[0] <= date(2020, 3, 20)
    assert len(unusual_days) <= 12
    assert unusual_days[-1] < date(2020, 4, 10)


def test_holidays_are_not_compared() -> None:
    assert is_holiday(date(2021, 5, 31))
    assert is_holiday(date(2020, 12, 25))
    assert is_holiday(date(2021, 12, 25))
    figures = make_days(150)
    for day in (date(2021, 5, 31), date(2021, 7, 5) - timedelta(weeks=5)):
        figures[day]["trips"] = Figure(200, "volume")
    assert find_unusual_days(figures) == {}
    figures[date(2021, 5, 31)]["median fare"] = Figure(40, "median")
    assert [
        find_unusual_day.name for find_unusual_day in find_unusual_days(figures)[date(2021, 5, 31)]
    ] == ["median fare"]
