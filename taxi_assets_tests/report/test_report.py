"""The contents of a report, from given figures."""

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
from taxi_assets.report.month_text import (
    compare_with_earlier,
    describe_loaded_days,
    find_peak_hour,
    format_day_spans,
    format_short_money,
    write_headline,
)
from taxi_assets.report.page import (
    build_headline_tiles,
    rank_payments,
    render_month_page,
    split_into_weeks,
)
from taxi_assets.report.picture import draw_month_picture
from taxi_assets.report.quality import list_quality_parts, write_verdict
from taxi_assets.report.zones import find_zone, read_zone_table
from taxi_assets.tlc.services import SERVICES

GREEN = SERVICES["green"]
FEBRUARY = Month(2021, 2)
FIRST = date(2021, 2, 1)


def figures(*days: DayFigures, **changed: object) -> MonthFigures:
    """Return figures of green's February 2021 with its first days."""
    by_day = {FIRST.replace(day=number): day for number, day in enumerate(days, 1)}
    month = MonthFigures(GREEN, FEBRUARY, by_day, file_rows=None)
    return dataclasses.replace(month, **changed)


def day(trips: int, revenue: float = 10.0, hour: int = 8, **dropped: int) -> DayFigures:
    hours = tuple(trips if number == hour else 0 for number in range(24))
    return DayFigures(trips, hours, {74: trips}, revenue, 0, dropped, synthetic=False)


def compute_luminance(colour: str) -> float:
    """Return the luminance that WCAG 2 defines, from 0 to 1."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def compute_contrast(text: str, background: str) -> float:
    low, high = sorted((compute_luminance(text), compute_luminance(background)))
    return (high + 0.05) / (low + 0.05)


def test_zone_table_has_every_zone() -> None:
    assert list(read_zone_table()) == list(range(1, 266))
    assert (find_zone(74).name, find_zone(74).borough) == ("East Harlem North", "Manhattan")
    assert [(find_zone(zone).name, find_zone(zone).borough) for zone in (264, 265, 999, None)] == [
        ("Unknown zone", ""),
        ("Outside of NYC", ""),
        ("Zone 999", ""),
        ("No zone recorded", ""),
    ]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_text_and_bar_contrasts_with_its_background(theme: Theme) -> None:
    for step, background in enumerate(theme.steps):
        assert (
            compute_contrast(theme.over if step >= theme.turn else theme.under, background) >= 4.5
        )
    for background, text in itertools.product(
        (theme.paper, theme.card), (theme.ink, theme.soft, theme.alarm)
    ):
        assert compute_contrast(text, background) >= 4.5
    for bar in (theme.bar, theme.steps[theme.turn]):
        assert compute_contrast(bar, theme.card) >= 4.5
    shades = [compute_luminance(background) for background in theme.steps]
    assert shades == sorted(shades, reverse=theme is LIGHT)


def test_colour_step_spans_the_scale() -> None:
    assert [pick_colour_step(value, 100, 200) for value in (100, 150, 200)] == [0, 3, 6]
    assert pick_colour_step(7, 7, 7) == 6


def test_day_spans_read_as_prose() -> None:
    days = [date(2021, 2, day_of_month) for day_of_month in (3, 4, 5, 17, 20)]
    assert format_day_spans(days) == "3 to 5, 17 and 20 February"
    assert format_day_spans(days[:1]) == "3 February"
    assert describe_loaded_days(figures(*[day(1)] * 27)) == (
        "Partial month: 27 of 28 days are loaded; 28 February is not"
    )
    assert describe_loaded_days(figures(*[day(1)] * 28)) == "All 28 days are loaded"


@pytest.mark.parametrize(
    ("dollars", "text"),
    [(0, "$0"), (12.4, "$12"), (30_000, "$30k"), (894_120, "$894.1k"), (21_100_000, "$21.1M")]
    + [(-2_500, "-$2.5k"), (100_000_000, "$100M"), (1_300_000_000, "$1,300M")]
    + [(4.2e10, "$42B"), (1e12, "$1T")],
)
def test_short_money(dollars: float, text: str) -> None:
    assert format_short_money(dollars) == text


def test_headline_describes_month() -> None:
    month = figures(day(5), day(1234, revenue=9_990, hour=17), day(7))
    assert write_headline(month) == (
        "1,246 trips for $10k. Tuesday 2 February was the busiest day, with 1,234; "
        "most trips began in East Harlem North."
    )
    assert find_peak_hour(month) == "Tuesday at 17:00, 1,234 trips an hour"


def test_headline_of_few_trips_and_of_trips_without_a_zone() -> None:
    unknown = dataclasses.replace(day(9), zones={None: 6, 264: 2, 74: 1})
    assert write_headline(figures(unknown)).endswith("; most trips began in East Harlem North.")
    nowhere = dataclasses.replace(day(9), zones={None: 9})
    assert write_headline(figures(nowhere)).endswith("was the busiest day, with 9.")
    single = figures(day(1, revenue=85), *[day(0, revenue=0)] * 27)
    assert write_headline(single).startswith("1 trip for $85. ")
    assert ("Trips a day", "0.04") in build_headline_tiles(single)
    assert find_peak_hour(single) == "Monday at 08:00, 0.2 trips an hour"


def test_weekdays_are_means_of_loaded_days() -> None:
    month = figures(*[day(trips) for trips in (10, 1, 1, 1, 1, 1, 1, 20)])
    assert month.by_hour[0] is not None
    assert month.by_hour[0][8] == 15
    assert figures(day(10)).by_hour[1:] == [None] * 6


def test_weeks_begin_on_monday() -> None:
    weeks = split_into_weeks(Month(2021, 8))
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
def test_revenue_scale_is_round(lowest: float, highest: float, lines: list[float]) -> None:
    assert scale_revenue(lowest, highest) == lines


def test_revenue_bars_start_at_zero_and_refunds_hang_below() -> None:
    chart = layout_revenue_bars(figures(day(1, revenue=50), day(1, revenue=-50), day(1, revenue=0)))
    up, down, none, *missing = chart.bars
    assert up.y + up.height == pytest.approx(chart.zero)
    assert (down.y, down.height) == (chart.zero, pytest.approx(up.height))
    assert (none.y, none.height, none.missing) == (chart.zero, 0, False)
    assert len(missing) == 25
    assert all(bar.missing for bar in missing)


def test_verdict_names_unaccounted_rows() -> None:
    month = [day(3, zero_passengers=1)] * 28
    complete = figures(*month, file_rows=28 * 4 + 3, outside=2, unreadable=1)
    assert complete.unaccounted == 0
    assert sum(part.rows for part in list_quality_parts(complete)) == complete.file_rows
    assert "no row is lost" in write_verdict(complete)

    incomplete = dataclasses.replace(complete, file_rows=200)
    assert list_quality_parts(incomplete)[-1].kind == "alarm"
    assert list_quality_parts(incomplete)[-1].rows == incomplete.unaccounted == 200 - 28 * 4 - 3
    assert "do not add up" in write_verdict(incomplete)

    unknown = figures(*month)
    assert [part.rows for part in list_quality_parts(unknown)] == [28 * 3, 28]
    assert "has no record of" in write_verdict(unknown)
    assert "has no record of" in render_month_page(unknown).decode()


def test_page_and_picture_of_days_without_trips_or_with_refunds_only() -> None:
    empty_day = DayFigures(0, (0,) * 24, {}, 0.0, 0, {}, synthetic=False)
    for month in (
        figures(empty_day),
        figures(day(1, revenue=-3.0)),
        figures(empty_day, file_rows=0),
    ):
        assert render_month_page(month).endswith(b"</html>")
        assert draw_month_picture(month).startswith(b"\x89PNG")


def test_page_escapes_foreign_text() -> None:
    month = figures(day(1), service=dataclasses.replace(GREEN, title="<b>&"))
    assert b"<title>&lt;b&gt;&amp; trips, February 2021</title>" in render_month_page(month)


def test_count_day_without_later_columns() -> None:
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
    counts = count_day(table, GREEN, {}, synthetic=False)
    assert (counts.trips, counts.hours[0], counts.hours[23]) == (2, 1, 1)
    assert (counts.revenue, counts.negative_totals, counts.zones) == (-1.5, 1, {})
    table = table.append_column("pulocationid", pa.array([None, None], pa.int64()))
    counts = count_day(table, GREEN, {}, synthetic=False)
    assert counts.zones == {None: 2}
    assert figures(counts).zones == {}


def test_month_is_compared_with_previous_month_and_year() -> None:
    earlier = [EarlierMonth(Month(2021, 1), 80, 20.0), EarlierMonth(Month(2020, 2), 200, 0.0)]
    month = figures(day(100, 10.0), day(100, 20.0), earlier=earlier)
    assert compare_with_earlier(month) == [
        "Against January 2021: trips a day +25.0%, revenue a day -25.0%.",
        "Against February 2020: trips a day -50.0%.",
    ]
    page = render_month_page(month).decode()
    assert all(sentence in page for sentence in compare_with_earlier(month))
    assert compare_with_earlier(figures(day(1))) == []


def test_page_shows_payments_tips_and_drop_offs() -> None:
    day_figures = dataclasses.replace(
        day(100, 1000.0), payments={1: 60, 2: 30, None: 10}, tips=150.0, dropoffs={75: 70, 74: 30}
    )
    month = figures(day_figures, day_figures)
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


def test_meter_left_running_is_excluded_from_mean_trip() -> None:
    columns = {field.name: pa.nulls(4, field.type) for field in GREEN.arrow_schema}
    pickup = datetime(2021, 2, 1, 8)  # noqa: DTZ001 - wall time
    dropoffs = [pickup + timedelta(minutes=minutes) for minutes in (10, 20, -5, 24 * 60)]
    columns[GREEN.pickup_column] = pa.array([pickup] * 4, pa.timestamp("us"))
    columns["lpep_dropoff_datetime"] = pa.array(dropoffs, pa.timestamp("us"))
    counts = count_day(pa.table(columns), GREEN, {}, synthetic=False)
    assert counts.minutes == {"trip_minutes": (30.0, 2)}
    assert ("Mean trip", "15.0 min") in build_headline_tiles(figures(counts))


def test_count_day_counts_payments_dropoffs_and_tips() -> None:
    columns = {field.name: pa.nulls(3, field.type) for field in GREEN.arrow_schema}
    columns[GREEN.pickup_column] = pa.array([datetime(2021, 2, 1, 8)] * 3, pa.timestamp("us"))  # noqa: DTZ001 - wall time
    columns |= {"payment_type": pa.array([1, 1, None]), "dolocationid": pa.array([7, 8, 8])}
    columns |= {
        "tip_amount": pa.array([1.0, 2.5, None]),
        "total_amount": pa.array([10.0, 5.0, 5.0]),
    }
    table = pa.table(columns)
    counts = count_day(table.select(list_counted_columns(GREEN)), GREEN, {}, synthetic=False)
    assert counts.payments == {1: 2, None: 1}
    assert counts.dropoffs == {7: 1, 8: 2}
    assert counts.tips == 3.5
