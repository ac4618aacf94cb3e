"""Draw bars small enough for Dagster's UI to show them on a page, as Markdown.

The UI hides Markdown of 1,000 characters or more behind "[Show Markdown]". A picture of four
colours in two bits per pixel takes some 850 as base64, so the tables of metadata can lead with one.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence

from taxi_assets.report.canvas import Canvas

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
    canvas = Canvas(SIZE, PALETTE, INK)
    width, bottom = SIZE[0], SIZE[1] - MARGIN
    slot, maximum = width // len(values) // BYTE * BYTE, max(*values, *usual, 1)

    def scale(value: float) -> int:
        return round(value * (bottom - MARGIN) / maximum / step) * step

    for at, value in enumerate(values):
        left, right = at * slot, (at + 1) * slot - BYTE
        colour = MARK if at in marked else BAR
        canvas.fill_rectangle((left, bottom - scale(value), right, bottom), colour)
        if usual:
            top = bottom - scale(usual[at])
            canvas.fill_rectangle((left, top - 1, right, top + 2), MARK)
        if label := labels.get(at):
            canvas.draw_text(((left + right) // 2, SIZE[1] - 2), label, FONT_SIZE, "m")
    canvas.fill_rectangle((0, bottom, width, bottom + 1), INK)
    highest = max(range(len(values)), key=lambda at: values[at])
    place = (highest * slot + slot // 2, MARGIN - 5)
    canvas.draw_text(place, f"{values[highest]:,.0f}", FONT_SIZE, "m")
    return canvas.encode_png()
