"""Small pictures, which Dagster's UI shows on its pages."""

from __future__ import annotations

import base64
import io
import random

import pytest
from PIL import Image

from taxi_assets.report.inline_picture import (
    BAR,
    GROUND,
    MARK,
    MAX_LENGTH,
    PALETTE,
    SIZE,
    draw_inline_bars,
)

TEXT = "Pickups by hour. Orange: median of the 6 Wednesdays before."


def read_picture(markdown: str) -> Image.Image:
    encoded = markdown.partition("base64,")[2].partition(")")[0]
    return Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))).convert("RGB")


@pytest.mark.parametrize("bars", [24, 28, 31])
def test_any_values_fit_the_length_that_is_shown(bars: int) -> None:
    draw = random.Random(bars)  # noqa: S311 - values of a picture
    for most in (1, 40, 900_000):
        values = [draw.randint(0, most) for _ in range(bars)]
        usual = [draw.uniform(0, most) for _ in range(bars)]
        labels = {at: str(at + 1) for at in range(0, bars, 3)}
        markdown = draw_inline_bars(values, labels, TEXT, usual)
        assert len(markdown) <= MAX_LENGTH
        assert markdown.endswith(f"\n\n{TEXT}")
        assert read_picture(markdown).size == SIZE


def test_bars_are_as_high_as_their_values() -> None:
    picture = read_picture(draw_inline_bars([0, 50, 100, -5], {}, "Trips.", marked=[2]))

    def measure(bar: int, index: int) -> int:
        x = SIZE[0] // 4 * bar + 20
        return sum(picture.getpixel((x, y)) == PALETTE[index] for y in range(SIZE[1]))

    assert measure(0, BAR) == measure(3, BAR) == 0
    assert measure(2, MARK) == pytest.approx(2 * measure(1, BAR), abs=2)


def test_usual_values_are_marked() -> None:
    plain = read_picture(draw_inline_bars([5, 9], {}, "Trips."))
    marked = read_picture(draw_inline_bars([5, 9], {}, "Trips.", [7.0, 8.0]))
    assert PALETTE[MARK] not in dict(map(reversed, plain.getcolors() or ()))
    assert PALETTE[MARK] in dict(map(reversed, marked.getcolors() or ()))


def test_no_values_are_a_picture_too() -> None:
    picture = read_picture(draw_inline_bars([0] * 24, {}, "Trips."))
    colours = dict(map(reversed, picture.getcolors() or ()))
    assert PALETTE[GROUND] in colours
    assert PALETTE[BAR] not in colours
