"""Draw bars small enough for Dagster's UI to show them on a page, as Markdown.

The UI hides Markdown of 1,000 characters or more behind "[Show Markdown]". A picture of four
colours in two bits per pixel takes some 850 as base64, so the tables of metadata can lead with one.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from taxi_assets.report.canvas import encode_png, load_font

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_LENGTH = 999
"""Characters of Markdown that Dagster's UI shows without a click."""
SIZE = (496, 96)
"""Pixels. The page of a day leaves a table 590 at a width of 1,440."""
MARGIN, FONT_SIZE = 17, 13
"""Pixels above the bars, for their maximum, and below, for the axis."""
GROUND, INK, BAR, MARK = range(4)
PALETTE = ((255, 255, 255), (60, 68, 80), (37, 99, 235), (190, 86, 4))
"""The text and every bar have a contrast of at least 4.5 to the background."""
STEPS = (2, 4, 8, 16)
"""Pixels to which heights are rounded: the first with which the picture fits."""
BYTE = 4
"""Pixels in a byte. Bars that begin with one take a fifth less."""


def draw_inline_bars(
    values: Sequence[float],
    labels: Mapping[int, str],
    text: str,
    usual: Sequence[float] = (),
    marked: Collection[int] = (),
) -> str:
    """Return Markdown with a picture of bars, their maximum and labels, and a text below it.

    The text's first sentence describes the picture to screen readers. `usual` draws an orange mark
    on each bar, `marked` are the indices of orange bars.
    """
    title, markdown = text.partition(".")[0], ""
    for step in STEPS:
        png = _draw(values, labels, usual, marked, step)
        encoded = base64.b64encode(png).decode()
        markdown = f"![{title}](data:image/png;base64,{encoded})\n\n{text}"
        if len(markdown) <= MAX_LENGTH:
            break
    return markdown


def _draw(
    values: Sequence[float],
    labels: Mapping[int, str],
    usual: Sequence[float],
    marked: Collection[int],
    step: int,
) -> bytes:
    """Draw bars whose heights are multiples of `step` pixels."""
    from PIL import Image

    image = Image.new("P", SIZE, GROUND)
    width, bottom = SIZE[0], SIZE[1] - MARGIN
    slot, maximum = width // len(values) // BYTE * BYTE, max(*values, *usual, 1)

    def scale(value: float) -> int:
        return round(value * (bottom - MARGIN) / maximum / step) * step

    for at, value in enumerate(values):
        left, right = at * slot, (at + 1) * slot - BYTE
        if height := max(scale(value), 0):
            colour = MARK if at in marked else BAR
            image.paste(colour, (left, bottom - height, right, bottom))
        if usual:
            top = bottom - scale(usual[at])
            image.paste(MARK, (left, top - 1, right, top + 2))
        if label := labels.get(at):
            _write(image, (left + right) // 2, SIZE[1] - FONT_SIZE, label)
    image.paste(INK, (0, bottom, width, bottom + 1))
    highest = max(range(len(values)), key=lambda at: values[at])
    _write(image, highest * slot + slot // 2, 1, f"{values[highest]:,.0f}")
    return encode_png(image, 2, PALETTE)


def _write(image: Image, middle: int, top: int, text: str) -> None:
    """Write a text around a point, within the picture."""
    letters = _render_text(text)
    left = min(max(middle - letters.width // 2, 0), image.width - letters.width)
    image.paste(INK, (left, top), letters)


@lru_cache(maxsize=256)
def _render_text(text: str) -> Image:
    """Render a text without shades, which would take more colours."""
    from PIL import Image, ImageDraw

    font = load_font(FONT_SIZE)
    letters = Image.new("1", (round(font.getlength(text)) + 1, FONT_SIZE))
    ImageDraw.Draw(letters).text((0, FONT_SIZE - 2), text, 1, font, anchor="ls")
    return letters
