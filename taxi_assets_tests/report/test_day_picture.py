"""The picture of a day, a small PNG, and the sentence above it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from itertools import pairwise

import pytest
from PIL import Image

from taxi_assets.report.canvas import BAR, COLOURS, GONE, GROUND, USUAL, Canvas
from taxi_assets.report.day_picture import GAP, SIZE, STRIP, Figures, draw_day_picture
from taxi_assets.report.day_text import describe_day
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import convert_to_table
from taxi_assets.trips.profile import list_bins, profile_partition
from taxi_assets.trips.rules import RULES
from taxi_assets.trips.usual_day import Unusual
from taxi_assets_tests.trips.test_profile import make_frame

YELLOW = SERVICES["yellow"]
DAY = date(2021, 1, 5)
DROPPED = {"zero_passengers": 30, "null_passengers": 200, "unreadable": 0}


def make_figures(rows: int = 2000, **dropped: int) -> Figures:
    return Figures(
        profile_partition(convert_to_table(make_frame(rows), YELLOW), YELLOW),
        dropped or DROPPED,
        12345.6,
    )


def count_pixels_by_colour(png: bytes) -> dict[tuple[int, ...], int]:
    """Count pixels by colour, opacity included."""
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode, image.width) == ("PNG", "P", SIZE[0])
        counted = image.convert("RGBA").getcolors(1 << 20)
    return {colour: pixels for pixels, colour in counted}


def count_pixels(png: bytes, index: int) -> int:
    return count_pixels_by_colour(png).get((*COLOURS[index], 255), 0)


@pytest.mark.parametrize("rows", [0, 1, 2000])
@pytest.mark.parametrize("before", [0, 1, 4])
def test_picture_stays_small_for_every_number_of_rows(rows: int, before: int) -> None:
    png = draw_day_picture(
        YELLOW, DAY, make_figures(rows), [make_figures(seed) for seed in range(before)]
    )
    assert len(png) < 30_000
    assert measure_height(png) == SIZE[1]
    colours = count_pixels_by_colour(png)
    assert colours[*GROUND, 255] > SIZE[0] * SIZE[1] / 3
    assert {colour[3] for colour in colours} == {255}


def measure_height(png: bytes) -> int:
    with Image.open(io.BytesIO(png)) as image:
        return image.height


def find_colour(png: bytes, index: int, rows: range) -> list[int]:
    """Return the columns of pixels that have a colour in some rows, from left to right."""
    with Image.open(io.BytesIO(png)) as image:
        return [x for x in range(image.width) if any(image.getpixel((x, y)) == index for y in rows)]


@pytest.mark.parametrize(("value", "is_left"), [(300.0, True), (4000.0, False)])
def test_unusual_figure_stands_apart_from_earlier_weeks(value: float, is_left: bool) -> None:
    before = (2000.0, 1900.0, 2100.0, 2050.0)
    odd = Unusual("trips", value, 2025.0, -8, "volume", before)
    usual = draw_day_picture(YELLOW, DAY, make_figures(), [])
    png = draw_day_picture(YELLOW, DAY, make_figures(), [], [odd])
    assert measure_height(png) == SIZE[1] + GAP + STRIP
    strip = range(SIZE[1] + GAP, measure_height(png))
    day, weeks = find_colour(png, GONE, strip), find_colour(png, USUAL, strip)
    assert day[-1] < weeks[0] if is_left else day[0] > weeks[-1]
    # Trips are the figure of the line under the title, which has a red rule now.
    rule = range(60, 66)
    assert find_colour(png, GONE, rule)
    assert find_colour(usual, GONE, rule) == []
    fares = replace(odd, name="median fare_amount")
    below = range(368, 376)
    marked = find_colour(draw_day_picture(YELLOW, DAY, make_figures(), [], [fares]), GONE, below)
    assert marked
    assert find_colour(png, GONE, below) == []


def test_farthest_figures_have_a_strip() -> None:
    odd = [Unusual(f"rows without {name}", 1.0, 0.0, 50, "share", (0.0,) * 6) for name in "abcdefg"]
    png = draw_day_picture(YELLOW, DAY, make_figures(), [], odd)
    assert measure_height(png) == SIZE[1] + GAP + 5 * STRIP


def compute_luminance(colour: Sequence[int]) -> float:
    """Return the relative luminance that the Web Content Accessibility Guidelines define."""
    parts = [part / 255 for part in colour[:3]]
    linear = [
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in parts
    ]
    return sum(
        weight * channel for weight, channel in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
    )


@pytest.mark.parametrize("index", COLOURS)
def test_text_and_marks_contrast_with_background(index: int) -> None:
    light, dark = compute_luminance(GROUND), compute_luminance(COLOURS[index])
    assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize(
    ("usual", "dropped", "expected"),
    [
        (
            [1700, 1800, 1750, 1751],
            {"zero_passengers": 7, "null_passengers": 1431, "unreadable": 0},
            (
                "1,453 trips, $26,680, 17% below usual; 1,438 of 2,891 rows dropped "
                "(1,431 null passengers, 7 zero passengers)"
            ),
        ),
        ([1000], {"unreadable": 0}, "1,453 trips, $26,680, 45% above usual; no row dropped"),
        ([1453], {}, "1,453 trips, $26,680, as usual; no row dropped"),
        ([], {}, "1,453 trips, $26,680; no row dropped"),
        ([0], {}, "1,453 trips, $26,680; no row dropped"),
    ],
)
def test_sentence_describes_day(usual: list[int], dropped: dict[str, int], expected: str) -> None:
    assert describe_day(1453, 26680.4, usual, dropped) == expected


def test_sentence_of_one_trip_a_refund_and_no_fares() -> None:
    assert describe_day(1, -3.5, [], {}) == "1 trip, -$4; no row dropped"
    assert describe_day(0, None, [5], {}) == "0 trips, 100% below usual; no row dropped"


def test_bars_marks_and_dropped_rows_differ_in_colour() -> None:
    alone = draw_day_picture(YELLOW, DAY, make_figures(), [])
    beside = draw_day_picture(YELLOW, DAY, make_figures(), [make_figures(900)])
    assert (
        count_pixels(alone, BAR)
        > count_pixels(draw_day_picture(YELLOW, DAY, make_figures(0), []), BAR)
        == 0
    )
    assert count_pixels(beside, USUAL) > count_pixels(alone, USUAL) == 0
    clean = draw_day_picture(YELLOW, DAY, make_figures(zero_passengers=0), [])
    assert count_pixels(alone, GONE) > count_pixels(clean, GONE) == 0


def test_mark_is_median_of_earlier_days() -> None:
    day = make_figures().profile

    def times(factor: int) -> Figures:
        hours = [rows * factor for rows in day.hours]
        bins = {column: [row * factor for row in rows] for column, rows in day.bins.items()}
        dropped = {reason: rows * factor for reason, rows in DROPPED.items()}
        return Figures(replace(day, rows=day.rows * factor, hours=hours, bins=bins), dropped)

    low, middle, high = map(times, (1, 2, 7))
    assert draw_day_picture(YELLOW, DAY, make_figures(), [high, low, middle]) == draw_day_picture(
        YELLOW, DAY, make_figures(), [middle, middle, middle]
    )


def test_picture_depends_on_the_day_only() -> None:
    first = draw_day_picture(YELLOW, DAY, make_figures(), [])
    assert draw_day_picture(YELLOW, DAY, make_figures(), []) == first
    assert draw_day_picture(YELLOW, date(2021, 1, 6), make_figures(), []) != first
    assert draw_day_picture(YELLOW, DAY, replace(make_figures(), synthetic=True), []) != first


def test_picture_has_room_for_every_rule() -> None:
    dropped = dict.fromkeys((*RULES, "row_limit", "unreadable"), 10)
    assert count_pixels(draw_day_picture(YELLOW, DAY, make_figures(**dropped), []), GONE) > 100


def test_service_without_fares_and_distances_shows_its_hours() -> None:
    bare = make_figures()
    bare = replace(bare, profile=replace(bare.profile, bins={}, medians={}), revenue=None)
    assert count_pixels(draw_day_picture(YELLOW, DAY, bare, [bare]), BAR) > 0


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_no_text_is_written_over_another(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[tuple[int, int, int, str]] = []
    draw = Canvas.draw_text

    def draw_text(
        canvas: Canvas, place: tuple[int, int], text: str, size: int, anchor: str = "l"
    ) -> None:
        width = canvas.measure_text(text, size)
        left = place[0] - {"l": 0, "m": width // 2, "r": width}[anchor]
        texts.append((place[1], left, left + width, text))
        draw(canvas, place, text, size, anchor)

    monkeypatch.setattr(Canvas, "draw_text", draw_text)
    profile = profile_partition(service.arrow_schema.empty_table(), service)
    panels = list_bins(service)
    profile = replace(
        profile,
        rows=100_000,
        medians={panel.column: 123.45 for panel in panels},
        bins={panel.column: [30_000] * (panel.count + 2) for panel in panels},
    )
    figures = Figures(profile, DROPPED, None if service.total is None else 1_234_567.8)
    draw_day_picture(service, DAY, figures, [figures] * 4)
    overlapping = [
        (before[3], after[3])
        for before, after in pairwise(sorted(texts))
        if before[0] == after[0] and before[2] > after[1]
    ]
    assert overlapping == []
