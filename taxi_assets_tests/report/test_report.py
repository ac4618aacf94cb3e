"""What a report shows, from figures that are given."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import date, datetime, timedelta

import pyarrow as pa
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.report.bars import layout_revenue_bars, scale_revenue
from taxi_assets.report.colours import DARK, LIGHT, Theme, pick_colour_step
from taxi_assets.report.figures import (
    DayFigures,
    EarlierMonth,
    MonthFigures,
    count_day,
    list_counted_columns,
)
from taxi_assets.report.page import (
    build_headline_tiles,
    rank_payments,
    render_month_page,
    split_into_weeks,
)
from taxi_assets.report.picture import draw_month_picture
from taxi_assets.report.quality import list_quality_parts, write_verdict
from taxi_assets.report.words import (
    compare_with_earlier,
    describe_loaded_days,
    find_peak_hour,
    format_day_spans,
    format_short_money,
    write_headline,
)
from taxi_assets.report.zones import find_zone, read_zone_table
from taxi_assets.tlc.services import SERVICES

GREEN = SERVICES["green"]
FEBRUARY = Month(2021, 2)
FIRST = date(2021, 2, 1)


def figures(*days: DayFigures, **changed: object) -> MonthFigures:
    """Green's February 2021 with the first of its days."""
    of_day = {FIRST.replace(day=at): day for at, day in enumerate(days, 1)}
    month = MonthFigures(GREEN, FEBRUARY, of_day, file_rows=None)
    return dataclasses.replace(month, **changed)


def day(trips: int, revenue: float = 10.0, hour: int = 8, **dropped: int) -> DayFigures:
    hours = tuple(trips if at == hour else 0 for at in range(24))
    return DayFigures(trips, hours, {74: trips}, revenue, 0, dropped, synthetic=False)


def luminance(colour: str) -> float:
    """Of WCAG 2, from 0 to 1."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_tlcs_zones_are_all_there() -> None:
    assert list(read_zone_table()) == list(range(1, 266))
    assert (find_zone(74).name, find_zone(74).borough) == ("East Harlem North", "Manhattan")
    assert [(find_zone(at).name, find_zone(at).borough) for at in (264, 265, 999, None)] == [
        ("Unknown zone", ""),
        ("Outside of NYC", ""),
        ("Zone 999", ""),
        ("No zone recorded", ""),
    ]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_text_can_be_read_on_its_ground(theme: Theme) -> None:
    for at, ground in enumerate(theme.steps):
        assert contrast(theme.over if at >= theme.turn else theme.under, ground) >= 4.5
    for ground, text in itertools.product(
        (theme.paper, theme.card), (theme.ink, theme.soft, theme.alarm)
    ):
        assert contrast(text, ground) >= 4.5
    shades = [luminance(ground) for ground in theme.steps]
    assert shades == sorted(shades, reverse=theme is LIGHT)


def test_steps_of_a_scale() -> None:
    assert [pick_colour_step(value, 100, 200) for value in (100, 150, 200)] == [0, 3, 6]
    assert pick_colour_step(7, 7, 7) == 6


def test_days_are_named_as_people_do() -> None:
    days = [date(2021, 2, at) for at in (3, 4, 5, 17, 20)]
    assert format_day_spans(days) == "3 to 5, 17 and 20 February"
    assert format_day_spans(days[:1]) == "3 February"
    assert describe_loaded_days(figures(*[day(1)] * 27)) == (
        "Partial month: 27 of 28 days are loaded; 28 February is not"
    )
    assert describe_loaded_days(figures(*[day(1)] * 28)) == "All 28 days are loaded"


@pytest.mark.parametrize(
    ("dollars", "text"),
    [(0, "$0"), (12.4, "$12"), (30_000, "$30k"), (894_120, "$894.1k"), (21_100_000, "$21.1M")]
    + [(-2_500, "-$2.5k"), (100_000_000, "$100M"), (1_300_000_000, "$1,300M")],
)
def test_money_is_short(dollars: float, text: str) -> None:
    assert format_short_money(dollars) == text


def test_the_month_in_words() -> None:
    found = figures(day(5), day(1234, revenue=9_990, hour=17), day(7))
    assert write_headline(found) == (
        "1,246 trips for $10k. Tuesday 2 February was the busiest day, with 1,234; "
        "most trips began in East Harlem North."
    )
    assert find_peak_hour(found) == "Tuesday at 17:00, 1,234 trips an hour"


def test_weekdays_are_means_of_their_loaded_days() -> None:
    found = figures(*[day(trips) for trips in (10, 1, 1, 1, 1, 1, 1, 20)])
    assert found.by_hour[0] is not None
    assert found.by_hour[0][8] == 15
    assert figures(day(10)).by_hour[1:] == [None] * 6


def test_weeks_begin_on_monday() -> None:
    weeks = split_into_weeks(figures(day(1), month=Month(2021, 8)))
    assert [len(week) for week in weeks] == [7] * 6
    assert weeks[0] == [None] * 6 + [date(2021, 8, 1)]
    assert weeks[-1] == [date(2021, 8, 30), date(2021, 8, 31)] + [None] * 5


@pytest.mark.parametrize(
    ("lowest", "highest", "lines"),
    [
        (0, 33_500, [0, 10_000, 20_000, 30_000, 40_000]),
        (0, 0, [0, 0.25]),
        (-5, 60, [-20, 0, 20, 40, 60]),
    ],
)
def test_scales_are_round(lowest: float, highest: float, lines: list[float]) -> None:
    assert scale_revenue(lowest, highest) == lines


def test_bars_stand_on_zero_and_days_of_refunds_hang_below_it() -> None:
    chart = layout_revenue_bars(figures(day(1, revenue=50), day(1, revenue=-50), day(1, revenue=0)))
    up, down, none, *missing = chart.bars
    assert up.y + up.height == pytest.approx(chart.zero)
    assert (down.y, down.height) == (chart.zero, pytest.approx(up.height))
    assert (none.y, none.height, none.missing) == (chart.zero, 0, False)
    assert len(missing) == 25
    assert all(bar.missing for bar in missing)


def test_a_file_whose_rows_do_not_add_up_is_called_out() -> None:
    month = [day(3, zero_passengers=1)] * 28
    whole = figures(*month, file_rows=28 * 4 + 3, outside=2, unreadable=1)
    assert whole.unaccounted == 0
    assert sum(part.rows for part in list_quality_parts(whole)) == whole.file_rows
    assert "no row is lost" in write_verdict(whole)

    short = dataclasses.replace(whole, file_rows=200)
    assert list_quality_parts(short)[-1].kind == "alarm"
    assert list_quality_parts(short)[-1].rows == short.unaccounted == 200 - 28 * 4 - 3
    assert "do not add up" in write_verdict(short)

    unknown = figures(*month)
    assert [part.rows for part in list_quality_parts(unknown)] == [28 * 3, 28]
    assert "has no record of" in write_verdict(unknown)
    assert "has no record of" in render_month_page(unknown).decode()


def test_days_without_trips_and_refunds_alone_can_be_drawn() -> None:
    empty = DayFigures(0, (0,) * 24, {}, 0.0, 0, {}, synthetic=False)
    for found in (figures(empty), figures(day(1, revenue=-3.0)), figures(empty, file_rows=0)):
        assert render_month_page(found).endswith(b"</html>")
        assert draw_month_picture(found).startswith(b"\x89PNG")


def test_what_comes_from_outside_is_escaped() -> None:
    named = figures(day(1), service=dataclasses.replace(GREEN, title="<b>&"))
    assert b"<title>&lt;b&gt;&amp; trips, February 2021</title>" in render_month_page(named)


def test_a_day_of_before_a_column_was_known_is_counted() -> None:
    pickups = pa.array(["2021-02-01 23:59:00", "2021-02-01 00:00:00"]).cast(pa.timestamp("us"))
    table = pa.table({"lpep_pickup_datetime": pickups, "total_amount": [-1.5, None]})
    assert list(list_counted_columns(GREEN)) == [
        "lpep_pickup_datetime",
        "lpep_dropoff_datetime",
        "pulocationid",
        "dolocationid",
        "tip_amount",
        "total_amount",
        "payment_type",
    ]
    found = count_day(table, GREEN, {}, synthetic=False)
    assert (found.trips, found.hours[0], found.hours[23]) == (2, 1, 1)
    assert (found.revenue, found.negative_totals, found.zones) == (-1.5, 1, {})
    table = table.append_column("pulocationid", pa.array([None, None], pa.int64()))
    found = count_day(table, GREEN, {}, synthetic=False)
    assert found.zones == {None: 2}
    assert figures(found).zones == {}


def test_a_month_is_compared_with_the_one_before_and_with_the_year_before() -> None:
    earlier = [EarlierMonth(Month(2021, 1), 80, 20.0), EarlierMonth(Month(2020, 2), 200, 0.0)]
    month = figures(day(100, 10.0), day(100, 20.0), earlier=earlier)
    assert compare_with_earlier(month) == [
        "Against January 2021: trips a day +25.0%, revenue a day -25.0%.",
        "Against February 2020: trips a day -50.0%.",
    ]
    page = render_month_page(month).decode()
    assert all(sentence in page for sentence in compare_with_earlier(month))
    assert compare_with_earlier(figures(day(1))) == []


def test_payments_tips_and_drop_offs_have_their_place() -> None:
    one = dataclasses.replace(
        day(100, 1000.0), payments={1: 60, 2: 30, None: 10}, tips=150.0, dropoffs={75: 70, 74: 30}
    )
    month = figures(one, one)
    assert [(row.name, row.trips) for row in rank_payments(month)] == [
        ("credit card", 120),
        ("cash", 60),
        ("not recorded", 20),
    ]
    assert ("Tips, of revenue", "15.0%") in build_headline_tiles(month)
    page = render_month_page(month).decode()
    assert page.index("Busiest pickup zones") < page.index("Busiest drop-off zones")
    assert "How riders paid" in page
    assert find_zone(75).name in page


def test_a_meter_that_was_left_on_is_no_long_trip() -> None:
    columns = {one.name: pa.nulls(4, one.type) for one in GREEN.arrow_schema}
    begin = datetime(2021, 2, 1, 8)  # noqa: DTZ001 - wall time
    ends = [begin + timedelta(minutes=minutes) for minutes in (10, 20, -5, 24 * 60)]
    columns[GREEN.pickup_column] = pa.array([begin] * 4, pa.timestamp("us"))
    columns["lpep_dropoff_datetime"] = pa.array(ends, pa.timestamp("us"))
    counted = count_day(pa.table(columns), GREEN, {}, synthetic=False)
    assert counted.minutes == {"trip_minutes": (30.0, 2)}
    assert ("Mean trip", "15.0 min") in build_headline_tiles(figures(counted))


def test_a_day_counts_what_it_was_paid_by() -> None:
    columns = {one.name: pa.nulls(3, one.type) for one in GREEN.arrow_schema}
    columns[GREEN.pickup_column] = pa.array([datetime(2021, 2, 1, 8)] * 3, pa.timestamp("us"))  # noqa: DTZ001 - wall time
    columns |= {"payment_type": pa.array([1, 1, None]), "dolocationid": pa.array([7, 8, 8])}
    columns |= {
        "tip_amount": pa.array([1.0, 2.5, None]),
        "total_amount": pa.array([10.0, 5.0, 5.0]),
    }
    table = pa.table(columns)
    counted = count_day(table.select(list_counted_columns(GREEN)), GREEN, {}, synthetic=False)
    assert counted.payments == {1: 2, None: 1}
    assert counted.dropoffs == {7: 1, 8: 2}
    assert counted.tips == 3.5
