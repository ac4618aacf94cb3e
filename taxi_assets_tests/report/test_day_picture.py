"""The picture of a day: a small transparent PNG that shows what is in it."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import date

import pytest
from PIL import Image

from taxi_assets.report.day_picture import BAR, COLOURS, GONE, SIZE, USUAL, Figures, picture
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import to_table
from taxi_assets.trips.profile import profile
from taxi_assets.trips.rules import RULES
from taxi_assets_tests.trips.test_profile import frame

YELLOW = SERVICES["yellow"]
DAY = date(2021, 1, 5)
DROPPED = {"zero_passengers": 30, "null_passengers": 200, "unreadable": 0}


def figures(rows: int = 2000, **dropped: int) -> Figures:
    return Figures(profile(to_table(frame(rows), YELLOW), YELLOW), dropped or DROPPED, 12345.6)


def drawn(png: bytes) -> dict[tuple[int, ...], int]:
    """Pixels by colour, opacity included."""
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "P", SIZE)
        counted = image.convert("RGBA").getcolors(1 << 20)
    return {colour: pixels for pixels, colour in counted}


def pixels(png: bytes, index: int) -> int:
    return drawn(png).get((*COLOURS[index], 255), 0)


@pytest.mark.parametrize("rows", [0, 1, 2000])
@pytest.mark.parametrize("before", [0, 1, 4])
def test_every_day_has_a_small_picture(rows: int, before: int) -> None:
    png = picture(YELLOW, DAY, figures(rows), [figures(seed) for seed in range(before)])
    assert len(png) < 30_000
    transparent = sum(count for colour, count in drawn(png).items() if colour[3] == 0)
    assert transparent > SIZE[0] * SIZE[1] / 3


def test_bars_marks_and_dropped_rows_have_colours_of_their_own() -> None:
    alone = picture(YELLOW, DAY, figures(), [])
    beside = picture(YELLOW, DAY, figures(), [figures(900)])
    assert pixels(alone, BAR) > pixels(picture(YELLOW, DAY, figures(0), []), BAR) == 0
    assert pixels(beside, USUAL) > pixels(alone, USUAL) == 0
    clean = picture(YELLOW, DAY, figures(zero_passengers=0), [])
    assert pixels(alone, GONE) > pixels(clean, GONE) == 0


def test_the_mark_is_the_median_of_the_days_before() -> None:
    day = figures().profile

    def times(factor: int) -> Figures:
        hours = [rows * factor for rows in day.hours]
        bins = {column: [one * factor for one in rows] for column, rows in day.bins.items()}
        dropped = {reason: rows * factor for reason, rows in DROPPED.items()}
        return Figures(replace(day, rows=day.rows * factor, hours=hours, bins=bins), dropped)

    low, middle, high = map(times, (1, 2, 7))
    assert picture(YELLOW, DAY, figures(), [high, low, middle]) == picture(
        YELLOW, DAY, figures(), [middle, middle, middle]
    )


def test_the_same_day_is_the_same_picture_and_another_is_another() -> None:
    first = picture(YELLOW, DAY, figures(), [])
    assert picture(YELLOW, DAY, figures(), []) == first
    assert picture(YELLOW, date(2021, 1, 6), figures(), []) != first
    assert picture(YELLOW, DAY, replace(figures(), synthetic=True), []) != first


def test_every_rule_has_room() -> None:
    dropped = dict.fromkeys((*RULES, "row_limit", "unreadable"), 10)
    assert pixels(picture(YELLOW, DAY, figures(**dropped), []), GONE) > 100


def test_a_service_without_fares_and_distances_has_its_hours() -> None:
    bare = figures()
    bare = replace(bare, profile=replace(bare.profile, bins={}, medians={}), revenue=None)
    assert pixels(picture(YELLOW, DAY, bare, [bare]), BAR) > 0
