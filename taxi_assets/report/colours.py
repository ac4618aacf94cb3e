"""The colours of heat maps and bars, for light and dark backgrounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """One set of colours; texts and bars have a contrast of at least 4.5."""

    paper: str
    card: str
    ink: str
    soft: str
    line: str
    bar: str
    alarm: str
    steps: tuple[str, ...]
    """Colours of a heat map, from few to many."""
    turn: int
    """First step whose text has the colour `over` instead of `under`."""
    under: str
    over: str


LIGHT = Theme(
    paper="#f4f6f8",
    card="#ffffff",
    ink="#14202b",
    soft="#566575",
    line="#e2e7ec",
    bar="#946200",
    alarm="#a33a12",
    steps=("#edf4fb", "#d3e4f5", "#abcdec", "#7cb1e0", "#3474b2", "#1d5a98", "#0b3a6e"),
    turn=4,
    under="#14202b",
    over="#ffffff",
)
DARK = Theme(
    paper="#0f151b",
    card="#182028",
    ink="#e8eef4",
    soft="#9fb0c0",
    line="#2b3641",
    bar="#f2bd3a",
    alarm="#ff9b73",
    steps=("#1b2c3d", "#1f4161", "#245682", "#2b6da6", "#5ea4d9", "#96c8ef", "#d2e9fd"),
    turn=4,
    under="#ffffff",
    over="#0f1a24",
)


def pick_colour_step(value: float, low: float, high: float) -> int:
    """Return the index of the colour for `value` on a scale from `low` to `high`."""
    last = len(LIGHT.steps) - 1
    return round(last * (value - low) / (high - low)) if high > low else last
