"""Account for every row of a month's file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from taxi_assets.report.figures import MonthFigures
from taxi_assets.trips.clean import ROW_LIMIT
from taxi_assets.trips.rules import RULES

REASONS = {
    **{name: rule.description for name, rule in RULES.items()},
    "unreadable": "a value cannot be read",
    ROW_LIMIT: "beyond the row limit of a trial run",
}

Kind = Literal["stored", "dropped", "other", "alarm"]


@dataclass(frozen=True)
class Part:
    """A part of a file's rows; the parts of a file add up to all rows."""

    label: str
    rows: int
    kind: Kind


def list_quality_parts(figures: MonthFigures) -> list[Part]:
    """List the parts of the month file, stored trips first."""
    dropped = [
        Part(f"Left out: {REASONS.get(name, name)}", rows, "dropped")
        for name, rows in figures.dropped.items()
        if rows or name in RULES
    ]
    parts = [Part("Stored trips", figures.trips, "stored"), *dropped]
    if figures.file_rows is not None:
        parts.append(Part("Pickup in another month, quarantined", figures.outside, "other"))
        parts.append(Part("Cannot be read, quarantined", figures.unreadable, "other"))
    if figures.missing and figures.unaccounted:
        parts.append(Part("In days that are not loaded", figures.unaccounted, "other"))
    elif figures.unaccounted:
        parts.append(Part("Not accounted for", figures.unaccounted, "alarm"))
    return parts


def write_verdict(figures: MonthFigures) -> str:
    """Write one sentence about whether the parts add up."""
    if figures.file_rows is None:
        return "The lake has no record of the number of rows in the month's file."
    if figures.missing:
        return "Some days are not loaded, so these figures cover only a part of the file's rows."
    if figures.unaccounted:
        return (
            "The parts do not add up to the file: some days were loaded from another version of "
            "it. Load the month again."
        )
    return "The parts add up to the file: no row is lost without a reason."
