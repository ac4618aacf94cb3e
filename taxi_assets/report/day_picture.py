"""Draw a day's picture: pickups by hour, fares, distances, dropped rows, and the days before.

Below it, an unusual day has a strip for each unusual figure, which compares the day with the same
weekdays before. `canvas.py` has the colours and draws rectangles and text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from statistics import median

from taxi_assets.report.canvas import BAR, BEYOND, GONE, GRID, INK, USUAL, Canvas
from taxi_assets.report.day_text import summarize_trips
from taxi_assets.report.inline_picture import draw_inline_bars
from taxi_assets.report.value_names import format_share
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.profile import HOURS, Bins, DayProfile, list_bins
from taxi_assets.trips.usual_day import Unusual

SIZE = (960, 600)
"""Size without unusual figures. It fits Dagster's dialog for Markdown, which does not scale
pictures and takes 80 % of a small laptop's 1,280 pixels."""
MARGIN = 8
GAP = 36
TITLE, HEADING, LABEL, SMALLEST = 26, 17, 14, 10
"""Font sizes."""
LINE = 18
"""Height of a line of a heading."""

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
    canvas = Canvas((SIZE[0], SIZE[1] + (GAP + STRIP * len(strips) if strips else 0)))
    names = {figure.name for figure in unusual}
    title = f"{service.label} trips, {day:%A} {day.day} {day:%B %Y}"
    canvas.draw_text((MARGIN, 28), f"{title} (synthetic)" if figures.synthetic else title, TITLE)
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
    return canvas.encode_png()


def draw_day_hours(day: date, figures: Figures, before: Sequence[Figures]) -> str:
    """Draw pickups by hour as Markdown that Dagster's UI shows on the day's page."""
    usual = _compute_medians([weekday.profile.hours for weekday in before])
    labels = {at: f"{at:02d}" for at in range(0, HOURS, 3)}
    text = f"Pickups by hour. Orange: {_name_days_before(day, len(before))}."
    text = text if before else "Pickups by hour."
    return draw_inline_bars(figures.profile.hours, labels, text, usual)


def _draw_unusual(canvas: Canvas, day: date, strips: Sequence[Unusual]) -> None:
    """Draw a line for each unusual figure: its text, and the day among those before it."""
    if not strips:
        return
    top, right = SIZE[1], SIZE[0] - MARGIN
    _write_marked(canvas, (MARGIN, top + 16), "Unusual", is_marked=True)
    text = f"this day, and the {day:%A}s before"
    canvas.draw_text((right, top + 16), text, LABEL, "r")
    at = right - canvas.measure_text(text, LABEL) - 24
    canvas.fill_rectangle((at, top + 2, at + 7, top + 18), GONE)
    canvas.fill_rectangle((at + 12, top + 4, at + 15, top + 16), USUAL)
    left = MARGIN + max(canvas.measure_text(str(figure), LABEL) for figure in strips) + GAP
    for number, figure in enumerate(strips):
        y = top + GAP + number * STRIP
        canvas.draw_text((MARGIN, y + 12), str(figure), LABEL)
        values = (*figure.before, figure.usual, figure.value)
        scale = (right - left - 8) / (max(values) - min(values))
        canvas.fill_rectangle((left, y + 7, right, y + 8), GRID)
        for value in figure.before:
            x = left + round((value - min(values)) * scale)
            canvas.fill_rectangle((x + 2, y + 1, x + 5, y + 14), USUAL)
        x = left + round((figure.value - min(values)) * scale)
        canvas.fill_rectangle((x, y - 2, x + 7, y + 17), GONE)


def _write_marked(
    canvas: Canvas, place: tuple[int, int], text: str, *, is_marked: bool, width: int = SIZE[0]
) -> None:
    """Write a heading, with a red rule under it if its figure is unusual.

    One that is wider than its panel takes two lines, in a smaller font if necessary.
    """
    lines = [text] if canvas.measure_text(text, HEADING) <= width else text.split(": ", 1)
    size = HEADING
    while size > SMALLEST and any(canvas.measure_text(line, size) > width for line in lines):
        size -= 1
    for above, line in enumerate(reversed(lines)):
        canvas.draw_text((place[0], place[1] - above * LINE), line, size)
    if is_marked:
        right = place[0] + canvas.measure_text(lines[-1], size)
        canvas.fill_rectangle((place[0], place[1] + 5, right, place[1] + 8), GONE)


def _describe_shared(profile: DayProfile) -> str:
    """Return the share of shared rides, if the service publishes it."""
    if profile.shared is None or not profile.rows:
        return ""
    return f", {format_share(profile.shared, profile.rows) or '0%'} shared"


def _draw_legend(canvas: Canvas, day: date, days: int) -> None:
    if not days:
        return
    text = _name_days_before(day, days)
    right = SIZE[0] - MARGIN
    canvas.draw_text((right, 56), text, HEADING, "r")
    left = right - canvas.measure_text(text, HEADING) - 42
    canvas.fill_rectangle((left, 48, left + 30, 52), USUAL)


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


def _draw_bars(canvas: Canvas, box: Box, bars: Bars) -> None:
    """Draw bars over an axis, and a mark at the usual height of each."""
    place, width = (box.left, box.top + 16), box.right - box.left
    _write_marked(canvas, place, bars.heading, is_marked=bars.is_marked, width=width)
    top, bottom = box.top + 38, box.bottom - 24
    maximum = max((*bars.rows, *bars.usual, 1))
    step = _choose_tick_step(maximum)
    scale = (bottom - top) / maximum
    ticks = range(step, int(maximum) + 1, step)
    left = box.left + max(canvas.measure_text(f"{tick:,}", LABEL) for tick in (*ticks, 0)) + 8
    for tick in (0, *ticks):
        y = bottom - round(tick * scale)
        canvas.fill_rectangle((left, y, box.right, y + 1), GRID if tick else INK // 2)
        canvas.draw_text((left - 8, y + 5), f"{tick:,}", LABEL, "r")
    slot = (box.right - left) / len(bars.rows)
    for at, count in enumerate(bars.rows):
        near, far = round(left + at * slot), round(left + (at + 1) * slot)
        if height := round(count * scale):
            beyond = bars.edges and at in (0, len(bars.rows) - 1)
            canvas.fill_rectangle(
                (near + 1, bottom - height, far - 1, bottom), BEYOND if beyond else BAR
            )
        if bars.usual and bars.usual[at]:
            y = bottom - round(bars.usual[at] * scale)
            canvas.fill_rectangle((near - 1, y - 2, far + 1, y + 2), USUAL)
        if at in bars.labels:
            x = near if bars.edges else (near + far) // 2
            canvas.draw_text((x, box.bottom - 4), bars.labels[at], LABEL, "m")


def _draw_drop_reasons(
    canvas: Canvas, box: Box, dropped: Mapping[str, int], before: Sequence[Mapping[str, int]]
) -> None:
    """Draw one line for each reason, the most frequent first; the rest share one line."""
    canvas.draw_text((box.left, box.top + 16), f"Rows dropped: {sum(dropped.values()):,}", HEADING)
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
        canvas.draw_text((box.left, y + 12), reason.replace("_", " "), LABEL)
        canvas.draw_text((box.right, y + 12), f"{rows:,}", LABEL, "r")
        right = box.left + round((box.right - box.left) * rows / maximum)
        canvas.fill_rectangle((box.left, y + 19, box.right, y + 20), GRID)
        canvas.fill_rectangle((box.left, y + 19, right, y + 19 + thick), GONE)
        if usual.get(reason):
            x = box.left + round((box.right - box.left) * usual[reason] / maximum)
            canvas.fill_rectangle((x - 3, y + 17, x + 1, y + 21 + thick), USUAL)


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
