"""Draw a day's picture: pickups by hour, fares, distances, dropped rows, and the days before.

Pillow draws directly into indices of a palette of ten colours: text is a ramp from white to ink,
and everything else is horizontal or vertical, so nothing needs anti-aliasing. A picture takes about
4 ms; with matplotlib it takes 150. Below it, an unusual day has a strip for each unusual figure,
which compares the day with the same weekdays before. The background is white, because no colour has
a contrast of 4.5 to both backgrounds of Dagster's UI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache, lru_cache
from math import ceil
from statistics import median
from typing import TYPE_CHECKING

from taxi_assets.report.day_text import summarize_trips
from taxi_assets.report.inline_picture import draw_inline_bars
from taxi_assets.report.png import encode_png
from taxi_assets.report.value_names import format_share
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.profile import HOURS, Bins, DayProfile, list_bins
from taxi_assets.trips.usual_day import Unusual

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

SIZE = (960, 600)
"""Size without unusual figures. It fits Dagster's dialog for Markdown, which does not scale
pictures and takes 80 % of a small laptop's 1,280 pixels."""
MARGIN = 8
GAP = 36
INK, GRID = 5, 1
"""The ramp: index 0 is the white background, INK is full text, and those between are paler."""
BAR, BEYOND, USUAL, GONE = 6, 7, 8, 9
GROUND = (255, 255, 255)
COLOURS = {
    INK: (60, 68, 80),
    BAR: (37, 99, 235),
    BEYOND: (86, 118, 168),
    USUAL: (190, 86, 4),
    GONE: (190, 48, 62),
}
"""Each has a contrast of at least 4.5 to the background."""
TITLE, HEADING, LABEL = 26, 17, 14
"""Font sizes."""

MAX_REASONS = 8
"""Number of lines for dropped rows."""
MAX_UNUSUAL, STRIP = 5, 30
"""Number of unusual figures that are drawn, the most unusual first, and the height of each."""


@dataclass(frozen=True)
class Figures:
    """The figures of a day that are drawn."""

    profile: DayProfile
    dropped: Mapping[str, int]
    """Number of dropped rows by reason."""
    revenue: float | None = None
    """Dollars."""
    synthetic: bool = False
    """Whether the rows come from the sample."""


@dataclass(frozen=True)
class Box:
    """The position of a panel in pixels."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Bars:
    """The content of a panel of bars."""

    heading: str
    rows: Sequence[int]
    usual: Sequence[float]
    """Usual value of each bar; empty if unknown."""
    labels: Mapping[int, str]
    """Labels by bar."""
    edges: bool = False
    """Whether labels mark the left edges of bars, and the outer bars are beyond the axis."""
    is_marked: bool = False
    """Whether the figure in the heading is unusual."""


def draw_day_picture(
    service: Service,
    day: date,
    figures: Figures,
    before: Sequence[Figures],
    unusual: Sequence[Unusual] = (),
) -> bytes:
    """Draw a PNG of the day, with the same weekdays of earlier weeks if they are known.

    An unusual figure has a red rule under the heading of its panel, and a separate strip.
    """
    strips = unusual[:MAX_UNUSUAL]
    canvas = _Canvas(SIZE[1] + (GAP + STRIP * len(strips) if strips else 0))
    names = {figure.name for figure in unusual}
    title = f"{service.label} trips, {day:%A} {day.day} {day:%B %Y}"
    canvas.text((MARGIN, 28), f"{title} (synthetic)" if figures.synthetic else title, TITLE)
    usual_trips = [weekday.profile.rows for weekday in before]
    summary = summarize_trips(figures.profile.rows, figures.revenue, usual_trips)
    is_marked = not names.isdisjoint({"trips", "revenue"})
    text = f"{summary}{_describe_shared(figures.profile)}"
    _write_marked(canvas, (MARGIN, 56), text, is_marked=is_marked)
    _draw_legend(canvas, day, len(before))
    middle = 320
    hours = Box(MARGIN, 82, SIZE[0] - MARGIN, middle)
    usual = _compute_medians([weekday.profile.hours for weekday in before])
    labels = {at: f"{at:02d}" for at in range(HOURS)}
    _draw_bars(canvas, hours, Bars("Pickups by hour", figures.profile.hours, usual, labels))
    panels = [bins for bins in list_bins(service) if bins.column in figures.profile.bins]
    width = (SIZE[0] - 2 * MARGIN - len(panels) * GAP) // (len(panels) + 1)
    for at, bins in enumerate(panels):
        left = MARGIN + at * (width + GAP)
        box = Box(left, middle + 32, left + width, SIZE[1] - MARGIN)
        rows = figures.profile.bins[bins.column]
        earlier = [weekday.profile.bins.get(bins.column, rows) for weekday in before]
        usual = _compute_medians(earlier)
        heading = _write_heading(service, bins, figures.profile)
        is_marked = f"median {bins.column}" in names
        bars = Bars(heading, rows, usual, _label_edges(bins), edges=True, is_marked=is_marked)
        _draw_bars(canvas, box, bars)
    box = Box(SIZE[0] - MARGIN - width, middle + 32, SIZE[0] - MARGIN, SIZE[1] - MARGIN)
    _draw_drop_reasons(canvas, box, figures.dropped, [weekday.dropped for weekday in before])
    _draw_unusual(canvas, day, strips)
    return canvas.png()


def draw_day_hours(day: date, figures: Figures, before: Sequence[Figures]) -> str:
    """Draw pickups by hour as Markdown that Dagster's UI shows on the day's page."""
    usual = _compute_medians([weekday.profile.hours for weekday in before])
    labels = {at: f"{at:02d}" for at in range(0, HOURS, 3)}
    text = f"Pickups by hour. Orange: {_name_days_before(day, len(before))}."
    text = text if before else "Pickups by hour."
    return draw_inline_bars(figures.profile.hours, labels, text, usual)


def _draw_unusual(canvas: _Canvas, day: date, strips: Sequence[Unusual]) -> None:
    """Draw a line for each unusual figure: its text, and the day among those before it."""
    if not strips:
        return
    top, right = SIZE[1], SIZE[0] - MARGIN
    _write_marked(canvas, (MARGIN, top + 16), "Unusual", is_marked=True)
    text = f"this day, and the {day:%A}s before"
    canvas.text((right, top + 16), text, LABEL, "r")
    at = right - canvas.width(text, LABEL) - 24
    canvas.fill((at, top + 2, at + 7, top + 18), GONE)
    canvas.fill((at + 12, top + 4, at + 15, top + 16), USUAL)
    left = MARGIN + max(canvas.width(str(figure), LABEL) for figure in strips) + GAP
    for number, figure in enumerate(strips):
        y = top + GAP + number * STRIP
        canvas.text((MARGIN, y + 12), str(figure), LABEL)
        values = (*figure.before, figure.usual, figure.value)
        scale = (right - left - 8) / (max(values) - min(values))
        canvas.fill((left, y + 7, right, y + 8), GRID)
        for value in figure.before:
            x = left + round((value - min(values)) * scale)
            canvas.fill((x + 2, y + 1, x + 5, y + 14), USUAL)
        x = left + round((figure.value - min(values)) * scale)
        canvas.fill((x, y - 2, x + 7, y + 17), GONE)


def _write_marked(canvas: _Canvas, place: tuple[int, int], text: str, *, is_marked: bool) -> None:
    """Write a heading, with a red rule under it if its figure is unusual."""
    canvas.text(place, text, HEADING)
    if is_marked:
        right = place[0] + canvas.width(text, HEADING)
        canvas.fill((place[0], place[1] + 5, right, place[1] + 8), GONE)


def _describe_shared(profile: DayProfile) -> str:
    """Return the share of shared rides, if the service publishes it."""
    if profile.shared is None or not profile.rows:
        return ""
    return f", {format_share(profile.shared, profile.rows) or '0%'} shared"


def _draw_legend(canvas: _Canvas, day: date, days: int) -> None:
    if not days:
        return
    text = _name_days_before(day, days)
    right = SIZE[0] - MARGIN
    canvas.text((right, 56), text, HEADING, "r")
    left = right - canvas.width(text, HEADING) - 42
    canvas.fill((left, 48, left + 30, 52), USUAL)


def _name_days_before(day: date, days: int) -> str:
    return f"the {day:%A} before" if days == 1 else f"median of the {days} {day:%A}s before"


def _write_heading(service: Service, bins: Bins, profile: DayProfile) -> str:
    units = {column.name: column.unit for column in service.columns}
    unit = units.get(bins.column, "minutes")
    text = bins.column.removesuffix(f"_{unit}").replace("_", " ")
    text = f"{text.capitalize()}, {unit}"
    middle = profile.medians.get(bins.column)
    return text if middle is None else f"{text}: median {middle:,.2f}"


def _label_edges(bins: Bins) -> dict[int, str]:
    """Label each quarter of the axis; the first bar counts values below 0."""
    labels = {1 + at: f"{bins.width * at:g}" for at in range(0, bins.count + 1, bins.count // 4)}
    labels[1 + bins.count] += "+"
    return labels


def _compute_medians(rows: Sequence[Sequence[int]]) -> list[float]:
    return [median(column) for column in zip(*rows, strict=True)]


def _draw_bars(canvas: _Canvas, box: Box, bars: Bars) -> None:
    """Draw bars over an axis, and a mark at the usual height of each."""
    _write_marked(canvas, (box.left, box.top + 16), bars.heading, is_marked=bars.is_marked)
    top, bottom = box.top + 38, box.bottom - 24
    maximum = max((*bars.rows, *bars.usual, 1))
    step = _choose_tick_step(maximum)
    scale = (bottom - top) / maximum
    ticks = range(step, int(maximum) + 1, step)
    left = box.left + max(canvas.width(f"{tick:,}", LABEL) for tick in (*ticks, 0)) + 8
    for tick in (0, *ticks):
        y = bottom - round(tick * scale)
        canvas.fill((left, y, box.right, y + 1), GRID if tick else INK // 2)
        canvas.text((left - 8, y + 5), f"{tick:,}", LABEL, "r")
    slot = (box.right - left) / len(bars.rows)
    for at, count in enumerate(bars.rows):
        near, far = round(left + at * slot), round(left + (at + 1) * slot)
        if height := round(count * scale):
            beyond = bars.edges and at in (0, len(bars.rows) - 1)
            canvas.fill((near + 1, bottom - height, far - 1, bottom), BEYOND if beyond else BAR)
        if bars.usual and bars.usual[at]:
            y = bottom - round(bars.usual[at] * scale)
            canvas.fill((near - 1, y - 2, far + 1, y + 2), USUAL)
        if at in bars.labels:
            x = near if bars.edges else (near + far) // 2
            canvas.text((x, box.bottom - 4), bars.labels[at], LABEL, "m")


def _draw_drop_reasons(
    canvas: _Canvas, box: Box, dropped: Mapping[str, int], before: Sequence[Mapping[str, int]]
) -> None:
    """Draw one line for each reason, the most frequent first; the rest share one line."""
    canvas.text((box.left, box.top + 16), f"Rows dropped: {sum(dropped.values()):,}", HEADING)
    if len(dropped) > MAX_REASONS:
        first = sorted(dropped, key=lambda reason: -dropped[reason])[: MAX_REASONS - 1]
        dropped = _sum_other_reasons(dropped, first)
        before = [_sum_other_reasons(weekday, first) for weekday in before]
    usual = {
        reason: median(weekday.get(reason, 0) for weekday in before) for reason in dropped if before
    }
    maximum = max((*dropped.values(), *usual.values(), 1))
    height = min((box.bottom - box.top - 38) // max(len(dropped), 1), 56)
    thick = min(height - 22, 14)
    for at, (reason, rows) in enumerate(sorted(dropped.items(), key=lambda pair: -pair[1])):
        y = box.top + 44 + at * height
        canvas.text((box.left, y + 12), reason.replace("_", " "), LABEL)
        canvas.text((box.right, y + 12), f"{rows:,}", LABEL, "r")
        right = box.left + round((box.right - box.left) * rows / maximum)
        canvas.fill((box.left, y + 19, box.right, y + 20), GRID)
        canvas.fill((box.left, y + 19, right, y + 19 + thick), GONE)
        if usual.get(reason):
            x = box.left + round((box.right - box.left) * usual[reason] / maximum)
            canvas.fill((x - 3, y + 17, x + 1, y + 21 + thick), USUAL)


def _sum_other_reasons(dropped: Mapping[str, int], first: Sequence[str]) -> dict[str, int]:
    """Return the rows of the first reasons, and the sum of all others."""
    named = {reason: dropped.get(reason, 0) for reason in first}
    return {**named, "other reasons": sum(dropped.values()) - sum(named.values())}


def _choose_tick_step(maximum: float) -> int:
    """Choose a round tick distance that gives two to five ticks."""
    step = 1
    while maximum / step > 5:  # noqa: PLR2004
        step = step * 5 // 2 if str(step).startswith("2") else step * 2
    return step


class _Canvas:
    """A picture of palette indices, with methods to draw rectangles and text."""

    def __init__(self, height: int) -> None:
        from PIL import Image

        self.image = Image.new("L", (SIZE[0], height))

    def fill(self, box: tuple[int, int, int, int], index: int) -> None:
        """Fill a rectangle; right and bottom are exclusive."""
        if box[2] > box[0] and box[3] > box[1]:
            self.image.paste(index, box)

    def text(self, place: tuple[int, int], text: str, size: int, anchor: str = "l") -> None:
        """Draw text on a baseline that starts at (l), is centred on (m) or ends at (r) a point."""
        letters = _render_text(text, size)
        before = {"l": 0, "m": letters.width // 2, "r": letters.width}[anchor]
        ascent, _ = _load_font(size).getmetrics()
        self.image.paste(INK, (place[0] - before, place[1] - ascent), letters)

    def width(self, text: str, size: int) -> int:
        """Return the width of a text in pixels."""
        return round(_load_font(size).getlength(text))

    def png(self) -> bytes:
        """Return the picture as PNG."""
        ramp = [
            tuple(
                round(at + (ink - at) * step / INK)
                for at, ink in zip(GROUND, COLOURS[INK], strict=True)
            )
            for step in range(INK)
        ]
        self.image.putpalette(
            bytes(part for colour in (*ramp, *COLOURS.values()) for part in colour)
        )
        return encode_png(self.image, 4, (*ramp, *COLOURS.values()))


@lru_cache(maxsize=1024)
def _render_text(text: str, size: int) -> Image:
    """Render a text as pixel coverage, cached because most texts recur every day."""
    from PIL import Image, ImageDraw

    font = _load_font(size)
    ascent, descent = font.getmetrics()
    image = Image.new("L", (ceil(font.getlength(text)), ascent + descent))
    ImageDraw.Draw(image).text((0, ascent), text, 255, font, anchor="ls")
    return image


@cache
def _load_font(size: int) -> FreeTypeFont:
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType")
    return font
