"""Draw the month's report as a picture for a slide: 1600 by 900 pixels, a PNG of about 60 kB."""

from __future__ import annotations

import calendar
import io
from typing import TYPE_CHECKING, Any

from taxi_assets.report import month_text
from taxi_assets.report.bars import SATURDAY, scale_revenue
from taxi_assets.report.colours import LIGHT, pick_colour_step
from taxi_assets.report.figures import HOURS, WEEKDAYS, MonthFigures
from taxi_assets.report.inline_picture import draw_inline_bars
from taxi_assets.report.page import (
    build_headline_tiles,
    find_busiest_hour_mean,
    find_day_scale,
    rank_pickup_zones,
    split_into_weeks,
)
from taxi_assets.report.quality import Part, list_quality_parts
from taxi_assets.report.zone_map import ZoneMap, draw_zone_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image

WIDTH, HEIGHT, DOTS = 16.0, 9.0, 100
COLOURS = 96
"""Size of the palette: enough for smooth text, at a third of the bytes."""
SHADES = {"stored": LIGHT.steps[4], "dropped": LIGHT.bar, "other": LIGHT.soft}
MAX_NAME_LENGTH = 30
COLUMNS = (0.03, 0.50)
"""Left edges of the two columns, as fractions of the figure."""
TITLE_ABOVE = 0.045
ZONES_WIDTH, MAP_WIDTH = 0.32, 0.14
"""Width of the list of zones, and of the map that takes a part of it."""


def draw_month_picture(figures: MonthFigures, zone_map: ZoneMap | None = None) -> bytes:
    """Draw the month as a PNG with a palette."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from PIL import Image

    with rc_context({"font.family": "DejaVu Sans", "font.size": 11, "hatch.linewidth": 0.8}):
        figure = Figure((WIDTH, HEIGHT), DOTS, facecolor=LIGHT.card)
        _draw_heading(figure, figures)
        _draw_calendar(_add_axes(figure, (0.03, 0.40, 0.43, 0.31), "Trips a day"), figures)
        peak = f"busiest: {month_text.find_peak_hour(figures)}"
        _draw_hours(_add_axes(figure, (0.53, 0.40, 0.44, 0.31), "Trips by hour", peak), figures)
        if figures.has_money:
            place = (0.07, 0.12, 0.39, 0.19)
            _draw_revenue(_add_axes(figure, place, "Revenue a day", "weekends are blue"), figures)
        if figures.zones:
            width = ZONES_WIDTH - MAP_WIDTH if zone_map else ZONES_WIDTH
            place = (0.65, 0.11, width, 0.20)
            axes = _add_axes(figure, place, "Busiest pickup zones")
            _draw_zones(axes, figures, ZONES_WIDTH / width)
        if zone_map:
            draw_zone_map(_add_axes(figure, (0.97 - MAP_WIDTH, 0.09, MAP_WIDTH, 0.26)), zone_map)
        _draw_quality(figure, list_quality_parts(figures))
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png")
    return _compress_png(Image.open(drawn).convert("RGB"))


def draw_month_days(figures: MonthFigures) -> str:
    """Draw the trips of each day as Markdown that Dagster's UI shows on the month's page."""
    days = list(figures.month.window)
    trips = [figures.days[day].trips if day in figures.days else 0 for day in days]
    workdays = [day.day - 1 for day in days if day.weekday() < SATURDAY]
    text = "Trips by day. Blue: weekends."
    if figures.missing:
        text += f" {len(figures.days)} of {len(days)} days are loaded."
    labels = {at: str(at + 1) for at in range(0, len(days), 7)}
    return draw_inline_bars(trips, labels, text, marked=workdays)


def scale_picture(drawn: bytes, width: int) -> bytes:
    """Scale a picture to a width in pixels."""
    from PIL import Image

    image = Image.open(io.BytesIO(drawn)).convert("RGB")
    size = (width, image.height * width // image.width)
    return _compress_png(image.resize(size, Image.Resampling.LANCZOS))


def _compress_png(image: Image.Image) -> bytes:
    from PIL import Image

    small = io.BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()


def _add_axes(
    figure: Figure, place: tuple[float, float, float, float], title: str = "", remark: str = ""
) -> Axes:
    """Add titled axes at left, bottom, width and height as fractions of the figure."""
    axes = figure.add_axes(place)
    axes.tick_params(length=0, labelsize=10, labelcolor=LIGHT.soft)
    for spine in axes.spines.values():
        spine.set_visible(False)
    left = COLUMNS[place[0] >= COLUMNS[1]]
    top = place[1] + place[3] + TITLE_ABOVE
    _write_bold(figure, (left, top), title, 14)
    _write(figure, (place[0] + place[2], top), remark, 11, ha="right")
    return axes


def _write(figure: Figure, place: tuple[float, float], text: str, size: float, **more: Any) -> None:
    """Write text, vertically centred on a point in fractions of the figure."""
    figure.text(*place, text, **{"size": size, "color": LIGHT.soft, "va": "center", **more})


def _write_bold(
    figure: Figure, place: tuple[float, float], text: str, size: float, **more: Any
) -> None:
    _write(figure, place, text, size, **{"weight": "bold", "color": LIGHT.ink, **more})


def _draw_heading(figure: Figure, figures: MonthFigures) -> None:
    _write_bold(figure, (0.03, 0.942), month_text.write_title(figures), 27)
    _write(figure, (0.03, 0.89), month_text.write_headline(figures), 13)
    remarks = [month_text.describe_loaded_days(figures)] if figures.missing else []
    remarks += [month_text.SYNTHETIC] if figures.synthetic else []
    _write_bold(figure, (0.97, 0.942), "\n".join(remarks), 12, color=LIGHT.alarm, ha="right")
    tiles = build_headline_tiles(figures)
    for at, (name, value) in enumerate(tiles):
        left = 0.03 + at * min(0.19, 0.94 / len(tiles))
        _write(figure, (left, 0.843), name, 11)
        _write_bold(figure, (left, 0.806), value, 19)


def _draw_calendar(axes: Axes, figures: MonthFigures) -> None:
    weeks = split_into_weeks(figures.month)
    _draw_grid(axes, WEEKDAYS, len(weeks))
    axes.set_xticks([at + 1 / 2 for at in range(WEEKDAYS)], list(calendar.day_abbr))
    for row, week in enumerate(weeks):
        for column, day in enumerate(week):
            if day is None:
                continue
            counted = figures.days.get(day)
            at = pick_colour_step(counted.trips, *find_day_scale(figures)) if counted else None
            colour = _draw_cell(axes, column, row, at, 0.03)
            axes.text(column + 0.09, row + 0.32, str(day.day), size=9, color=colour, va="center")
            trips, size = (f"{counted.trips:,}", 12) if counted else ("not loaded", 9)
            style: dict[str, Any] = {"size": size, "color": colour, "ha": "right", "va": "center"}
            axes.text(column + 0.92, row + 0.62, trips, **style)


def _draw_hours(axes: Axes, figures: MonthFigures) -> None:
    _draw_grid(axes, HOURS, WEEKDAYS)
    axes.set_xticks(
        [at + 1 / 2 for at in range(0, HOURS, 3)], [f"{at:02d}" for at in range(0, HOURS, 3)]
    )
    axes.set_yticks([at + 1 / 2 for at in range(WEEKDAYS)], list(calendar.day_abbr))
    maximum = find_busiest_hour_mean(figures)
    for row, means in enumerate(figures.by_hour):
        for hour in range(HOURS):
            _draw_cell(
                axes, hour, row, pick_colour_step(means[hour], 0, maximum) if means else None, 0.04
            )


def _draw_revenue(axes: Axes, figures: MonthFigures) -> None:
    of_day = {day: day_figures.revenue or 0.0 for day, day_figures in figures.days.items()}
    ticks = scale_revenue(min(0.0, *of_day.values()), max(0.0, *of_day.values()))
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=LIGHT.line)
    axes.set_yticks(ticks, map(month_text.format_short_money, ticks))
    axes.set_xlim(0.4, len(figures.month.window) + 0.6)
    axes.set_xticks(range(1, len(figures.month.window) + 1, 7))
    for day in figures.month.window:
        if day in of_day:
            colour = LIGHT.steps[4] if day.weekday() >= SATURDAY else LIGHT.bar
            axes.bar(day.day, of_day[day], 0.78, color=colour)
        else:
            hatched: dict[str, Any] = {"color": "none", "edgecolor": LIGHT.line, "hatch": "////"}
            axes.bar(day.day, ticks[-1] - ticks[0], 0.78, ticks[0], **hatched)
    axes.set_ylim(ticks[0], ticks[-1])


def _draw_zones(axes: Axes, figures: MonthFigures, room: float) -> None:
    """Draw the bars, with `room` times the usual space for the figures after them."""
    rows = rank_pickup_zones(figures)
    names = [
        row.name if len(row.name) <= MAX_NAME_LENGTH else f"{row.name[: MAX_NAME_LENGTH - 1]}…"
        for row in rows
    ]
    axes.barh(names, [row.trips for row in rows], 0.7, color=LIGHT.steps[4])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_xlim(0, rows[0].trips * (0.9 + 0.42 * room))
    axes.tick_params(axis="y", labelcolor=LIGHT.ink, labelsize=9.5)
    for at, row in enumerate(rows):
        text = f" {row.trips:,}  ({100 * row.share:.1f} %)"
        axes.text(row.trips, at, text, size=9.5, color=LIGHT.soft, va="center")


def _draw_quality(figure: Figure, parts: list[Part]) -> None:
    axes = figure.add_axes((0.03, 0.052, 0.94, 0.016))
    axes.set_axis_off()
    left = 0
    for part in (part for part in parts if part.rows > 0):
        axes.barh(
            0, part.rows, left=left, color=SHADES.get(part.kind, LIGHT.alarm), edgecolor="white"
        )
        left += part.rows
    axes.set_xlim(0, max(left, 1))
    text = "   ".join(f"{part.label}: {part.rows:,}" for part in parts if part.rows)
    _write(figure, (0.03, 0.03), text, 10)


def _draw_grid(axes: Axes, columns: int, rows: int) -> None:
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.xaxis.tick_top()


def _draw_cell(axes: Axes, column: int, row: int, at: int | None, gap: float) -> str:
    """Draw a cell of a heat map, hatched if it has no data, and return the colour of its text."""
    from matplotlib.patches import Rectangle

    place, width = (column + gap, row + gap), 1 - 2 * gap
    if at is None:
        axes.add_patch(
            Rectangle(place, width, width, fill=False, hatch="////", ec=LIGHT.line, lw=0)
        )
        return LIGHT.soft
    axes.add_patch(Rectangle(place, width, width, fc=LIGHT.steps[at], lw=0))
    return LIGHT.over if at >= LIGHT.turn else LIGHT.under
