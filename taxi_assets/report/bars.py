"""The bar chart of a month's daily revenue, as coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

from taxi_assets.report.figures import MonthFigures
from taxi_assets.report.month_text import format_long_day, format_short_money

WIDTH, HEIGHT = 640.0, 380.0
LEFT, BOTTOM, TOP = 64.0, 24.0, 16.0
"""Margins for the scale, the days and above the highest bar, in the units of `WIDTH`."""
GAP = 0.22
SATURDAY = 5


@dataclass(frozen=True)
class Bar:
    """The bar of one day."""

    x: float
    y: float
    width: float
    height: float
    day: int
    missing: bool
    weekend: bool
    hint: str


@dataclass(frozen=True)
class Bars:
    """The bars of all days, and the lines of the scale with their amounts."""

    bars: list[Bar]
    lines: list[tuple[float, str]]
    zero: float
    """Position of $0; the bars of days with negative revenue hang below it."""
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT


def scale_revenue(lowest: float, highest: float) -> list[float]:
    """Return four or five round numbers that cover `lowest` to `highest`."""
    rough = max(highest - lowest, 1.0) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    width = next(unit * nice for nice in (1, 2, 2.5, 5, 10) if unit * nice >= rough)
    first, last = math.floor(lowest / width), math.ceil(highest / width)
    return [width * at for at in range(first, max(last, first + 1) + 1)]


def layout_revenue_bars(figures: MonthFigures) -> Bars:
    """Lay out the revenue by day; a day that is not loaded is marked instead of drawn as zero."""
    of_day = {day: day_figures.revenue or 0.0 for day, day_figures in figures.days.items()}
    ticks = scale_revenue(min(0.0, *of_day.values()), max(0.0, *of_day.values()))
    room = HEIGHT - TOP - BOTTOM

    def scale(dollars: float) -> float:
        return TOP + room * (ticks[-1] - dollars) / (ticks[-1] - ticks[0])

    slot = (WIDTH - LEFT) / len(figures.month.window)

    def build_bar(day: date) -> Bar:
        dollars = of_day.get(day)
        top = TOP if dollars is None else min(scale(dollars), scale(0))
        height = room if dollars is None else abs(scale(dollars) - scale(0))
        hint = "not loaded" if dollars is None else f"${dollars:,.2f}"
        return Bar(
            x=LEFT + slot * (day.day - 1 + GAP / 2),
            y=top,
            width=slot * (1 - GAP),
            height=height,
            day=day.day,
            missing=dollars is None,
            weekend=day.weekday() >= SATURDAY,
            hint=f"{format_long_day(day)}: {hint}",
        )

    return Bars(
        [build_bar(day) for day in figures.month.window],
        [(scale(tick), format_short_money(tick)) for tick in ticks],
        scale(0),
    )
